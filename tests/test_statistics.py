"""ldmlr/diffusion/statistics.py: class means and covariance, whatever the units and one wild value."""

from __future__ import annotations

import numpy as np
import pytest

from ldmlr.diffusion.statistics import RIDGE, measure
from ldmlr.errors import InputError

COUNTS = np.array([300, 60])
LABELS = np.repeat([0, 1], COUNTS)


def rows(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((360, 4)) + 3 * LABELS[:, None]


def test_of_tame_rows_they_are_the_plain_ones():
    features = rows()
    found = measure([(features, LABELS)], COUNTS)
    means = np.stack([features[label == LABELS].mean(axis=0) for label in (0, 1)])
    residual, weight = features - means[LABELS], COUNTS[LABELS] ** -0.5
    np.testing.assert_allclose(found.mean, means, rtol=1e-12)
    np.testing.assert_allclose(
        found.covariance, (residual * weight[:, None]).T @ residual / weight.sum(), rtol=1e-10, atol=1e-12
    )
    np.testing.assert_allclose(np.diag(found.ridged()), np.diag(found.covariance) * (1 + RIDGE), rtol=1e-12)


def test_heavy_tails_are_not_cut():
    features = np.random.default_rng(0).standard_t(3, (360, 4))
    found = measure([(features, LABELS)], COUNTS)
    inside = (features >= found.low[LABELS]) & (features <= found.high[LABELS])
    assert inside.mean() > 0.999


@pytest.mark.parametrize("wild", [1e5, -1e12])
def test_one_wild_value_moves_nothing_much(wild):
    features = rows()
    tame = measure([(features, LABELS)], COUNTS)
    features[0, 2] = wild
    found = measure([(features, LABELS)], COUNTS)
    assert np.abs(found.mean - tame.mean).max() < 0.2
    assert np.diag(found.covariance)[2] < 4 * np.diag(tame.covariance)[2]


def test_units_change_nothing_but_the_units():
    features, units = rows(), np.array([1e-6, 1.0, 1e5, 3.0])
    one, two = (measure([(part, LABELS)], COUNTS).ridged() for part in (features, features * units))
    np.testing.assert_allclose(two, one * np.outer(units, units), rtol=1e-9)


def test_repeated_dimensions_can_be_inverted_and_constant_ones_have_no_variance():
    features = rows()
    features[:, 1] = 0.1  # which is no binary fraction: sums of it are rounded
    features = np.column_stack([features, features[:, 0], 1e9 + 1e3 * LABELS])
    covariance = measure([(features, LABELS)], COUNTS).without_rounding().ridged()
    assert not covariance[[1, 5]].any()
    assert not covariance[:, [1, 5]].any()
    moving = [0, 2, 3, 4]
    assert np.isfinite(np.linalg.cholesky(covariance[np.ix_(moving, moving)])).all()


def test_rows_without_spread_are_refused():
    with pytest.raises(InputError, match="no class has two different rows"):
        measure([(np.ones((360, 4)), LABELS)], COUNTS)
