"""ldmlr/diffusion/axes.py: the largest axes of the shared covariance, how many, and what they leave."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ldmlr.diffusion.axes import LEAST, MOST, axis_count, fit_axes
from ldmlr.diffusion.statistics import measure

COUNTS = np.array([200, 200])
LABELS = np.repeat([0, 1], COUNTS)


def statistics(dim: int, seed: int = 0):
    random = np.random.default_rng(seed)
    features = random.standard_normal((400, dim)) @ random.standard_normal((dim, dim))
    return measure([(features * 10.0 ** random.integers(-3, 4, dim), LABELS)], COUNTS)


@pytest.mark.parametrize("dim", [2, 7, 40])
def test_all_axes_are_a_root_of_the_covariance(dim):
    found = statistics(dim)
    axes = fit_axes(found, "none", 400)
    covariance = found.ridged()
    unit = np.sqrt(np.diag(covariance))
    np.testing.assert_allclose((axes.scale @ axes.scale.T) / np.outer(unit, unit),
                               covariance / np.outer(unit, unit), atol=1e-10)  # fmt: skip
    np.testing.assert_allclose(axes.whitening @ axes.scale, np.eye(dim), atol=1e-8)
    assert axes.psi is None
    assert axes.share == pytest.approx(1)


@given(dim=st.integers(2, 30), latent=st.integers(1, 40))
def test_axes_and_remainder_have_the_variance_of_every_dimension(dim, latent):
    found = statistics(dim)
    axes = fit_axes(found, str(latent), 400)
    assert axes.scale.shape == (dim, min(latent, dim))
    rest = 0.0 if axes.psi is None else axes.psi**2
    np.testing.assert_allclose((axes.scale**2).sum(axis=1) + rest, np.diag(found.ridged()), rtol=1e-9)
    assert (np.diff(axes.variance) <= 1e-12).all()


def test_the_error_counts_in_units_of_the_features():
    axes = fit_axes(statistics(12), "5", 400)
    assert axes.importance(0.0).tolist() == [1.0] * 5
    np.testing.assert_allclose(axes.importance(1.0), axes.variance / axes.variance.mean())


def test_how_many_follow_from_spectrum_and_rows():
    # Eigenvalues of correlations: their sum is the number of dimensions.
    flat = np.ones(1000)
    assert axis_count(flat, 1000, "auto", 100_000) == MOST
    assert axis_count(flat, 1000, "auto", 2000) == 50
    assert axis_count(flat, 1000, "auto", 10) == LEAST
    assert axis_count(flat[:9], 9, "auto", 10) == 9
    steep = np.concatenate([np.full(20, 49.95), np.full(980, 1e-3)])
    assert axis_count(steep, 1000, "auto", 100_000) == 20
    assert axis_count(steep[:MOST], 1000, "auto", 100_000) == 20
    assert axis_count(flat, 1000, "none", 10) == 1000
    assert axis_count(flat, 1000, "77", 10) == 77
    assert axis_count(flat[:9], 9, "77", 10) == 9


def test_constant_dimensions_stay_as_they_are_and_take_no_axis():
    random = np.random.default_rng(0)
    features = random.standard_normal((400, 30))
    features[:, 5:] = 0.3 * (1 + LABELS[:, None])
    axes = fit_axes(measure([(features, LABELS)], COUNTS), "auto", 400)
    assert axes.scale.shape == (30, 5)
    assert not axes.scale[5:].any()
    assert not axes.psi[5:].any()
    assert axes.share == pytest.approx(1)
    np.testing.assert_allclose(axes.whitening @ axes.scale, np.eye(5), atol=1e-10)
