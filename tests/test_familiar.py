"""Whether the encoder has seen the training rows: known, said or measured, and what follows from it."""

from __future__ import annotations

import json

import numpy as np
import pytest

import ldmlr
from ldmlr.diffusion.config import DiffusionConfig
from ldmlr.generation.config import GenerateConfig
from ldmlr.generation.prepare import prepare
from ldmlr.heads.config import FinetuneConfig
from ldmlr.metrics.familiar import KEY, familiar, held_out_ratio
from ldmlr.store import FeatureStore, SplitData, StoredHead

SMALL = ("--hidden", 8, "--iterations", 5)
SET = ("--set", "diffuse.hidden=8", "--set", "diffuse.iterations=5")
COUNTS = (60, 20, 6)


def make(path, *, head=False, width=None, config=None):
    """A store of three classes; `width` is how much wider its held-out rows lie than its training rows."""
    rng = np.random.default_rng(0)
    centre = rng.standard_normal((3, 8))

    def rows(counts, spread):
        labels = np.repeat(np.arange(3), counts)
        noise = spread * rng.standard_normal((len(labels), 8))
        return SplitData((centre[labels] + noise).astype(np.float32), labels)

    splits = {} if width is None else {"val": rows((40, 40, 40), width)}
    stored = StoredHead("linear", centre.astype(np.float32), np.zeros(3, np.float32)) if head else None
    return FeatureStore.write(
        path, train=rows(COUNTS, 1.0), test=rows((9, 9, 9), 1.0), head=stored, config=config or {}, **splits
    )


@pytest.mark.parametrize(
    ("made", "said", "seen", "why"),
    [
        ({}, None, False, "nothing says otherwise"),
        ({"head": True}, None, True, "head of a baseline"),
        ({"head": True}, False, False, "as was said"),
        ({}, True, True, "as was said"),
        ({"head": True, "width": 1.0}, None, False, "as widely as training rows"),
        ({"width": 1.5}, None, True, "wider than training rows"),
        ({"width": 1.5, "config": {KEY: False}}, None, False, "kept in the store"),
        ({"config": {"source": {"config": {KEY: True}}}}, None, True, "kept in the store"),
    ],
)
def test_what_is_said_comes_before_what_is_kept_and_that_before_what_shows(tmp_path, made, said, seen, why):
    found = familiar(make(tmp_path / "s.h5", **made), said)
    assert found.trained_on_rows is seen
    assert why in found.why
    assert found.document() == {KEY: seen, "why": found.why}


def test_the_ratio_is_one_for_rows_of_one_kind_however_few_a_class_has(tmp_path):
    """Six rows lie closer around their own mean than new rows do, by 5/6 against 7/6."""
    ratios = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        labels = np.repeat(np.arange(3), (6, 6, 3))
        held = np.repeat(np.arange(3), 20)
        store = FeatureStore.write(
            tmp_path / f"{seed}.h5",
            train=SplitData(rng.standard_normal((len(labels), 30)).astype(np.float32), labels),
            val=SplitData(rng.standard_normal((len(held), 30)).astype(np.float32), held),
        )
        ratios.append(held_out_ratio(store))
    assert np.mean(ratios) == pytest.approx(1.0, abs=0.03)


def test_few_held_out_rows_do_not_tell(tmp_path):
    rng = np.random.default_rng(0)
    rows = SplitData(rng.standard_normal((9, 4)).astype(np.float32), np.arange(9) % 3)
    assert held_out_ratio(FeatureStore.write(tmp_path / "s.h5", train=rows, val=rows)) is None


def test_settings_follow_where_they_are_not_given():
    open_, given = GenerateConfig(), GenerateConfig(scale=1.2, guidance=2.0)
    assert open_.for_features(True) == open_
    assert (open_.for_features(False).scale, open_.for_features(False).guidance) == (1.0, 1.0)
    assert given.for_features(False) == given
    assert FinetuneConfig().settled("linear").mix == 0.5
    assert FinetuneConfig().for_features(False).settled("linear").mix == 1.0
    assert FinetuneConfig(mix=0.7).for_features(False).settled("linear").mix == 0.7


