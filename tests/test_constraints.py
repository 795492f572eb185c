"""`ldmlr.heads.constraints`: ``--norm-limit``, class weights of stage 3 that are no longer than a multiple of
their mean length, and ``--monotone-norms``, those of rare classes no shorter than those of frequent ones.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ldmlr import finetune
from ldmlr.errors import UsageError
from ldmlr.heads import training
from ldmlr.heads.config import FinetuneConfig
from ldmlr.heads.constraints import limit_norms, monotone_norms


@given(st.integers(0, 1000), st.floats(1, 3))
def test_only_rows_beyond_the_limit_are_shortened(seed, limit):
    weight = torch.randn(6, 4, generator=torch.Generator().manual_seed(seed)) * torch.arange(1.0, 7)[:, None]
    before = weight.clone()
    limit_norms(weight, limit)
    norms = before.norm(dim=1)
    bound = limit * norms.mean()
    torch.testing.assert_close(weight.norm(dim=1), torch.minimum(norms, bound))
    assert torch.equal(weight[norms < bound], before[norms < bound])


def test_weights_of_zero_stay_zero():
    weight = torch.zeros(3, 2)
    limit_norms(weight, 1.5)
    assert torch.equal(weight, torch.zeros(3, 2))


@pytest.fixture(scope="module")
def rows():
    """Two frequent classes and a rare one; frequent classes grow long weights."""
    draw = np.random.default_rng(0)
    y = np.repeat([0, 1, 2], [400, 200, 10])
    X = draw.normal(size=(len(y), 6)).astype(np.float32)
    X[np.arange(len(y)), y] += 2
    return X, y


def test_the_limit_holds_after_every_step_and_changes_the_head(rows, monkeypatch):
    seen = []

    def watched(weight, limit):
        limit_norms(weight, limit)
        seen.append(weight.detach().norm(dim=1))

    monkeypatch.setattr(training, "limit_norms", watched)
    options = {"init": "fresh", "epochs": 4, "lr": 0.05}
    free = finetune(rows, seed=0, **options)
    assert not seen
    bound = finetune(rows, seed=0, norm_limit=1.0, **options)
    assert len(seen) >= 4 * 19
    # A step shortens to the mean of before, so the longest end at most at that mean.
    assert all(norms.max() <= norms.mean() * 1.2 for norms in seen)
    lengths = [head.head.weight.detach().norm(dim=1) for head in (free, bound)]
    spread = [float(norms.max() / norms.min()) for norms in lengths]
    assert spread[1] < spread[0]


def test_wrong_limits_name_the_option():
    with pytest.raises(UsageError, match="norm_limit: must be 0 or at least 1"):
        FinetuneConfig(norm_limit=0.5)
    with pytest.raises(UsageError, match="norm_limit: only the direction of the weights of a wcdas head"):
        FinetuneConfig(norm_limit=1.0, head="wcdas")


def test_the_limit_is_refused_where_the_baseline_settles_another_kind_of_head():
    config = FinetuneConfig(norm_limit=1.0)
    assert config.settled("linear").head == "linear"
    with pytest.raises(UsageError, match="norm_limit: only the direction of the weights of a wcdas head"):
        config.settled("wcdas")


# --- monotone norms ----------------------------------------------------------------------------


def isotonic(lengths: np.ndarray) -> np.ndarray:
    """The non-decreasing values nearest to `lengths`, by the formula of upper and lower sets."""
    n = len(lengths)
    return np.array(
        [
            max(min(lengths[a : b + 1].mean() for b in range(i, n)) for a in range(i + 1))
            for i in range(n)
        ]
    )  # fmt: skip


@given(st.integers(0, 1000), st.integers(2, 9))
def test_lengths_become_the_nearest_that_do_not_fall_towards_rare_classes(seed, classes):
    draw = np.random.default_rng(seed)
    counts = draw.permutation(np.arange(1, classes + 1) * 7)
    weight = torch.from_numpy(draw.normal(size=(classes, 4)).astype(np.float32))
    before = weight.clone()
    monotone_norms(weight, counts)
    order = np.argsort(-counts)
    expected = isotonic(before.double().norm(dim=1).numpy()[order])
    np.testing.assert_allclose(weight.double().norm(dim=1).numpy()[order], expected, rtol=1e-5)
    cosine = torch.nn.functional.cosine_similarity(weight, before, dim=1)
    torch.testing.assert_close(cosine, torch.ones(classes))
    # What obeys already stays as it is, up to the rounding of lengths.
    again = weight.clone()
    monotone_norms(again, counts)
    torch.testing.assert_close(again, weight, rtol=1e-6, atol=0)


def test_classes_of_one_size_get_one_length_and_zeros_stay():
    weight = torch.tensor([[3.0, 4.0], [0.0, 1.0], [8.0, 6.0]])
    monotone_norms(weight, np.array([5, 5, 2]))
    torch.testing.assert_close(weight.norm(dim=1), torch.tensor([3.0, 3.0, 10.0]))
    empty = torch.zeros(2, 3)
    monotone_norms(empty, np.array([4, 1]))
    assert torch.equal(empty, torch.zeros(2, 3))


def test_the_order_holds_after_every_step_and_with_a_limit(rows):
    seen = []
    for limit in (0.0, 1.0):
        head = finetune(
            rows, seed=0, monotone_norms=True, norm_limit=limit, epochs=4, lr=0.05,
            on_epoch=lambda epoch, head: seen.append(head.weight.detach().norm(dim=1)),
        )  # fmt: skip
        assert head.config.fit == "recipe"
        assert head.config.monotone_norms
    free = finetune(rows, seed=0, epochs=4, lr=0.05)
    assert len(seen) == 8
    assert all((norms.diff() >= -1e-6 * norms.max()).all() for norms in seen)
    lengths = free.head.weight.detach().norm(dim=1)
    assert lengths[2] < lengths[0]


def test_monotone_norms_are_for_a_linear_head_of_the_recipe():
    with pytest.raises(UsageError, match="monotone_norms: only the direction of the weights of a cosine"):
        FinetuneConfig(monotone_norms=True, head="cosine")
    with pytest.raises(UsageError, match="monotone_norms: only fit='recipe' uses it"):
        FinetuneConfig(monotone_norms=True, fit="tuned")
