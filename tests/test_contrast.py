"""`ldmlr.encoders.contrast` against loops in NumPy: what is drawn together, what has a say, and how much."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ldmlr.encoders.config import BaselineConfig
from ldmlr.encoders.contrast import Contrast, balanced, binary, supervised, uniformity
from ldmlr.encoders.objective import Objective
from ldmlr.encoders.recipes import baseline_config
from ldmlr.errors import UsageError
from ldmlr.heads.losses import cross_entropy
from ldmlr.heads.modules import make_head

CLASSES = 4
seeds = st.integers(0, 500)


def problem(seed: int, pairs: int = 5, members: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Similarities and labels of two views; class 3 has none, a class may have one image."""
    generator = torch.Generator().manual_seed(seed)
    rows = 2 * pairs
    s = 2 * torch.randn(rows, rows + members, generator=generator)
    return s, torch.randint(CLASSES - 1, (pairs,), generator=generator).repeat(2)


def one_hot(labels: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.one_hot(labels, CLASSES).float()


def softplus(x: float) -> float:
    return float(np.logaddexp(0, x))


@given(seeds)
def test_supervised_is_the_mean_log_share_of_ones_class(seed):
    s, labels = problem(seed)
    values, y = s.double().numpy(), labels.numpy()
    losses = []
    for i in range(len(y)):
        rest = [k for k in range(len(y)) if k != i]
        total = np.log(sum(np.exp(values[i, k]) for k in rest))
        losses.append(-np.mean([values[i, k] - total for k in rest if y[k] == y[i]]))
    assert float(supervised(s, one_hot(labels))) == pytest.approx(np.mean(losses), rel=1e-4)


@given(seeds)
def test_balanced_sums_the_means_of_the_classes(seed):
    s, labels = problem(seed, members=CLASSES)
    values, y = s.double().numpy(), np.concatenate([labels.numpy(), np.arange(CLASSES)])
    losses = []
    for i in range(len(labels)):
        total = 0.0
        for c in range(CLASSES):
            own = [k for k in range(len(y)) if k != i and y[k] == c]
            total += np.mean([np.exp(values[i, k]) for k in own])
        positive = [values[i, k] for k in range(len(y)) if k != i and y[k] == y[i]]
        losses.append(-np.mean(positive) + np.log(total))
    assert float(balanced(s, one_hot(labels), CLASSES)) == pytest.approx(np.mean(losses), rel=1e-4)


@given(seeds)
def test_binary_gives_each_class_of_the_batch_one_say(seed):
    s, labels = problem(seed)
    values, y = s.double().numpy() - np.log(CLASSES - 1), labels.numpy()
    losses = []
    for i in range(len(y)):
        loss = 0.0
        for c in np.unique(y):
            own = [values[i, k] for k in range(len(y)) if k != i and y[k] == c]
            loss += np.mean([softplus(-v if c == y[i] else v) for v in own]) if own else 0.0
        losses.append(loss)
    assert float(binary(s, one_hot(labels))) == pytest.approx(np.mean(losses), rel=1e-4)


@given(seeds, st.floats(0, 1))
def test_blended_targets_weigh_the_pairs(seed, share):
    s, labels = problem(seed)
    soft = share * one_hot(labels) + (1 - share) * one_hot(labels.roll(1, 0))
    values, y = s.double().numpy(), soft.double().numpy()
    rows = range(len(y))
    log_shares, pairs = [], []
    for i in rows:
        rest = [k for k in rows if k != i]
        total = np.log(sum(np.exp(values[i, k]) for k in rest))
        same = np.array([y[i] @ y[k] for k in rest])
        log_shares.append(-(same * (values[i, rest] - total)).sum() / same.sum())
        apart = values[i, rest] - np.log(CLASSES - 1)
        each = same * np.logaddexp(0, -apart) + (1 - same) * np.logaddexp(0, apart)
        members = y[rest]
        there = [c for c in range(3) if members[:, c].any()]
        pairs.append(sum((members[:, c] @ each) / members[:, c].sum() for c in there))
    assert float(supervised(s, soft)) == pytest.approx(np.mean(log_shares), rel=1e-4)
    # Where a class is left with next to nothing, float32 has no digits for the mean.
    if all(part.sum() > 1e-3 or not part.any() for i in rows for part in np.delete(y, i, 0).T):
        assert float(binary(s, soft)) == pytest.approx(np.mean(pairs), rel=1e-3)


def test_a_class_of_one_image_that_is_not_in_the_rest_has_no_say():
    # Not from two views: the last row is alone.
    s, labels = torch.randn(5, 5), torch.tensor([0, 0, 1, 1, 2])
    for loss in (supervised, binary):
        assert bool(loss(s, one_hot(labels)).isfinite())


def test_uniformity_is_least_where_the_vectors_point_evenly():
    even = torch.eye(4) - 0.25  # a simplex: all cosines are -1/3
    found = float(uniformity(7 * even))
    assert found == pytest.approx(3 * np.log1p(np.exp(-1 / 3)), rel=1e-6)
    assert float(uniformity(torch.ones(4, 5))) == pytest.approx(3 * np.log1p(np.e), rel=1e-6)
    weight = torch.randn(4, 5, generator=torch.Generator().manual_seed(0)).requires_grad_()
    for _ in range(300):
        (slope,) = torch.autograd.grad(uniformity(weight), weight)
        weight = (weight - 5 * slope).detach().requires_grad_()
    assert float(uniformity(weight.detach())) == pytest.approx(found, rel=1e-4)


@pytest.mark.parametrize("kind", ["supervised", "balanced", "binary"])
def test_the_objective_adds_the_contrast_of_projected_unit_features(kind):
    torch.manual_seed(0)
    config = BaselineConfig(contrast=0.3, contrast_loss=kind, contrast_temperature=0.5, uniformity=0.2)
    head = make_head("linear", 6, CLASSES)
    part = Objective(config, head, np.array([9, 5, 2, 1]))
    views, targets = [torch.randn(5, 6), torch.randn(5, 6)], one_hot(torch.tensor([0, 1, 1, 2, 0]))
    found, _ = part(views, [targets, targets])
    z = torch.nn.functional.normalize(part.contrast.projector(torch.cat(views)), dim=1)
    both = torch.cat([targets, targets])
    if kind == "balanced":
        centres = torch.nn.functional.normalize(part.contrast.of_classes(head.weight), dim=1)
        between = balanced(z @ torch.cat([z, centres]).T / 0.5, both, CLASSES)
    else:
        between = (supervised if kind == "supervised" else binary)(z @ z.T / 0.5, both)
    plain = sum(cross_entropy(head(view), targets) for view in views)
    torch.testing.assert_close(found, plain + 0.3 * between + 0.2 * uniformity(head.weight))
    found.backward()
    # The projectors learn, and the head's weights by `balanced` as well as by the classification.
    assert all(bool(p.grad.abs().sum() > 0) for p in part.contrast.parameters())


def test_features_of_a_class_come_together():
    """A few steps on free features: same-class cosines rise above the others."""
    for kind in ("supervised", "balanced", "binary"):
        torch.manual_seed(1)
        part, weight = Contrast(kind, 0.2, 8), torch.randn(CLASSES, 8)
        labels = torch.tensor([0, 0, 0, 0, 1, 1, 2, 2])
        features = torch.randn(16, 8, requires_grad=True)
        optimiser = torch.optim.Adam([features, *part.parameters()], lr=0.05)
        for _ in range(60):
            loss = part(features[:8], features[8:], one_hot(labels.repeat(2)), weight)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        with torch.no_grad():
            z = torch.nn.functional.normalize(part.projector(features), dim=1)
        same = labels.repeat(2)[:, None] == labels.repeat(2)
        assert float((z @ z.T)[same].min()) > float((z @ z.T)[~same].max()), kind


def test_parts_that_are_off_are_not_there_and_options_without_use_are_named():
    part = Objective(BaselineConfig(), make_head("linear", 6, CLASSES), np.array([9, 5, 2, 1]))
    assert part.contrast is None
    for options, where in (
        ({"contrast_loss": "balanced"}, "contrast"),
        ({"contrast_temperature": 0.2}, "contrast"),
        ({"tau": 0.5}, "loss"),
    ):
        (name,) = options
        with pytest.raises(UsageError, match=f"{name}: has no effect without {where}"):
            baseline_config("digits", options)
    with pytest.raises(UsageError, match=r"contrast: both views share one draw"):
        BaselineConfig(mixup=1.0, cutmix=0.5, contrast=1.0)
    with pytest.raises(UsageError, match="contrast_loss: unknown value 'balance'; did you mean 'balanced'"):
        BaselineConfig(contrast_loss="balance")
