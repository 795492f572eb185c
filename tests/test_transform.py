"""ldmlr.diffusion.transform: whitened residuals and the paper's standardisation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ldmlr.diffusion.statistics import RIDGE
from ldmlr.diffusion.transform import CLAMP, Transform, fit_transform
from ldmlr.errors import InputError, LdmlrError, UsageError


def rows(counts, dim=6, seed=0):
    """Return correlated rows around class means, their labels and counts."""
    generator = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(counts)), counts)
    mixing = generator.standard_normal((dim, dim))
    features = (
        generator.standard_normal((len(labels), dim)) @ mixing
        + 5 * generator.standard_normal((len(counts), dim))[labels]
    )
    return features.astype(np.float32), labels, np.asarray(counts)


@given(
    counts=st.lists(st.integers(2, 30), min_size=1, max_size=5),
    dim=st.integers(1, 9),
    kind=st.sampled_from(["whitened", "standardised"]),
    seed=st.integers(0, 100),
)
def test_the_way_back_returns_the_rows(counts, dim, kind, seed):
    features, labels, counts = rows(counts, dim, seed)
    transform = fit_transform(kind, [(features, labels)], counts)
    z = transform.forward(features, labels)
    back = transform.inverse(z, labels)
    inside = np.abs(z).max(axis=1) < transform.bound
    scale = np.abs(features).max() + 1
    assert np.abs(back - features)[inside].max(initial=0) < 1e-4 * scale
    assert np.abs(z).max() <= np.float32(transform.bound)


def test_whitened_residuals_are_white():
    features, labels, counts = rows([4000, 400, 40])
    transform = fit_transform("whitened", [(features, labels)], counts)
    z = transform.forward(features, labels).astype(np.float64)
    for number in range(3):
        assert np.abs(z[labels == number].mean(axis=0)).max() < 1e-5
    weight = counts[labels] ** -0.5
    covariance = (z * weight[:, None]).T @ z / weight.sum()
    assert np.abs(covariance - np.eye(6)).max() < 5 * RIDGE * 6
    assert transform.bound == CLAMP


def test_the_covariance_weighs_rare_classes_up():
    """Two classes of different width: the weights of the recipe decide the shared covariance."""
    generator = np.random.default_rng(0)
    labels = np.repeat([0, 1], [900, 100])
    width = np.where(labels == 0, 1.0, 3.0)[:, None]
    features = (generator.standard_normal((1000, 1)) * width).astype(np.float32)
    transform = fit_transform("whitened", [(features, labels)], np.array([900, 100]))
    variance = [features[labels == c].var() for c in (0, 1)]
    weight = np.array([900**0.5, 100**0.5])
    expected = np.average(variance, weights=weight) * (1 + RIDGE)
    assert transform.scale[0, 0] ** 2 == pytest.approx(expected, rel=1e-5)


def test_means_and_covariance_take_in_the_views():
    features, labels, counts = rows([30, 20])
    view = features + 1
    transform = fit_transform("whitened", [(features, labels), (view, labels)], counts)
    together, twice = np.concatenate([features, view]), np.concatenate([labels, labels])
    expected = np.stack([together[twice == c].mean(axis=0, dtype=np.float64) for c in (0, 1)])
    assert np.allclose(transform.mean, expected, atol=1e-6)


def test_a_class_with_one_row_has_that_row_as_mean_and_the_shared_covariance():
    features, labels, counts = rows([50, 1])
    transform = fit_transform("whitened", [(features, labels)], counts)
    assert np.allclose(transform.mean[1], features[-1], atol=1e-6)
    assert not transform.forward(features, labels)[-1].any()


def test_a_rank_deficient_covariance_is_no_obstacle():
    features, labels, counts = rows([40, 30], dim=4)
    dead = np.concatenate([features, features[:, :1], np.zeros((70, 2), np.float32)], axis=1)
    transform = fit_transform("whitened", [(dead, labels)], counts)
    z = transform.forward(dead, labels)
    assert np.isfinite(z).all()
    back = transform.inverse(z, labels)
    assert np.abs(back - dead).max() < 1e-3


def test_fewer_rows_than_dimensions():
    features, labels, counts = rows([3, 2], dim=40)
    transform = fit_transform("whitened", [(features, labels)], counts)
    assert np.isfinite(transform.forward(features, labels)).all()


def test_an_empty_class_is_named():
    features, labels, _ = rows([5, 5])
    with pytest.raises(InputError, match=r"class 2 \(bee\) has no training row"):
        fit_transform("whitened", [(features, labels)], np.array([5, 5, 0]), ("ant", "cow", "bee"))


@pytest.mark.parametrize(
    ("kind", "message"),
    [("whitened", "no class has two different rows"), ("standardised", "all training rows")],
)
def test_rows_without_spread_are_refused(kind, message):
    features = np.ones((4, 3), np.float32)
    labels = np.array([0, 0, 1, 1])
    with pytest.raises(InputError, match=message):
        fit_transform(kind, [(features, labels)], np.array([2, 2]))


def test_an_unknown_transform_names_the_nearest():
    features, labels, counts = rows([5, 5])
    with pytest.raises(UsageError, match="did you mean 'whitened'"):
        fit_transform("whitend", [(features, labels)], counts)


def test_standardised_rows_have_no_mean_and_unit_variance():
    features, labels, counts = rows([500, 50])
    transform = fit_transform("standardised", [(features, labels)], counts)
    z = transform.forward(features, labels).astype(np.float64)
    assert np.abs(z.mean(axis=0)).max() < 1e-5
    assert np.allclose(z.std(axis=0), 1, atol=1e-5)
    assert transform.mean.shape == (1, 6)
    assert transform.class_means(2).shape == (2, 6)


def test_the_floor_is_that_of_the_features():
    features, labels, counts = rows([50, 50])
    assert fit_transform("whitened", [(features, labels)], counts).floor == -np.inf
    positive = np.abs(features)
    transform = fit_transform("whitened", [(positive, labels)], counts)
    assert transform.floor == 0
    far = transform.inverse(np.full((2, 6), -8, np.float32), np.array([0, 1]))
    assert (far >= 0).all()
    assert (far == 0).any()


def test_k_widens_around_the_mean():
    transform = Transform("whitened", np.array([[1.0, 2.0]]), np.eye(2), -np.inf, CLAMP)
    z = np.array([[1, -1]], np.float32)
    assert np.array_equal(transform.inverse(z, np.array([0]), k=2.0), [[3, 0]])


def test_outliers_are_pulled_in():
    features, labels, _ = rows([500])
    features[0] = 1e4
    transform = fit_transform("whitened", [(features[1:], labels[1:])], np.array([499]))
    assert np.abs(transform.forward(features, labels)[0]).max() == CLAMP


def test_a_covariance_beyond_the_memory_names_the_way_out(monkeypatch):
    features, labels, counts = rows([5, 4])

    def full(*arguments):
        raise MemoryError

    monkeypatch.setattr("ldmlr.diffusion.transform.np.linalg.cholesky", full)
    with pytest.raises(LdmlrError, match=r"covariance of 6 dimensions needs 0\.0 GB.*transform='standard"):
        fit_transform("whitened", [(features, labels)], counts)


def test_chunks_do_not_change_the_fit(monkeypatch):
    features, labels, counts = rows([60, 40])
    whole = fit_transform("whitened", [(features, labels)], counts)
    monkeypatch.setattr("ldmlr.diffusion.statistics.CHUNK", 7)
    parts = fit_transform("whitened", [(features, labels)], counts)
    assert np.allclose(whole.mean, parts.mean, rtol=1e-12)
    assert np.allclose(whole.scale, parts.scale, rtol=1e-9)
    assert np.allclose(whole.forward(features, labels), parts.forward(features, labels), atol=1e-6)
