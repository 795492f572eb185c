"""`ldmlr.heads.losses` against their formulas, for integer and soft targets."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ldmlr.errors import InputError, UsageError
from ldmlr.heads.losses import (
    balanced_softmax,
    binary_cross_entropy,
    cross_entropy,
    log_prior,
    logit_adjusted,
    make_loss,
)

COUNTS = [50, 10, 2]


def problem(seed: int = 0, n: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 3, generator=generator), torch.randint(3, (n,), generator=generator)


def plain_cross_entropy(logits: np.ndarray, targets: np.ndarray) -> float:
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return float(-np.mean(np.log(p[np.arange(len(targets)), targets])))


def test_log_prior_is_the_log_of_frequencies():
    np.testing.assert_allclose(np.exp(log_prior(COUNTS)), np.array(COUNTS) / 62)


@pytest.mark.parametrize("counts", [[3, 0, 1], [], [[1, 2]]])
def test_log_prior_needs_a_row_per_class(counts):
    with pytest.raises(InputError, match="log prior"):
        log_prior(counts)


@given(seed=st.integers(0, 1000), tau=st.floats(0, 3))
def test_logit_adjustment_is_cross_entropy_of_shifted_logits(seed, tau):
    logits, targets = problem(seed)
    shifted = logits.double().numpy() + tau * np.log(np.array(COUNTS) / 62)
    found = float(logit_adjusted(log_prior(COUNTS), tau)(logits, targets))
    assert found == pytest.approx(plain_cross_entropy(shifted, targets.numpy()), rel=1e-4, abs=1e-5)


@given(seed=st.integers(0, 1000))
def test_balanced_softmax_weights_the_exponentials_by_counts(seed):
    logits, targets = problem(seed)
    weighted = np.array(COUNTS) * np.exp(logits.double().numpy())
    p = weighted / weighted.sum(axis=1, keepdims=True)
    expected = -np.mean(np.log(p[np.arange(len(targets)), targets.numpy()]))
    assert float(balanced_softmax(log_prior(COUNTS))(logits, targets)) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("name", ["cross-entropy", "balanced-softmax", "logit-adjustment"])
def test_soft_targets_generalise_integer_targets(name):
    loss, (logits, targets) = make_loss(name, COUNTS, 0.7), problem()
    hard = torch.nn.functional.one_hot(targets, 3).float()
    assert float(loss(logits, hard)) == pytest.approx(float(loss(logits, targets)), rel=1e-6)
    other = targets.roll(1)
    mixed = 0.3 * hard + 0.7 * torch.nn.functional.one_hot(other, 3)
    expected = 0.3 * float(loss(logits, targets)) + 0.7 * float(loss(logits, other))
    assert float(loss(logits, mixed)) == pytest.approx(expected, rel=1e-5)


def test_tau_zero_and_equal_counts_are_the_cross_entropy():
    logits, targets = problem()
    expected = float(cross_entropy(logits, targets))
    assert float(logit_adjusted(log_prior(COUNTS), 0.0)(logits, targets)) == pytest.approx(expected)
    assert float(make_loss("balanced-softmax", [4, 4, 4])(logits, targets)) == pytest.approx(expected)


def test_unknown_loss_names_the_nearest():
    with pytest.raises(UsageError, match="did you mean 'balanced-softmax'"):
        make_loss("balanced_softmax", COUNTS)


@given(seed=st.integers(0, 1000), tau=st.floats(0, 2))
def test_binary_cross_entropy_is_one_question_per_class_with_its_prior_odds(seed, tau):
    logits, targets = problem(seed)
    share = np.array(COUNTS) / 62
    odds = (share / (1 - share)) ** tau * 0.5 ** (1 - tau)
    p = 1 / (1 + np.exp(-logits.double().numpy()) / odds)
    hot = np.eye(3)[targets.numpy()]
    expected = -(hot * np.log(p) + (1 - hot) * np.log(1 - p)).sum(1).mean()
    assert float(binary_cross_entropy(COUNTS, tau)(logits, targets)) == pytest.approx(expected, rel=1e-4)


def test_binary_cross_entropy_of_mixed_targets_mixes_and_certain_rows_stay_finite():
    loss, (logits, targets) = binary_cross_entropy(COUNTS), problem()
    hard, other = (torch.nn.functional.one_hot(labels, 3).float() for labels in (targets, targets.roll(1)))
    expected = 0.3 * float(loss(logits, hard)) + 0.7 * float(loss(logits, other))
    assert float(loss(logits, 0.3 * hard + 0.7 * other)) == pytest.approx(expected, rel=1e-5)
    far = torch.tensor([[300.0, -300.0, -300.0]], requires_grad=True)
    loss(far, torch.tensor([1])).backward()
    assert far.grad.tolist() == [[pytest.approx(1), pytest.approx(-1), pytest.approx(0, abs=1e-6)]]


def test_binary_cross_entropy_learns_the_balanced_odds():
    """Constant logits fitted to the counts are level with tau 1: the offset alone is the prior."""
    labels = torch.repeat_interleave(torch.arange(3), torch.tensor(COUNTS))
    logits = torch.zeros(3, requires_grad=True)
    loss = binary_cross_entropy(COUNTS)(logits.expand(62, 3), labels)
    (slope,) = torch.autograd.grad(loss, logits)
    torch.testing.assert_close(slope, torch.zeros(3), atol=1e-6, rtol=0)
    with pytest.raises(InputError, match="two classes at least"):
        binary_cross_entropy([4])
