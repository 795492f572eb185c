"""``ldmlr finetune --folds``, ``--test-fraction`` and ``--calibrate``: heads of all rows, figures of some."""

from __future__ import annotations

import json

import numpy as np
import pytest
from support.axes import draw
from support.stage3 import write_stores

from ldmlr.experiments.protocol import finetune_seeds
from ldmlr.heads.classifier import temperature_of
from ldmlr.heads.config import FinetuneConfig
from ldmlr.heads.finetune import finetune
from ldmlr.heads.headfile import FinetunedHead
from ldmlr.heads.logits import head_logits
from ldmlr.metrics.calibration import log_softmax
from ldmlr.store import FeatureStore, SplitData
from ldmlr.store.heldout import HeldOutConfig, Measuring

COUNTS = (60, 20, 8)
QUICK = ("--seeds", 2, "--epochs", 2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = write_stores(tmp_path_factory.mktemp("stores"))
    train = SplitData(*draw(COUNTS, seed=1))
    FeatureStore.write(path / "plain.h5", train=train)
    FeatureStore.write(path / "val.h5", train=train, val=SplitData(*draw((30, 30, 30), seed=2)))
    return path


def run(run_cli, store, out, *more):
    done = run_cli("finetune", store, *QUICK, *more, "--out", out, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_heads_are_those_that_nothing_was_held_out_of(run_cli, folder, tmp_path):
    plain = run(run_cli, folder / "plain.h5", tmp_path / "plain")
    folds = run(run_cli, folder / "plain.h5", tmp_path / "folds", "--folds", 3)
    assert plain["rows"] == []
    for name in ("head-seed0.safetensors", "head-seed1.safetensors"):
        assert (tmp_path / "plain" / name).read_bytes() == (tmp_path / "folds" / name).read_bytes()
    assert {row["measured_on"] for row in folds["rows"]} == {"folds"}
    assert folds["measured"].startswith("measured by 3 stratified folds")
    assert folds["config"]["folds"] == 3
    done = run_cli("finetune", folder / "plain.h5", *QUICK, "--folds", 3, "--out", tmp_path / "text")
    assert "measured by 3 stratified folds" in done.stdout


@pytest.mark.parametrize("held_out", [HeldOutConfig(folds=3), HeldOutConfig(test_fraction=0.3)])
def test_figures_are_those_of_heads_that_have_not_seen_the_rows(folder, held_out):
    config = FinetuneConfig(epochs=2)
    with FeatureStore.open(folder / "plain.h5") as store:
        found = finetune_seeds(store, config=config, seeds=[4], held_out=held_out, calibrate=True)
        measuring = Measuring.of(store, held_out)
        logits, labels = [], []
        for part in measuring.parts(store, 4):
            head = finetune(part, config=found.heads[0].config, seed=4)
            logits.append(head.logits(part.split("test").float32()))
            labels.append(np.asarray(part.split("test").labels))
    wide, right = np.concatenate(logits), np.concatenate(labels)
    share = 100 * (wide.argmax(axis=1) == right).mean()
    row = next(row for row in found.rows if (row["method"], row["adjustment"]) == ("finetuned", "none"))
    assert row["all"]["values"] == [pytest.approx(share)]
    assert found.heads[0].temperature == pytest.approx(temperature_of(wide, right))
    assert found.figures["temperatures"] == [found.heads[0].temperature]


def test_validation_rows_calibrate_and_predictions_use_it(run_cli, folder, tmp_path):
    plain = run(run_cli, folder / "val.h5", tmp_path / "plain")
    found = run(run_cli, folder / "val.h5", tmp_path / "run", "--calibrate")
    assert plain["temperatures"] == [1.0, 1.0]
    assert all(value != 1.0 for value in found["temperatures"])
    head = FinetunedHead.load(tmp_path / "run" / "head-seed0.safetensors")
    rows, labels = draw((30, 30, 30), seed=2)
    before = FinetunedHead.load(tmp_path / "plain" / "head-seed0.safetensors")
    assert head.temperature == pytest.approx(before.calibrated(rows, labels).temperature)
    assert np.array_equal(head.predict(rows), before.predict(rows))
    table = tmp_path / "p.csv"
    assert (
        run_cli("predict", tmp_path / "run", folder / "val.h5", "--split", "val", "--out", table).returncode
        == 0
    )
    said = np.loadtxt(table, delimiter=",", skiprows=1, usecols=(3, 4, 5))
    np.testing.assert_allclose(said, head.predict_proba(rows), atol=1e-5)


def test_the_label_shift_row_has_a_temperature_of_its_own(run_cli, folder, tmp_path):
    """Its logits are others, so the temperature of the head itself would not suit them."""
    found = run(run_cli, folder / "val.h5", tmp_path / "run", "--calibrate")
    head = FinetunedHead.load(tmp_path / "run" / "head-seed0.safetensors")
    rows, labels = draw((30, 30, 30), seed=2)
    logits = head_logits(head.label_shifted(), rows)
    assert head.shift_temperature == pytest.approx(temperature_of(logits, labels))
    assert head.shift_temperature not in (1.0, head.temperature)
    assert found["shift_temperatures"][0] == head.shift_temperature
    table = tmp_path / "p.csv"
    done = run_cli(
        "predict", tmp_path / "run", folder / "val.h5", "--split", "val", "--adjustment", "label-shift",
        "--out", table,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = np.loadtxt(table, delimiter=",", skiprows=1, usecols=(3, 4, 5))
    wanted = np.exp(log_softmax(logits.astype(np.float64) / head.shift_temperature))
    np.testing.assert_allclose(said, wanted, atol=1e-5)


@pytest.mark.parametrize(
    ("store", "more", "message"),
    [
        ("features.h5", ("--folds", 3), "--folds: "),
        ("plain.h5", ("--folds", 3, "--test-fraction", 0.2), "--folds, --test-fraction: give one of the two"),
        ("plain.h5", ("--folds", 3, "--pseudo", "pseudo.h5"), "--folds: generated rows may be made from"),
        ("plain.h5", ("--calibrate",), "--calibrate: needs rows that no head is trained on"),
        ("features.h5", ("--calibrate",), "--calibrate: needs rows that no head is trained on"),
    ],
)
def test_what_cannot_be_is_told_before_any_work(run_cli, folder, tmp_path, monkeypatch, store, more, message):
    monkeypatch.chdir(folder)
    done = run_cli("finetune", store, *QUICK, *more, "--out", tmp_path / "out")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert done.stderr.startswith(f"Error: {message}")
    assert not (tmp_path / "out").exists()
