"""Class Gaussians: their moments, their shrinkage, and rows that no split of the work changes."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ldmlr.diffusion.transform import fit_transform
from ldmlr.generation.generators.gaussian import ClassGaussians

COUNTS = np.array([60, 24, 6])


def rows(seed: int):
    labels = np.repeat(np.arange(3), COUNTS)
    noise = np.random.default_rng(seed).standard_normal((len(labels), 5))
    return (3 * np.eye(3, 5)[labels] + noise).astype(np.float32), labels


@given(cuts=st.lists(st.integers(0, 700), max_size=3))
def test_any_split_of_the_rows_gives_the_same_bits(cuts):
    fitted = ClassGaussians.fit([rows(0)], COUNTS)
    labels = np.repeat([0, 1, 2], (300, 250, 150))
    whole = fitted.sample(labels, scale=np.array([1.0, 1.5, 2.0]), seed=4)
    for low, high in itertools.pairwise([0, *sorted(cuts), 700]):
        part = fitted.sample(labels[low:high], scale=np.array([1.0, 1.5, 2.0]), seed=4, first_row=low)
        assert np.array_equal(part, whole[low:high])


def test_they_have_the_mean_and_the_width_of_their_class():
    labels = np.repeat([0, 1], 3000)
    wide = np.random.default_rng(0).standard_normal((6000, 4)) * np.where(labels, 2.0, 1.0)[:, None]
    fitted = ClassGaussians.fit([(wide + 5 * labels[:, None] - 3, labels)], np.array([3000, 3000]))
    drawn = fitted.sample(np.repeat([0, 1], 20000), scale=1.5)
    for label, mean, deviation in ((0, -3, 1.5), (1, 2, 3.0)):
        own = drawn[20000 * label : 20000 * (label + 1)]
        np.testing.assert_allclose(own.mean(axis=0), mean, atol=0.15)
        np.testing.assert_allclose(own.std(axis=0), deviation, rtol=0.05)


def test_views_count_in_the_shrinkage():
    blocks = [rows(seed) for seed in range(3)]
    fitted = ClassGaussians.fit(blocks, COUNTS)
    shared = fit_transform("whitened", blocks, COUNTS).scale
    for label, count in enumerate(COUNTS):
        own = np.concatenate([features[labels == label] for features, labels in blocks]).astype(np.float64)
        weight = 3 * count / (3 * count + 64)
        expected = weight * np.cov(own.T, bias=True) + (1 - weight) * shared @ shared.T
        np.testing.assert_allclose(
            fitted.factor[label] @ fitted.factor[label].T, expected, rtol=1e-5, atol=1e-7
        )
        np.testing.assert_allclose(fitted.mean[label], own.mean(axis=0), atol=1e-6)
