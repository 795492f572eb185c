"""Heads of stage 3 that are fitted anew, and heads as scikit-learn knows classifiers."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from support.axes import COUNTS, DIM, draw
from support.stage3 import accuracy_of, generated_rows, natural_rows, write_stores

import ldmlr
from ldmlr.errors import InputError, UsageError
from ldmlr.heads.config import FinetuneConfig
from ldmlr.heads.evaluation import tuned_variants
from ldmlr.heads.headfile import FinetunedHead
from ldmlr.heads.logits import head_logits
from ldmlr.heads.losses import log_prior
from ldmlr.heads.training_rows import gather_rows
from ldmlr.heads.tuned import held_views, mixed
from ldmlr.metrics.calibration import calibration
from ldmlr.store import FeatureStore, SplitData

TEST = draw((200, 200, 200), seed=9)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_stores(tmp_path_factory.mktemp("stores"))


@pytest.fixture(scope="module")
def tuned(folder):
    return ldmlr.finetune(folder / "headless.h5")


def test_rows_of_a_foreign_encoder_get_a_tuned_head_and_familiar_ones_the_recipe(folder, tuned):
    assert (tuned.config.fit, tuned.config.loss, tuned.config.head) == ("tuned", "balanced-softmax", "linear")
    assert tuned.config.weight_decay == tuned.chosen["weight_decay"] > 0
    assert tuned.chosen["chosen_by"] == "held-out training rows (5 inner folds)"
    assert accuracy_of(tuned.logits(TEST[0]), TEST[1]) > 0.85
    recipe = ldmlr.finetune(folder / "features.h5")
    assert (recipe.config.fit, recipe.config.loss, recipe.config.weight_decay) == (
        "recipe",
        "cross-entropy",
        0,
    )
    assert len(recipe.history) == 12
    assert recipe.chosen is None
    assert ldmlr.finetune(folder / "features.h5", fit="tuned").config.weight_decay > 0
    assert ldmlr.finetune(folder / "headless.h5", epochs=12).config.fit == "recipe"
    assert ldmlr.finetune(natural_rows(), lr=0.01).config.fit == "recipe"


@pytest.mark.parametrize("loss", ["cross-entropy", "balanced-softmax", "class-weights"])
def test_the_label_shift_row_of_a_tuned_head_shifts_each_part_by_what_it_lacks(folder, loss):
    tuned = ldmlr.finetune(folder / "headless.h5", loss=loss, weight_decay=0.01, average=0.25)
    prior = log_prior(np.array(COUNTS))
    shift = prior if loss == "cross-entropy" else np.zeros(3)
    np.testing.assert_allclose(tuned.shift, shift)
    expected = 0.25 * (head_logits(tuned.baseline, TEST[0]) - prior) + 0.75 * (tuned.logits(TEST[0]) - shift)
    np.testing.assert_allclose(head_logits(tuned.label_shifted(), TEST[0]), expected, atol=1e-4)
    plain, shifted = tuned_variants(tuned)
    assert (plain.adjustment, plain.tau, shifted.adjustment, shifted.tau) == ("none", 0, "label-shift", 1)


@pytest.mark.parametrize("kind", ["linear", "cosine", "wcdas", "mlp"])
def test_every_kind_is_saved_and_comes_back(tmp_path, folder, kind):
    options = {"width": 16, "dropout": 0.2} if kind == "mlp" else {}
    store = FeatureStore.open(folder / "features.h5")
    tuned = ldmlr.finetune(
        store, folder / "pseudo.h5", head=kind, fit="tuned", weight_decay=0.1, seed=3, **options
    )
    tuned.save(tmp_path / "head.safetensors")
    back = FinetunedHead.load(tmp_path / "head.safetensors")
    assert (back.head.kind, back.config, back.chosen) == (kind, tuned.config, {"chosen_by": "given"})
    assert back.class_names == ("dog", "cat", "emu")
    np.testing.assert_array_equal(back.logits(TEST[0]), tuned.logits(TEST[0]))
    np.testing.assert_array_equal(
        head_logits(back.label_shifted(), TEST[0]), head_logits(tuned.label_shifted(), TEST[0])
    )
    assert back.score(*TEST) > 0.75


def test_generated_rows_are_mixed_once_and_depend_on_the_seed():
    rows = gather_rows(natural_rows(), generated_rows())
    first, again, other = mixed(rows, 0.5, 1), mixed(rows, 0.5, 1), mixed(rows, 0.5, 2)
    np.testing.assert_array_equal(first.features[: rows.encoded], rows.features[: rows.encoded])
    np.testing.assert_array_equal(first.features, again.features)
    assert not np.array_equal(first.features, other.features)
    assert mixed(rows, 1.0) is rows


def test_strong_views_of_encoded_rows_stand_for_held_out_rows(tmp_path):
    features, labels = draw((20, 10, 6))
    views = np.stack([features + shift for shift in (1, 2, 3)])
    path = tmp_path / "views.h5"
    train = SplitData(
        features, labels, views=views, view_kinds=("weak", "strong", "strong"),
        source=(np.arange(36) % 4 == 3).astype(np.uint8),
    )  # fmt: skip
    FeatureStore.write(path, train=train, num_classes=3)
    blocks, kinds = held_views(FeatureStore.open(path))
    assert list(kinds) == ["strong", "strong"]
    np.testing.assert_array_equal(blocks[1], views[2][np.arange(36) % 4 != 3])
    found = ldmlr.finetune(path, fit="tuned").chosen["held_out"]
    assert found["rows"] == 2 * 27


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fit": "tuned", "epochs": 3}, "epochs: only fit='recipe' uses it, not tuned"),
        (
            {"fit": "recipe", "head": "mlp"},
            "fit='recipe': starts from the baseline's head, which an mlp cannot",
        ),
        ({"width": 16}, "width: only head='mlp' has it, not auto"),
        ({"head": "linear", "dropout": 0.1}, "dropout: only head='mlp' has it, not linear"),
        ({"head": "mlp", "dropout": 1.0}, "dropout: must be at most 0.95"),
        ({"weight_decay": -1}, "weight_decay: must be at least 0"),
    ],
)
def test_options_that_would_do_nothing_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        FinetuneConfig(**options)


def test_a_tuned_head_has_no_epochs_to_look_at(folder):
    with pytest.raises(UsageError, match="fit='tuned': has no epochs"):
        ldmlr.finetune(folder / "headless.h5", on_epoch=lambda epoch, head: None)


def test_a_head_is_a_classifier(tuned):
    features, labels = TEST
    assert tuned.classes_.tolist() == [0, 1, 2]
    assert tuned.class_names_ is None
    assert tuned.n_features_in_ == DIM
    logits = tuned.logits(features)
    np.testing.assert_array_equal(tuned.predict(features), logits.argmax(axis=1))
    np.testing.assert_array_equal(tuned.decision_function(features), logits)
    probabilities = tuned.predict_proba(features)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    np.testing.assert_allclose(np.log(probabilities), tuned.predict_log_proba(features))
    assert tuned.score(features, labels) == pytest.approx(accuracy_of(logits, labels))
    weights = (labels == 2).astype(float)
    assert tuned.score(features, labels, weights) == tuned.score(features[400:], labels[400:])
    assert tuned.get_params()["weight_decay"] == tuned.config.weight_decay
    assert tuned.predict(features[:0]).shape == (0,)
    assert tuned.predict_proba(features[:0]).shape == (0, 3)
    with pytest.raises(InputError, match=r"expects features \[N, 6\], not \[6\]"):
        tuned.predict(features[0])
    with pytest.raises(InputError, match=r"label 3 is none of its classes 0 \.\. 2"):
        tuned.score(features[:1], [3])


def test_two_classes_have_one_decision():
    rows, labels = draw((40, 20))
    head = ldmlr.finetune((rows, labels))
    decision = head.decision_function(rows)
    assert decision.shape == (60,)
    np.testing.assert_array_equal(decision > 0, head.predict(rows) == 1)


def test_class_names_come_from_the_store(folder):
    head = ldmlr.finetune(folder / "features.h5", epochs=1)
    assert head.class_names_[head.predict(TEST[0][-1:])[0]] == "emu"


def test_calibration_finds_the_temperature_and_keeps_predictions(tmp_path, tuned):
    sure = dataclasses.replace(tuned, temperature=0.05)
    held = draw((300, 300, 300), seed=21)
    found = sure.calibrated(*held)
    assert 0.5 < found.temperature < 2
    np.testing.assert_array_equal(found.predict(TEST[0]), sure.predict(TEST[0]))
    before, after = (calibration(h.predict_log_proba(TEST[0]), TEST[1])["nll"] for h in (sure, found))
    assert after < before / 2
    found.save(tmp_path / "head.safetensors")
    back = FinetunedHead.load(tmp_path / "head.safetensors")
    np.testing.assert_array_equal(back.predict_proba(TEST[0]), found.predict_proba(TEST[0]))


def test_a_store_without_a_test_split_gives_heads_and_what_was_chosen(run_cli, folder, tmp_path):
    outcome = run_cli(
        "finetune", folder / "no-test.h5", "--fit", "tuned", "--seeds", 2, "--out", tmp_path / "run"
    )
    assert outcome.returncode == 0, outcome.stderr
    lines = outcome.stdout.splitlines()
    assert lines[0] == "no test split: nothing is measured on it"
    assert lines[1].startswith("seed 0: weight decay 0.0")
    assert "chosen by: held-out training rows (5 inner folds), balanced accuracy there 8" in lines[1]
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["rows"] == []
    assert [chosen["weight_decay"] for chosen in result["chosen"]] == [
        FinetunedHead.load(tmp_path / "run" / f"head-seed{seed}.safetensors").config.weight_decay
        for seed in (0, 1)
    ]


def test_the_table_says_what_was_chosen_and_evaluate_takes_every_head(run_cli, folder, tmp_path):
    out = tmp_path / "run"
    outcome = run_cli(
        "finetune", folder / "headless.h5", "--head", "mlp", "--width", 16, "--dropout", 0.2,
        "--weight-decay", 1, "--seeds", 1, "--out", out, "--json",
    )  # fmt: skip
    assert outcome.returncode == 0, outcome.stderr
    row = json.loads(outcome.stdout)["rows"][2]
    assert (row["method"], row["weight_decay"], row["chosen_by"]) == ("finetuned", [1.0], "given")
    outcome = run_cli("evaluate", folder / "headless.h5", "--head", out / "head-seed0.safetensors", "--json")
    assert outcome.returncode == 0, outcome.stderr
    assert json.loads(outcome.stdout)["rows"][0]["all"]["mean"] == row["all"]["mean"]
