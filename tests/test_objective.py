"""`ldmlr.encoders.objective` against NumPy: margins, weights, consistency, the schedule."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ldmlr.encoders.class_balanced import class_balanced
from ldmlr.encoders.config import BaselineConfig
from ldmlr.encoders.objective import Consistency, Objective
from ldmlr.errors import UsageError
from ldmlr.heads.constraints import max_norm
from ldmlr.heads.losses import cross_entropy, ldam, weighted_cross_entropy
from ldmlr.heads.modules import make_head

COUNTS = np.array([81, 16, 1])


def problem(seed: int, n: int = 7) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return 4 * torch.randn(n, 3, generator=generator), torch.randint(3, (n,), generator=generator)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))


# --- losses ------------------------------------------------------------------------------------


@given(seed=st.integers(0, 1000), margin=st.floats(0.1, 30))
def test_ldam_lowers_the_target_by_its_margin(seed, margin):
    logits, targets = problem(seed)
    lowered = logits.double().numpy().copy()
    # (n_min / n_c)^(1/4) is 1/3, 1/2 and 1.
    lowered[np.arange(7), targets] -= margin * np.array([1 / 3, 1 / 2, 1])[targets]
    expected = -log_softmax(lowered)[np.arange(7), targets].mean()
    assert float(ldam(COUNTS, margin)(logits, targets)) == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_ldam_of_certain_rows_keeps_value_and_gradient():
    logits = torch.tensor([[200.0, 0.0, 0.0], [0.0, 0.0, 300.0]], requires_grad=True)
    loss = ldam(COUNTS)(logits, torch.tensor([0, 1]))
    loss.backward()
    assert float(loss.detach()) == pytest.approx((0 + 300 + 7.5) / 2, rel=1e-6)
    assert torch.isfinite(logits.grad).all()


@given(seed=st.integers(0, 1000), power=st.floats(0, 2))
def test_weighted_cross_entropy_weighs_by_counts(seed, power):
    logits, targets = problem(seed)
    weights = COUNTS**-power
    weights = weights / weights.mean()
    rows = -log_softmax(logits.double().numpy())[np.arange(7), targets]
    expected = (weights[targets] * rows).mean()
    found = float(weighted_cross_entropy(COUNTS, power)(logits, targets))
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_power_zero_is_the_cross_entropy():
    logits, targets = problem(1)
    assert float(weighted_cross_entropy(COUNTS, 0)(logits, targets)) == pytest.approx(
        float(cross_entropy(logits, targets))
    )


@pytest.mark.parametrize("make", [ldam, weighted_cross_entropy])
def test_mixed_targets_mix_the_losses(make):
    loss, (logits, targets) = make(COUNTS), problem(3)
    hard, other = (torch.nn.functional.one_hot(labels, 3).float() for labels in (targets, targets.roll(1)))
    assert float(loss(logits, hard)) == pytest.approx(float(loss(logits, targets)), rel=1e-6)
    expected = 0.3 * float(loss(logits, hard)) + 0.7 * float(loss(logits, other))
    assert float(loss(logits, 0.3 * hard + 0.7 * other)) == pytest.approx(expected, rel=1e-5)


# --- consistency -------------------------------------------------------------------------------


def test_consistency_is_the_negative_cosine_both_ways_and_stops_the_gradient():
    torch.manual_seed(0)
    part = Consistency(5)
    a, b = torch.randn(6, 5, requires_grad=True), torch.randn(6, 5, requires_grad=True)
    value = part(a, b)

    def linear(layer: torch.nn.Linear, x: np.ndarray) -> np.ndarray:
        return x @ layer.weight.detach().double().numpy().T + layer.bias.detach().double().numpy()

    z = [linear(part.projector, x.detach().double().numpy()) for x in (a, b)]
    p = [linear(part.predictor, x) for x in z]

    def cosine(x: np.ndarray, y: np.ndarray) -> float:
        return float(((x * y).sum(1) / np.linalg.norm(x, axis=1) / np.linalg.norm(y, axis=1)).mean())

    assert float(value.detach()) == pytest.approx(-cosine(p[0], z[1]) - cosine(p[1], z[0]), abs=1e-6)
    # The gradient of the first view comes from its own prediction alone.
    value.backward()
    again = a.detach().clone().requires_grad_()
    target = part.projector(b).detach()
    own = -torch.nn.functional.cosine_similarity(part.predictor(part.projector(again)), target, dim=1).mean()
    own.backward()
    torch.testing.assert_close(a.grad, again.grad)


def objective(**options) -> Objective:
    torch.manual_seed(0)
    config = BaselineConfig(epochs=10, **options)
    return Objective(config, make_head("linear", 5, 3), COUNTS)


def views(count: int) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    features = [torch.randn(6, 5, generator=generator) for _ in range(count)]
    return features, [torch.eye(3).repeat(2, 1)] * count


@pytest.mark.parametrize(("epoch", "share"), [(0, 0.0), (5, 0.25), (9, 0.81)])
def test_the_cumulative_schedule_goes_over_to_the_named_loss(epoch, share):
    part = objective(loss="weighted", cumulative=True)
    features, targets = views(1)
    with torch.no_grad():
        part.plain_head.weight.mul_(2)
        plain = cross_entropy(part.plain_head(features[0]), targets[0])
        weighted = weighted_cross_entropy(COUNTS)(part.head(features[0]), targets[0])
    part.begin(epoch)
    found, logits = part(features, targets)
    assert float(found.detach()) == pytest.approx(float((1 - share) * plain + share * weighted), rel=1e-6)
    torch.testing.assert_close(logits[0], part.head(features[0]))


def test_two_views_add_up():
    part = objective(consistency=4.0)
    features, targets = views(2)
    found, _ = part(features, targets)
    parts = [cross_entropy(part.head(view), target) for view, target in zip(features, targets, strict=True)]
    expected = sum(parts) + 4 * part.agreement(*features)
    torch.testing.assert_close(found, expected)


def test_parts_that_are_off_are_not_there():
    part = objective()
    assert (part.plain_head, part.agreement) == (None, None)
    assert sum(p.numel() for p in part.parameters()) == 18


# --- constraint and draws ----------------------------------------------------------------------


@given(st.integers(0, 1000), st.floats(1e-3, 10))
def test_max_norm_shortens_long_rows_and_leaves_others(seed, bound):
    weight = torch.randn(5, 4, generator=torch.Generator().manual_seed(seed))
    weight[2] = 0
    before = weight.clone()
    max_norm(weight, bound)
    norms = before.norm(dim=1)
    assert (weight.norm(dim=1) <= bound * (1 + 1e-6)).all()
    assert torch.equal(weight[norms <= bound], before[norms <= bound])
    cosine = torch.nn.functional.cosine_similarity(weight, before, dim=1)
    torch.testing.assert_close(cosine[norms > bound], torch.ones(int((norms > bound).sum())))


@given(st.lists(st.integers(1, 30), min_size=2, max_size=8), st.integers(0, 100))
def test_balanced_draws_give_every_class_the_same_number(counts, seed):
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    rows = class_balanced(labels, len(counts), np.random.default_rng(seed))
    assert len(rows) == len(labels)
    drawn = np.bincount(labels[rows], minlength=len(counts))
    assert drawn.max() - drawn.min() <= 1
    times = np.bincount(rows, minlength=len(labels))
    for label in range(len(counts)):
        own = times[labels == label]
        assert own.max() - own.min() <= 1
    assert np.array_equal(rows, class_balanced(labels, len(counts), np.random.default_rng(seed)))


def test_balanced_draws_mix_the_classes():
    labels = np.repeat(np.arange(2), [900, 100])
    drawn = labels[class_balanced(labels, 2, np.random.default_rng(0))]
    assert [abs(part.mean() - 0.5) < 0.15 for part in np.array_split(drawn, 10)] == [True] * 10


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"head": "cosine", "max_norm": 1.0},
            "max_norm: only the direction of the weights of a cosine head",
        ),
        ({"cumulative": True}, "cumulative: goes over to loss"),
        ({"max_norm": -1.0}, "max_norm: must be at least 0"),
        ({"head_lr": 0.0}, "head_lr: must be above 0"),
        ({"cutmix_share": 1.5}, "cutmix_share: must be at most 1"),
    ],
)
def test_wrong_combinations_name_the_option(options, message):
    with pytest.raises(UsageError, match=message):
        BaselineConfig(**options)
