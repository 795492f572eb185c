"""`ldmlr.heads.fit`: heads at their best, chosen on held-out training rows alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support.axes import COUNTS, DIM, draw
from torch.nn import functional as F

from ldmlr.errors import InputError, UsageError
from ldmlr.heads import passes
from ldmlr.heads.config import LOSSES
from ldmlr.heads.fit import fit_head, fold_count, make_path
from ldmlr.heads.folds import Fold, HeldOut, fold_numbers, inner_folds
from ldmlr.heads.lbfgs import minimise
from ldmlr.heads.logits import head_logits
from ldmlr.heads.softmax import SoftmaxLoss
from ldmlr.heads.spec import KINDS, HeadSpec
from ldmlr.heads.standard import Standard
from ldmlr.heads.training_rows import TrainingRows

TEST = draw((200, 200, 200), seed=9)


def rows_of(features, labels, encoded=None, classes=3):
    return TrainingRows(features, labels, len(labels) if encoded is None else encoded, classes, "rows")


@pytest.fixture(scope="module")
def rows():
    return rows_of(*draw(COUNTS))


def balanced(logits, labels=TEST[1]):
    right = logits.argmax(axis=1) == labels
    return float(np.mean([right[labels == c].mean() for c in np.unique(labels)]))


def test_lbfgs_finds_the_minimum_of_a_quadratic_and_of_a_curved_valley():
    torch.manual_seed(0)
    root = torch.randn(20, 20, dtype=torch.float64)
    matrix, wanted = root @ root.T + 0.1 * torch.eye(20), torch.randn(20, dtype=torch.float64)

    def quadratic(x):
        gap = matrix @ (x - wanted)
        return float((x - wanted) @ gap / 2), gap

    found = minimise(quadratic, torch.zeros(20, dtype=torch.float64), tolerance=1e-9)
    assert found.converged
    torch.testing.assert_close(found.x, wanted, atol=1e-6, rtol=0)

    def rosenbrock(x):
        point = x.clone().requires_grad_()
        value = (1 - point[0]) ** 2 + 100 * (point[1] - point[0] ** 2) ** 2
        value.backward()
        return value.item(), point.grad

    found = minimise(rosenbrock, torch.tensor([-1.2, 1.0], dtype=torch.float64), tolerance=1e-8)
    torch.testing.assert_close(found.x, torch.ones(2, dtype=torch.float64), atol=1e-6, rtol=0)


@pytest.mark.parametrize("count", [1, 255, 700])
def test_the_loss_and_its_gradient_are_those_of_autograd_in_float64(count):
    random = np.random.default_rng(count)
    features = (random.normal(size=(count, 9)) * 3 + 5).astype(np.float32)
    labels = random.integers(0, 4, count)
    standard = Standard.of(np.concatenate([features, features + 1]))
    weights, offset = random.uniform(0, 2, count), random.normal(size=4)
    objective = SoftmaxLoss(features, labels, 4, standard, weights, offset)
    theta = torch.from_numpy(random.normal(size=(4, 10))).float()
    value, gradient = objective(theta, 0.3)

    exact = theta.double().requires_grad_()
    x = torch.from_numpy((features - standard.mean) / standard.spread)
    logits = x @ exact[:, :-1].T + exact[:, -1] + torch.from_numpy(offset)
    losses = F.cross_entropy(logits, torch.from_numpy(labels), reduction="none")
    share = torch.from_numpy(weights / weights.sum())
    loss = (share * losses).sum() + 0.15 * exact[:, :-1].square().sum()
    loss.backward()
    assert value == pytest.approx(loss.item(), rel=1e-6)
    torch.testing.assert_close(gradient.double(), exact.grad, atol=1e-6, rtol=1e-5)


def test_a_linear_head_is_where_the_gradient_is_zero_and_scale_does_not_matter(rows):
    spec = HeadSpec(weight_decay=0.01)
    found = fit_head(rows, spec)
    moved = rows_of(rows.features * np.float32([1e3, 1e-3, 1, 1, 1, 1]) + 0.5, rows.labels)
    other = fit_head(moved, spec)
    test = TEST[0] * np.float32([1e3, 1e-3, 1, 1, 1, 1]) + 0.5
    np.testing.assert_allclose(head_logits(other.head, test), head_logits(found.head, TEST[0]), atol=2e-3)
    again = fit_head(rows, spec)
    assert torch.equal(again.head.weight, found.head.weight)
    assert found.chosen == {"chosen_by": "given"}


def test_the_path_of_weight_decays_ends_where_a_cold_start_does(rows):
    ones = np.ones(len(rows.labels))
    warm = make_path(HeadSpec(), rows, ones)
    for decay in (1.0, 0.1, 0.01):
        head = warm.fit(HeadSpec(weight_decay=decay))
    cold = make_path(HeadSpec(), rows, ones).fit(HeadSpec(weight_decay=0.01))
    torch.testing.assert_close(head.weight, cold.weight, atol=2e-3, rtol=0)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("cosine", "wcdas", "mlp")])
def test_every_kind_knows_the_rare_classes(rows, kind):
    found = fit_head(rows, HeadSpec(kind), seed=1)
    assert balanced(head_logits(found.head, TEST[0]) - found.shift) > 0.75
    assert not found.spec.ladders()
    again = fit_head(rows, HeadSpec(kind), seed=1)
    np.testing.assert_array_equal(head_logits(again.head, TEST[0]), head_logits(found.head, TEST[0]))


@pytest.mark.parametrize("kind", ["cosine", "wcdas", "mlp"])
def test_heads_trained_in_batches_know_the_rare_classes_and_depend_on_the_seed_alone(rows, kind):
    state = torch.get_rng_state()
    found, again, other = (
        fit_head(rows, HeadSpec(kind, weight_decay=1.0), seed=seed).head for seed in (1, 1, 2)
    )
    assert torch.equal(torch.get_rng_state(), state)
    assert balanced(head_logits(found, TEST[0])) > 0.8
    assert torch.equal(found.weight, again.weight)
    assert not torch.equal(found.weight, other.weight) or kind != "mlp"


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_balances_the_classes(rows, loss):
    found = fit_head(rows, HeadSpec(loss=loss))
    assert balanced(head_logits(found.head, TEST[0]) - found.shift) > 0.8
    assert (found.shift != 0).any() == (loss == "cross-entropy")
    assert found.chosen["weight_decay"] == found.spec.weight_decay
    assert found.chosen["chosen_by"] == "held-out training rows (5 inner folds)"
    assert found.chosen["held_out"]["rows"] == sum(COUNTS)
    values = [entry["weight_decay"] for entry in found.chosen["tried"]]
    assert len(values) == len(set(values)) >= 5


def test_weight_decay_is_strong_where_features_are_many_and_rows_few():
    random = np.random.default_rng(0)
    labels = np.repeat([0, 1], [60, 20])
    noisy = random.normal(size=(80, 200)).astype(np.float32)
    noisy[:, 0] += 3 * labels
    easy = np.stack([labels * 4.0 + random.normal(size=80), random.normal(size=80)], 1).astype(np.float32)
    strong, weak = (fit_head(rows_of(x, labels, classes=2)).spec.weight_decay for x in (noisy, easy))
    assert strong > weak


def test_what_is_open_is_chosen_and_what_is_given_stays(rows, monkeypatch):
    spec = HeadSpec("mlp", weight_decay=None, width=None, dropout=None)
    assert [ladder.name for ladder in spec.ladders()] == ["weight_decay", "width", "dropout"]
    monkeypatch.setattr(passes, "FEWEST_STEPS", 20)
    monkeypatch.setattr(passes, "PASSES", 1)
    found = fit_head(rows, HeadSpec("mlp", weight_decay=3.0, width=None, dropout=0.25))
    assert (found.spec.weight_decay, found.spec.dropout) == (3.0, 0.25)
    assert {entry["width"] for entry in found.chosen["tried"]} >= {128, 256, 512}
    assert found.head.hidden_weight.shape == (found.spec.width, DIM)
    tau = fit_head(rows, HeadSpec(loss="logit-adjustment", tau=None)).chosen
    assert {"weight_decay", "tau"} <= set(tau)
    with pytest.raises(UsageError, match=r"unknown value 'liner'.*linear"):
        HeadSpec("liner")


def test_folds_are_stratified_and_rare_rows_are_left_out_one_by_one():
    labels = np.repeat([0, 1, 2, 3], [50, 11, 3, 1])
    number = fold_numbers(labels, 5, seed=3)
    assert np.bincount(number[labels == 0]).tolist() == [10] * 5
    assert sorted(np.bincount(number[labels == 1]).tolist()) == [2, 2, 2, 2, 3]
    assert sorted(number[labels == 2]) == [0, 1, 2]
    assert number[labels == 3] == -1
    features = np.arange(65, dtype=np.float32)[:, None]
    for fold in inner_folds(rows_of(features, labels, classes=4)):
        assert (fold.weights[fold.index] == 0).all()
        assert np.count_nonzero(fold.weights) == 65 - len(fold.index)
        np.testing.assert_array_equal(fold.labels, labels[fold.index])


def test_a_row_is_held_out_with_its_views_and_strong_views_stand_for_it():
    features, labels = draw((20, 10, 5))
    views = [features + shift for shift in (1, 2, 3)]
    every = rows_of(np.concatenate([features, *views]), np.tile(labels, 4))
    for fold in inner_folds(every, views=views, kinds=("weak", "strong", "strong")):
        held = np.zeros(35, bool)
        held[fold.index] = True
        np.testing.assert_array_equal(fold.weights == 0, np.tile(held, 4))
        assert len(fold.held) == 2
        assert fold.held[0] is views[1]


def test_generated_rows_stand_aside_and_their_classes_weigh_as_much():
    natural, more = draw(COUNTS), draw((0, 180, 228), seed=7)
    both = [np.concatenate(pair) for pair in zip(natural, more, strict=True)]
    filled = rows_of(*both, encoded=312)
    for fold in inner_folds(filled):
        assert not fold.weights[312:].any()
        trained = np.bincount(filled.labels, fold.weights, 3)
        np.testing.assert_allclose(trained, 192, rtol=0.1)
    found = fit_head(filled, HeadSpec(loss="cross-entropy"))
    np.testing.assert_allclose(found.shift, np.log(1 / 3), atol=1e-12)


def test_folds_may_bring_rows_of_their_own(rows):
    folds = []
    for fold in inner_folds(rows):
        kept = fold.weights > 0
        own = rows_of(rows.features[kept], rows.labels[kept])
        folds.append(Fold.of(own, rows.features[fold.index], fold.labels))
    found, usual = fit_head(rows, folds=folds), fit_head(rows)
    for own, other in zip(found.chosen["tried"], usual.chosen["tried"], strict=False):
        assert own == pytest.approx(other, rel=0.05)


def test_single_rows_cannot_choose_and_are_told_so():
    alone = rows_of(np.eye(3, DIM, dtype=np.float32), np.arange(3))
    with pytest.raises(InputError, match="every class has a single row"):
        fit_head(alone)
    assert fit_head(alone, HeadSpec(weight_decay=0.1)).head.num_classes == 3


def test_what_accuracy_cannot_tell_apart_is_decided_by_log_loss():
    held = HeldOut(2)
    labels = np.repeat([0, 1], [50, 10])
    held.add_labels(labels)
    sure = np.where(np.eye(2)[labels] > 0, 2.0, -2.0)
    unsure = sure / 10
    wrong = sure.copy()
    wrong[:20] *= -1
    one_off = sure.copy()
    one_off[0] *= -1
    for name, logits in {"sure": sure, "unsure": unsure, "wrong": wrong, "one off": one_off}.items():
        held.add(name, logits, labels)
    assert held.best(["unsure", "sure", "wrong"]) == "sure"
    assert held.best(["unsure", "one off"]) == "one off"  # one row of fifty is no difference
    assert held.best(["unsure", "wrong"]) == "unsure"  # twenty are
    assert held.accuracy("wrong") == pytest.approx(0.8)


def test_long_fits_get_fewer_folds():
    def of(count, dim, classes):
        return rows_of(np.zeros((count, dim), np.float32), np.arange(count) % classes, classes=classes)

    assert fold_count(of(100, 8, 2), HeadSpec()) == 5
    assert fold_count(of(50_000, 100, 1000), HeadSpec()) == 3
    assert fold_count(of(200_000, 100, 1000), HeadSpec()) == 1
    assert fold_count(of(10_000, 100, 10), HeadSpec("mlp")) == 3
