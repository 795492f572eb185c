"""Quality figures of generated rows, on cases with a known answer."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import linalg
from sklearn.neighbors import NearestNeighbors

from ldmlr.errors import InputError
from ldmlr.metrics import generated as quality
from ldmlr.metrics import neighbours
from ldmlr.store import FeatureStore


def rows(n: int, dim: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, dim))


def covariance(dim: int, seed: int) -> np.ndarray:
    root = rows(dim, dim, seed)
    return root @ root.T


@given(mean=st.floats(-5, 5), a=st.floats(0, 4), b=st.floats(0, 4))
def test_frechet_of_isotropic_gaussians_is_known(mean, a, b):
    dim = 4
    found = quality.frechet_gaussians(
        np.zeros(dim), a**2 * np.eye(dim), np.full(dim, mean), b**2 * np.eye(dim)
    )
    assert found == pytest.approx(dim * (mean**2 + (a - b) ** 2), abs=1e-9)


@given(seed=st.integers(0, 200))
def test_frechet_agrees_with_a_matrix_square_root(seed):
    a, b, mean = covariance(5, seed), covariance(5, seed + 1000), rows(1, 5, seed)[0]
    expected = mean @ mean + np.trace(a + b - 2 * linalg.sqrtm(a @ b).real)
    found = quality.frechet_gaussians(mean, a, np.zeros(5), b)
    assert found == pytest.approx(expected, rel=1e-8, abs=1e-8)
    assert found == pytest.approx(quality.frechet_gaussians(np.zeros(5), b, mean, a), rel=1e-8, abs=1e-8)


def test_frechet_sees_both_covariances():
    real = rows(4000)
    assert quality.frechet_distance(real, real) == pytest.approx(0, abs=1e-9)
    assert quality.frechet_distance(real, 3 * real) == pytest.approx(4 * np.trace(np.cov(real.T)), rel=0.01)
    shifted = quality.frechet_distance(real, real + np.array([1, 2, 2]))
    assert shifted == pytest.approx(9, rel=1e-6)


def test_frechet_with_fewer_rows_than_dimensions():
    assert np.isfinite(quality.frechet_distance(rows(3, 10), rows(4, 10, 1)))
    with pytest.raises(InputError, match="two rows"):
        quality.frechet_distance(rows(1), rows(5))


def test_scatter_ratio_is_the_square_of_the_width():
    real, labels = rows(300), np.repeat([0, 1, 2], [150, 149, 1])
    centre = np.array([[5.0, 0, 0], [0, 5, 0], [0, 0, 5]])[labels]
    ratio = quality.scatter_ratio(real + centre, labels, 1.5 * real - centre, labels, 3)
    np.testing.assert_allclose(ratio[:2], 2.25)
    assert np.isnan(ratio[2])
    expected = [np.var(real[labels == c], axis=0, ddof=1).sum() for c in (0, 1)]
    np.testing.assert_allclose(quality.scatter(real, labels, 3)[:2], expected)


def test_scatter_around_the_real_means_counts_a_shift():
    real, labels = rows(400), np.repeat([0, 1], 200)
    shift = np.array([3.0, 0, 0])
    own = quality.scatter_ratio(real, labels, real + shift, labels, 2)
    np.testing.assert_allclose(own, 1)
    shared = quality.scatter_ratio(real, labels, real + shift, labels, 2, around_real=True)
    np.testing.assert_allclose(shared, 1 + 9 / np.array([np.var(real[labels == c], 0).sum() for c in (0, 1)]))


def test_rare_classes_are_wider_in_the_test_rows(data_dir):
    """The fact the method rests on: training features of rare classes are too narrow."""
    store = FeatureStore.open(data_dir / "cifar10-lt-if100-features.h5")
    rows_of = [(split.float32(), split.labels) for split in (store.train, store.test)]
    ratio = quality.scatter_ratio(*rows_of[0], *rows_of[1], 10, around_real=True)
    assert ratio[:3].mean() == pytest.approx(1.28, abs=0.01)
    assert ratio[-3:].mean() == pytest.approx(7.30, abs=0.01)


@pytest.mark.parametrize("block", [50, 1 << 25])
@pytest.mark.parametrize("k", [1, 4])
def test_neighbours_agree_with_scikit_learn(monkeypatch, block, k):
    monkeypatch.setattr(neighbours, "BLOCK", block)
    queries, points = rows(17, 5) + 100, rows(40, 5, 1) + 100
    distances, index = neighbours.nearest(queries, points, k)
    expected, expected_index = NearestNeighbors(n_neighbors=k).fit(points).kneighbors(queries)
    np.testing.assert_allclose(distances, expected)
    np.testing.assert_array_equal(index, expected_index)
    own, _ = neighbours.nearest(points, points, k, same=True)
    np.testing.assert_allclose(own, NearestNeighbors(n_neighbors=k).fit(points).kneighbors()[0])


def test_prdc_of_the_same_rows_is_full():
    real = rows(120)
    found = quality.prdc(real, real)
    assert found["precision"] == found["recall"] == found["coverage"] == 1.0
    # Each row lies in its own ball and in those of the rows it is among the k nearest of.
    assert found["density"] == pytest.approx(1.2)


def test_prdc_of_distant_rows_is_zero():
    assert set(quality.prdc(rows(50), rows(50, seed=1) + 1000).values()) == {0.0}


def test_prdc_tells_missing_modes_from_bad_rows():
    real = np.concatenate([rows(100), rows(100, seed=1) + 50])
    one_mode = quality.prdc(real, rows(200, seed=2))
    assert one_mode["precision"] > 0.9
    assert one_mode["recall"] < 0.55
    assert one_mode["coverage"] < 0.55
    noisy = quality.prdc(real, np.concatenate([rows(100, seed=3), rows(100, seed=4) + 500]))
    assert noisy["precision"] < 0.55


def test_prdc_agrees_with_its_definition():
    real, fake = rows(30), 1.3 * rows(25, seed=1)
    distance = np.linalg.norm(fake[:, None] - real[None], axis=2)
    ball = np.sort(np.linalg.norm(real[:, None] - real[None], axis=2), axis=1)[:, 3]
    fake_ball = np.sort(np.linalg.norm(fake[:, None] - fake[None], axis=2), axis=1)[:, 3]
    assert quality.prdc(real, fake, k=3) == pytest.approx({
        "precision": (distance <= ball).any(axis=1).mean(),
        "recall": (distance <= fake_ball[:, None]).any(axis=0).mean(),
        "density": (distance <= ball).sum(axis=1).mean() / 3,
        "coverage": (distance <= ball).any(axis=0).mean(),
    })  # fmt: skip


def test_limit_draws_the_same_rows_each_time():
    real, fake = rows(80), rows(90, seed=1)
    assert quality.prdc(real, fake, limit=40) == quality.prdc(real, fake, limit=40)
    assert quality.prdc(real, fake, limit=40) != quality.prdc(real, fake, limit=40, seed=5)


def test_memorisation_finds_copies():
    train, fresh = rows(200), rows(100, seed=1)
    copies = quality.memorisation(train, np.concatenate([train[:50], fresh[:50]]), holdout=fresh)
    assert copies["duplicates"] == 0.5
    assert copies["closer"] >= 0.5
    assert copies["holdout_closer"] < 0.75
    honest = quality.memorisation(train, rows(100, seed=2))
    assert honest["duplicates"] == 0.0
    assert honest["distance"] == pytest.approx(honest["train_distance"], rel=0.3)
    near = quality.memorisation(train, train + 1e-6)
    assert near["closer"] == 1.0
    assert near["duplicates"] == 0.0


def test_quality_has_every_figure():
    real, fake = rows(60), rows(40, seed=1)
    labels, fake_labels = np.repeat([0, 1, 2], [40, 19, 1]), np.repeat([0, 1], [20, 20])
    found = quality.quality(real, labels, fake, fake_labels, 3, holdout=rows(30, seed=2))
    assert found["frechet"][2] is None
    assert found["scatter_ratio"][2] is None
    assert found["frechet"][0] == quality.frechet_distance(real[:40], fake[:20])
    assert {"precision", "recall", "density", "coverage"} == set(found["prdc"])
    assert "holdout_closer" in found["memorisation"]


def test_bad_rows_are_refused():
    with pytest.raises(InputError, match="generated rows: expected features"):
        quality.frechet_distance(rows(5), rows(5, 4))
    with pytest.raises(InputError, match="NaN"):
        quality.prdc(np.full((9, 2), np.nan), rows(9, 2))
    with pytest.raises(InputError, match="needs more than 5 rows, there are 4"):
        quality.prdc(rows(4), rows(9))