def test_a_model_keeps_it_and_generate_follows(tmp_path, run_cli):
    store = make(tmp_path / "s.h5").path
    for word, scale, guidance in (("--foreign-encoder", 1.0, 1.0), ("--encoder-trained-on-rows", 1.41, 1.5)):
        model = tmp_path / f"{word[2:]}.safetensors"
        made = run_cli("diffuse", store, word, *SMALL, "--out", model, "--json")
        assert made.returncode == 0, made.stderr
        assert json.loads(made.stdout)["features"] == {KEY: scale > 1, "why": "as was said"}
        drawn = run_cli("generate", model, "--out", tmp_path / f"{word[2:]}.h5", "--json")
        assert drawn.returncode == 0, drawn.stderr
        config = json.loads(drawn.stdout)["config"]
        assert (config["scale"], config["guidance"]) == (scale, guidance)
    # What is said when rows are drawn wins.
    other = run_cli("generate", model, "--foreign-encoder", "--dry-run", "--json")
    assert json.loads(other.stdout)["config"]["scale"] == 1.0
    # Models that do not know, as earlier versions wrote them, are drawn from by the recipe.
    plain = ldmlr.LatentDiffusion(DiffusionConfig(hidden=8, iterations=2)).fit_store(FeatureStore.open(store))
    assert prepare(plain, GenerateConfig()).config.scale == 1.41


def test_augment_keeps_it_in_the_balanced_store(tmp_path, run_cli):
    store = make(tmp_path / "s.h5", head=True).path
    done = run_cli("augment", store, "--foreign-encoder", *SMALL, "--out-dir", tmp_path / "out", "--json")
    assert done.returncode == 0, done.stderr
    found = FeatureStore.open(tmp_path / "out" / "s.h5")
    assert found.config["generate"]["scale"] == 1.0
    assert familiar(found).document() == {KEY: False, "why": "kept in the store"}


def test_import_keeps_it(tmp_path, run_cli):
    np.savez(tmp_path / "s.npz", features=np.ones((4, 2)), labels=np.arange(4) % 2)
    for word, seen in (("--foreign-encoder", False), ("--encoder-trained-on-rows", True)):
        out = tmp_path / f"{seen}.h5"
        done = run_cli("store", "import", tmp_path / "s.npz", word, "--out", out)
        assert done.returncode == 0, done.stderr
        assert FeatureStore.open(out).config[KEY] is seen


def test_run_and_compare_follow_it_and_say_why(tmp_path, run_cli):
    store = make(tmp_path / "s.h5", head=True).path
    for words, scale, mix in (([], None, 0.5), (["--foreign-encoder"], 1.0, 1.0)):
        out = tmp_path / f"run{mix}"
        done = run_cli("run", store, *words, "--seeds", 2, *SET, "--out", out, "--json")
        assert done.returncode == 0, done.stderr
        result = json.loads(done.stdout)
        assert result["features"][KEY] is (mix == 0.5)
        assert (result["config"]["generate"]["scale"], result["config"]["finetune"]["mix"]) == (scale, mix)
        said = "has not seen" if words else "has seen"
        assert f"The encoder {said} the training rows" in done.stderr
    methods = ("--methods", "baseline,gaussian-wide,ldmlr,ldmlr-plain", "--seeds", 1)
    wide, plain = (
        run_cli("compare", store, *words, *methods, *SET, "--json") for words in ([], ["--foreign-encoder"])
    )
    assert (wide.returncode, plain.returncode) == (0, 0), plain.stderr
    wide, plain = json.loads(wide.stdout), json.loads(plain.stdout)
    assert plain["features"] == {KEY: False, "why": "as was said"}

    def nll(document, method):
        return next(row["nll"]["mean"] for row in document["rows"] if row["method"] == method)

    assert nll(wide, "ldmlr") != nll(wide, "ldmlr-plain")
    # Without widening, guidance and mix the recipe is the plain sampler.
    assert nll(plain, "ldmlr") == nll(plain, "ldmlr-plain")


def test_an_own_encoder_is_known(tmp_path, run_cli):
    done = run_cli(
        "run",
        "digits-lt",
        "--seeds",
        1,
        "--set",
        "baseline.epochs=1",
        *SET,
        "--out",
        tmp_path / "r",
        "--json",
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["features"] == {KEY: True, "why": "a baseline, trained on them"}
    store = next((tmp_path / "r").glob("seed-0/encode-*/features.h5"))
    assert familiar(FeatureStore.open(store)).why == "kept in the store"
