"""The commands with URLs: stores, models, heads and results elsewhere."""

from __future__ import annotations

import json

import fsspec
import numpy as np
import pytest

from ldmlr import objects, spool
from ldmlr.remote import as_path
from ldmlr.store import FeatureStore, SplitData

SMALL = ("--hidden", "16", "--layers", "1", "--iterations", "20", "--threads", "1")
RNG = np.random.default_rng(1)
LABELS = np.repeat(np.arange(4), (60, 30, 12, 6))
MEANS = RNG.normal(size=(4, 8)) * 3
X = (MEANS[LABELS] + RNG.normal(size=(len(LABELS), 8))).astype(np.float32)


@pytest.fixture
def base(tmp_path, monkeypatch):
    """Return the URL of a folder with one store."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    spool._folder_of.clear()
    spool._copies.clear()
    fsspec.filesystem("memory").store.clear()
    rows = SplitData(X, LABELS)
    FeatureStore.write("memory://bucket/features.h5", train=rows, test=SplitData(X[::3], LABELS[::3]))
    FeatureStore.write(tmp_path / "features.h5", train=rows, test=SplitData(X[::3], LABELS[::3]))
    return "memory://bucket"


def done(outcome):
    assert outcome.returncode == 0, outcome.stderr
    return outcome


def fails(outcome, status, text):
    assert outcome.returncode == status, outcome.stderr
    assert "Traceback" not in outcome.stderr
    assert text in outcome.stderr.strip().splitlines()[-1]


def same_rows(one, other):
    here, there = FeatureStore.open(one), FeatureStore.open(other)
    np.testing.assert_array_equal(here.train.float32(), there.train.float32())
    np.testing.assert_array_equal(here.train.labels, there.train.labels)


def test_all_stages(run_cli, base, tmp_path):
    done(run_cli("diffuse", f"{base}/features.h5", "--out", f"{base}/m/model.safetensors", *SMALL))
    done(run_cli("diffuse", tmp_path / "features.h5", "--out", tmp_path / "model.safetensors", *SMALL))
    ours = as_path(f"{base}/m/model.safetensors")
    document = json.loads(as_path(f"{base}/m/result.json").read_text())
    assert document["command"] == "diffuse"
    assert document["config"]["store"] == f"{base}/features.h5"
    draw = ("--steps", "4", "--threads", "1")
    done(run_cli("generate", ours, "--out", f"{base}/pseudo.h5", *draw))
    done(run_cli("generate", tmp_path / "model.safetensors", "--out", tmp_path / "pseudo.h5", *draw))
    same_rows(f"{base}/pseudo.h5", tmp_path / "pseudo.h5")
    fails(run_cli("generate", ours, "--out", f"{base}/pseudo.h5", *draw), 2, "already exists")
    again = done(run_cli("generate", ours, "--out", f"{base}/pseudo.h5", *draw, "--resume"))
    assert "nothing to do" in again.stderr
    done(
        run_cli(
            "finetune", f"{base}/features.h5", "--pseudo", f"{base}/pseudo.h5", "--out", f"{base}/heads",
            "--seeds", "1", "--threads", "1",
        )
    )  # fmt: skip
    figures = json.loads(
        done(
            run_cli(
                "evaluate", f"{base}/features.h5", "--head", f"{base}/heads/head-seed0.safetensors", "--out",
                f"{base}/evaluation", "--json",
            )
        ).stdout
    )  # fmt: skip
    assert figures["rows"][0]["all"]["mean"] > 50
    assert as_path(f"{base}/evaluation/result.json").is_file()
    table = tmp_path / "predicted.csv"
    head = f"{base}/heads/head-seed0.safetensors"
    np.savez(tmp_path / "rows.npz", features=X)
    objects.upload(tmp_path / "rows.npz", f"{base}/rows.npz", False)
    for source in (f"{base}/features.h5", f"{base}/rows.npz"):
        done(run_cli("predict", head, source, "--out", table, "--overwrite"))
    done(run_cli("predict", head, f"{base}/rows.npz", "--out", f"{base}/predicted.csv"))
    assert as_path(f"{base}/predicted.csv").read_bytes() == table.read_bytes()
    done(run_cli("predict", f"{base}/heads", f"{base}/rows.npz", "--out", f"{base}/best.csv"))
    assert "head" in done(run_cli("model", "show", head)).stdout
    done(run_cli("export", head, "--format", "npz", "--out", f"{base}/head.npz"))
    left = [path for path in fsspec.filesystem("memory").find("/") if "/." in path]
    assert left == []


def test_augment(run_cli, base, tmp_path):
    for source, out in (
        (f"{base}/features.h5", f"{base}/balanced"),
        (tmp_path / "features.h5", tmp_path / "b"),
    ):
        done(run_cli("augment", source, "--out-dir", out, *SMALL, "--steps", "4"))
    same_rows(f"{base}/balanced/features.h5", tmp_path / "b" / "features.h5")
    found = json.loads(as_path(f"{base}/balanced/result.json").read_text())
    assert found["stores"][0]["output"] == f"{base}/balanced/features.h5"


def test_stores(run_cli, base, tmp_path):
    shown = json.loads(done(run_cli("store", "inspect", f"{base}/features.h5", "--json")).stdout)
    assert (shown["file"], shown["splits"]["train"]["rows"]) == (f"{base}/features.h5", len(LABELS))
    assert "sound" in done(run_cli("store", "verify", f"{base}/features.h5")).stdout
    done(run_cli("store", "export", f"{base}/features.h5", "--out", f"{base}/rows.npz"))
    done(run_cli("store", "import", f"{base}/rows.npz", "--out", f"{base}/again.h5"))
    same_rows(f"{base}/again.h5", tmp_path / "features.h5")
    done(run_cli("store", "merge", f"{base}/features.h5", f"{base}/again.h5", "--out", f"{base}/both.h5"))
    assert len(FeatureStore.open(f"{base}/both.h5").train) == 2 * len(LABELS)
    fails(run_cli("store", "verify", f"{base}/none.h5"), 1, f"{base}/none.h5: no such feature store")
    fails(run_cli("store", "inspect", f"{base}/rows.npz"), 1, f"{base}/rows.npz: is a zip or .npz file")


def test_shards_by_their_number(run_cli, base, tmp_path):
    source = ("generate", f"{base}/features.h5", "--generator", "gaussian", "--threads", "1")
    done(run_cli(*source, "--out", tmp_path / "whole.h5"))
    for index in (2, 0, 1):
        done(run_cli(*source, "--out", f"{base}/shards/rows.h5", "--shard", f"{index}/3"))
    same_rows(f"{base}/shards/rows.json", tmp_path / "whole.h5")
    done(run_cli("store", "verify", f"{base}/shards/rows.json"))
    as_path(f"{base}/shards/rows-00001-of-00003.h5").unlink()
    for index in range(3):
        outcome = done(
            run_cli(*source, "--out", f"{base}/shards/rows.h5", "--shard", f"{index}/3", "--resume")
        )
        assert ("nothing to do" in outcome.stderr) == (index != 1)
    same_rows(f"{base}/shards/rows.json", tmp_path / "whole.h5")


def test_a_run_of_a_store_elsewhere(run_cli, base, tmp_path):
    found = json.loads(
        done(
            run_cli(
                "run", f"{base}/features.h5", "--out", tmp_path / "run", "--set", "diffuse.iterations=20",
                "--set", "diffuse.hidden=16", "--seed", "0", "--threads", "1", "--json",
            )
        ).stdout
    )  # fmt: skip
    assert found["config"]["source"] == f"{base}/features.h5"
    assert {row["method"] for row in found["rows"]} >= {"baseline", "ldmlr"}


def test_features_of_another_form(run_cli, base, tmp_path):
    np.savez(tmp_path / "rows.npz", features=X, labels=LABELS)
    objects.upload(tmp_path / "rows.npz", f"{base}/rows.npz", False)
    done(run_cli("augment", f"{base}/rows.npz", "--out-dir", f"{base}/out", *SMALL, "--steps", "4"))
    store = FeatureStore.open(f"{base}/out/rows.h5")
    np.testing.assert_array_equal(store.train.float32(slice(0, len(X))), X)
    again = run_cli(
        "augment", f"{base}/rows.npz", "--out-dir", f"{base}/out", *SMALL, "--steps", "4", "--resume"
    )
    assert "found as a feature store" in done(again).stderr


def test_a_folder_of_images_is_refused_in_one_line(run_cli, base):
    objects.write(f"{base}/images/cat/1.png", b"1")
    fails(
        run_cli("run", f"{base}/images", "--out", "runs/never"), 1,
        f"{base}/images: a file of this machine is needed here",
    )  # fmt: skip
    fails(run_cli("run", f"{base}/nothing.h5"), 1, f"{base}/nothing.h5: no such file or folder")


def test_a_baseline_and_its_features(run_cli, base):
    where = f"{base}/baseline"
    done(run_cli("baseline", "digits-lt", "--out", where, "--epochs", "1", "--threads", "1"))
    done(run_cli("encode", where, "digits-lt", "--out", f"{base}/encoded.h5", "--threads", "1"))
    assert FeatureStore.open(f"{base}/encoded.h5").head is not None
