"""Rows of every width from 2 to 4,096, tame and not: training ends, and what is drawn looks like the rows."""

from __future__ import annotations

import numpy as np
import pytest

from ldmlr import LatentDiffusion
from ldmlr.diffusion.axes import NARROW

COUNTS = np.array([90, 30, 6])
LABELS = np.repeat(np.arange(3), COUNTS)
MANY = np.repeat(np.arange(3), 100)
QUICK = {"basis": "eigen", "iterations": 12, "warmup_iterations": 4, "hidden": 16, "layers": 1}


def rows(dim: int, seed: int = 0) -> np.ndarray:
    """Return rows in mixed units, fewer than dimensions where these are many."""
    random = np.random.default_rng(seed)
    units = 10.0 ** random.integers(-4, 6, dim)
    mix = random.standard_normal((4, dim))
    noise = random.standard_normal((len(LABELS), 4)) @ mix + random.standard_normal((len(LABELS), dim))
    return ((noise + 3 * random.standard_normal((3, dim))[LABELS]) * units).astype(np.float32)


def drawn(features: np.ndarray) -> tuple[LatentDiffusion, np.ndarray]:
    """Return a model and its rows, after what holds for any: numbers, and never worse than the Gaussian."""
    model = LatentDiffusion(seed=0, **QUICK).fit(features, LABELS, threads=1)
    found = model.sample(MANY, scale=1.0, seed=1, threads=1)
    assert np.isfinite(found).all()
    assert model.held_out["rows"] == 9 + 3
    assert model.held_out["loss_over_gaussian"] <= 1.0
    assert all(ratio <= 1.0 for ratio in model.held_out["bands"])
    assert model.learned
    return model, found


@pytest.mark.parametrize("dim", [2, 3, 5, 8, 32, 64, 128, 512, 2048, 4096])
def test_rows_in_mixed_units_keep_means_and_spread(dim):
    features = rows(dim)
    model, found = drawn(features)
    assert model.transform.latent == (dim if dim <= NARROW else 16)
    for label in (0, 1):
        real, made = features[label == LABELS], found[label == MANY]
        deviation = features[LABELS == 0].std(axis=0)
        off = np.abs(made.mean(axis=0) - real.mean(axis=0)) / deviation
        assert np.quantile(off, 0.9) < 0.35
        ratio = made.std(axis=0) / deviation
        assert 0.7 < np.median(ratio) < 1.3
        assert ratio.max() < 2


@pytest.mark.parametrize("dim", [3, 8, 64, 512])
def test_constant_repeated_and_nearly_constant_dimensions(dim):
    features = rows(dim)
    features[:, 0] = 7.0  # always
    features[:, 1] = features[:, 2]
    nearly = np.column_stack([features, 1e-3 * (LABELS == 2) + 5.0, features[:, 2] * 2])
    nearly[3, dim] += 1e-6
    _, found = drawn(nearly.astype(np.float32))
    np.testing.assert_allclose(found[:, 0], 7.0, rtol=1e-4)
    # Outside the axes, copies of a dimension have noise of their own.
    for label in (0, 1):
        assert np.corrcoef(found[label == MANY][:, [1, 2, dim + 1]].T).min() > 0.9
    np.testing.assert_allclose(found[MANY == 2, dim].mean(), 5.001, atol=3e-4)


@pytest.mark.parametrize("dim", [2, 8, 64, 512])
@pytest.mark.parametrize("wild", [1e5, -1e5])
def test_one_wild_value_does_not_show(dim, wild):
    features = rows(dim) / rows(dim).std(axis=0)
    tame = drawn(features)[1]
    features[0, 1] = wild
    found = drawn(features)[1]
    for label in range(3):
        at = label == MANY
        assert found[at, 1].std() < 3 * tame[at, 1].std()
        assert np.abs(found[at].mean(axis=0) - tame[at].mean(axis=0)).max() < 2
