"""`ldmlr run --auto`: which method to use, chosen without the test split, and its head."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ldmlr.heads.evaluation import Variant, measure
from ldmlr.heads.headfile import FinetunedHead
from ldmlr.heads.logits import head_logits
from ldmlr.select.report import recommended
from ldmlr.store import FeatureStore, SplitData, StoredHead

TRIED = ("ncm", "balanced-softmax", "smote", "gaussian")
SMALL = (
    "--set", "diffuse.hidden=8", "--set", "diffuse.iterations=5",
    "--set", f"select.methods={json.dumps(TRIED)}",
)  # fmt: skip
COUNTS = (90, 40, 10)


def rows(counts, seed):
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(3), counts)
    return (1.5 * np.eye(3, 6)[labels] + rng.standard_normal((len(labels), 6))).astype(np.float32), labels


def make(path, *, test=True, val=False, head=False, wrong_test=False):
    features, labels = rows((30, 30, 30), 1)
    splits = {}
    if test:
        splits["test"] = SplitData(features, (labels + 1) % 3 if wrong_test else labels)
    if val:
        splits["val"] = SplitData(*rows((20, 20, 20), 2))
    if head:
        splits["head"] = StoredHead("linear", 1.5 * np.eye(3, 6, dtype=np.float32), np.zeros(3, np.float32))
    return FeatureStore.write(path, train=SplitData(*rows(COUNTS, 0)), **splits).path


def run(run_cli, store, out, *more):
    seeds = () if "--seed" in more else ("--seeds", 2)
    done = run_cli("run", store, "--auto", *seeds, *SMALL, *more, "--out", out, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_answer_comes_first_and_its_head_is_written(run_cli, tmp_path):
    store = make(tmp_path / "s.h5")
    result = run(run_cli, store, tmp_path / "run", "--foreign-encoder")
    auto, best = result["auto"], result["best"]
    assert (best["method"], best["adjustment"]) == (auto["method"], auto["adjustment"])
    assert auto["held_out"].startswith("held-out training rows")
    assert auto["headline"].startswith("Use ")
    tried = {trial["method"]: trial for trial in auto["trials"]}
    assert set(tried) == set(TRIED)
    assert auto["accuracy"] == pytest.approx(max(trial["held_out"] for trial in tried.values()), abs=15)
    # The head that was written has the accuracy that stands in the table.
    head = FinetunedHead.load(result["head"])
    with FeatureStore.open(store) as opened:
        found = measure([Variant("x", "none", head.label_shifted())], opened.test, head.counts)[0]
    assert found.figures["all"] == pytest.approx(best["all"]["values"][0])
    assert [row["method"] for row in result["rows"][:4]] == ["baseline", "baseline", "ldmlr", "ldmlr"]

    again = run_cli(
        "run", store, "--auto", "--seeds", 2, *SMALL, "--foreign-encoder", "--out", tmp_path / "run"
    )
    assert again.stdout.splitlines()[0] == auto["headline"]
    # The table marks the method that is to be used, and has its settings.
    lines = [line for line in again.stdout.splitlines() if line.endswith("use this")]
    assert len(lines) == 1
    assert lines[0].split()[0] == auto["method"].removesuffix("-tuned")
    assert "The rows of this table alone: " in again.stdout
    assert "auto" in next(line for line in again.stderr.splitlines() if " auto " in line)
    assert "reused" in next(line for line in again.stderr.splitlines() if " auto " in line)


def test_the_test_split_has_no_say(run_cli, tmp_path):
    right = run(run_cli, make(tmp_path / "a.h5"), tmp_path / "a", "--foreign-encoder")
    wrong = run(run_cli, make(tmp_path / "b.h5", wrong_test=True), tmp_path / "b", "--foreign-encoder")
    for name in ("method", "chosen", "headline", "accuracy"):
        assert right["auto"].get(name) == wrong["auto"].get(name)
    assert right["best"]["all"]["mean"] > wrong["best"]["all"]["mean"]


def test_where_the_encoder_has_seen_the_rows_nothing_can_be_told_without_validation_rows(run_cli, tmp_path):
    store = make(tmp_path / "s.h5", head=True)
    result = run(run_cli, store, tmp_path / "run")
    assert (result["best"]["method"], result["best"]["adjustment"]) == ("ldmlr", "label-shift")
    assert "they tell no methods apart" in result["auto"]["headline"]
    row = next(
        row for row in result["rows"] if (row["method"], row["adjustment"]) == ("ldmlr", "label-shift")
    )
    assert result["best"]["all"] == row["all"]
    head = FinetunedHead.load(result["head"])
    with FeatureStore.open(store) as opened:
        found = measure([Variant("x", "none", head.head)], opened.test, head.counts)[0]
    assert found.figures["all"] == pytest.approx(row["all"]["values"][0])


def test_with_validation_rows_the_runs_own_head_is_one_of_them(run_cli, tmp_path):
    store = make(tmp_path / "s.h5", val=True, head=True)
    result = run(
        run_cli, store, tmp_path / "run", "--encoder-trained-on-rows",
        "--set", "select.generators=gaussian", "--set", "select.scales=1", "--set", "select.gates=none",
    )  # fmt: skip
    auto = result["auto"]
    assert auto["held_out"] == "60 validation rows"
    own = [trial for trial in auto["trials"] if trial.get("adjustment") == "label-shift"]
    assert len(own) == 1
    chosen = recommended(auto, auto["trials"])
    assert chosen["held_out"] == pytest.approx(auto["accuracy"], abs=1e-3)
    best = max(auto["trials"], key=lambda trial: trial["held_out"])
    assert auto["accuracy"] >= min(best["held_out"], own[0]["held_out"]) - 1e-3
    assert result["choice"] is not None


def test_without_a_test_split_the_held_out_rows_speak(run_cli, tmp_path):
    store = make(tmp_path / "s.h5", test=False)
    result = run(run_cli, store, tmp_path / "run", "--foreign-encoder", "--folds", 2)
    assert result["best"]["method"] == result["auto"]["method"]
    assert result["best"]["balanced"]["mean"] == pytest.approx(result["auto"]["accuracy"])
    assert result["best"]["all"]["mean"] == pytest.approx(result["auto"]["row_accuracy"])
    assert FinetunedHead.load(result["head"]).num_classes == 3


def test_features_in_another_form_are_taken_as_they_are_and_predict_uses_the_head(run_cli, tmp_path):
    features, labels = rows(COUNTS, 0)
    names = np.array(["ant", "bee", "cat"])
    np.savez(tmp_path / "emb.npz", features=features, labels=names[labels])
    np.save(tmp_path / "new.npy", features)
    result = run(run_cli, tmp_path / "emb.npz", tmp_path / "run", "--folds", 2)
    assert {row["measured_on"] for row in result["rows"]} == {"folds"}
    assert result["best"]["method"] == result["auto"]["method"] in TRIED
    done = run_cli(
        "predict", tmp_path / "run", tmp_path / "new.npy", "--out", tmp_path / "predictions.csv", "--json"
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["method"] == result["auto"]["method"]
    head = FinetunedHead.load(result["head"])
    lines = (tmp_path / "predictions.csv").read_text().splitlines()[1:]
    assert [line.split(",")[1] for line in lines] == names[head.logits(features).argmax(axis=1)].tolist()


def test_what_the_runs_own_head_subtracts_is_no_part_of_the_head_that_is_chosen(run_cli, tmp_path):
    result = run(
        run_cli, make(tmp_path / "s.h5"), tmp_path / "run", "--foreign-encoder", "--seed", 0,
        "--set", "finetune.fit=tuned", "--set", "finetune.loss=cross-entropy",
        "--set", "generate.strategy=ratio",
    )  # fmt: skip
    own = FinetunedHead.load(next((tmp_path / "run").glob("seed-0/finetune-*/head.safetensors")))
    assert own.shift is not None
    assert np.ptp(own.shift) > 0.1
    head, features = FinetunedHead.load(result["head"]), rows((5, 5, 5), 3)[0]
    np.testing.assert_allclose(head.logits(features), head_logits(head.label_shifted(), features), atol=1e-6)
