"""The built-in set whose features are ready, in every command that takes features."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ldmlr.data import open_image_set
from ldmlr.data.featuresets import FEATURE_SETS, ready_set
from ldmlr.store import verify

NAME = "digits-pixels-lt"
SMALL = ("--hidden", 8, "--iterations", 5)


def test_it_has_the_pixels_of_the_built_in_images(tmp_path):
    assert FEATURE_SETS == (NAME,)
    found = ready_set(NAME, tmp_path)
    with found.open() as store:
        images = open_image_set("digits-lt", seed=0)
        assert (store.dim, store.num_classes) == (64, 10)
        assert store.train.counts.tolist() == [120, 82, 56, 38, 26, 18, 12, 8, 5, 4]
        assert np.array_equal(store.train.labels, images.train.labels)
        assert np.array_equal(store.train.ids, images.train.ids)
        pixels = images.test.load(np.arange(540)).reshape(540, 64)
        assert np.array_equal(np.rint(255 * store.test.float32()), pixels)
        assert store.config["encoder_trained_on_rows"] is False
    assert verify(found.path).problems == []


def test_it_is_written_once(tmp_path):
    first = ready_set(NAME, tmp_path)
    written = first.path.stat().st_mtime_ns
    again = ready_set(NAME, tmp_path)
    assert (first.before, again.before) == (False, True)
    assert again.path.stat().st_mtime_ns == written


@pytest.mark.parametrize(
    "words",
    [
        ("compare", NAME, "--methods", "baseline,ncm", "--seeds", 1, "--out", "out"),
        ("diffuse", NAME, *SMALL, "--out", "out/model.safetensors"),
        ("run", NAME, "--seeds", 1, "--set", "diffuse.iterations=5", "--out", "out"),
        ("finetune", NAME, "--seeds", 1, "--epochs", 1, "--out", "out"),
    ],
)
def test_commands_take_it_by_name(words, run_cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = run_cli(*words, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["command"] == words[0]
    assert f"{NAME}: kept as a feature store in out/converted/{NAME}.h5" in done.stderr


def test_keys_are_refused(run_cli, tmp_path):
    done = run_cli("compare", NAME, "--features-key", "x", "--out", tmp_path)
    assert done.returncode == 2
    assert "built-in set with features of its own" in done.stderr
