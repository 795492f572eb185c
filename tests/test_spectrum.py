"""ldmlr/diffusion/spectrum.py: the largest eigenvectors of a wide matrix are those of all of them."""

from __future__ import annotations

import numpy as np
import pytest

from ldmlr.diffusion.spectrum import POWERS, SPARE, spectrum, worth_it

DIM, COUNT = 700, 10


def correlations(decay: float, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    rows = random.standard_normal((900, DIM)) * np.arange(1, DIM + 1) ** -decay
    turned = rows @ np.linalg.qr(random.standard_normal((DIM, DIM)))[0]
    return np.corrcoef(turned.T)


def test_few_of_many_are_searched_for_and_many_are_not():
    assert worth_it(DIM, COUNT)
    assert worth_it(4096, 128)
    assert not worth_it(1280, 128)
    assert not worth_it(64, 64)
    assert worth_it(2 * (POWERS + 1) * (COUNT + SPARE) + 1, COUNT)
    values, vectors = spectrum(np.eye(8), 3)
    assert values.shape == (8,)
    assert vectors.shape == (8, 8)


@pytest.mark.parametrize("decay", [0.3, 1.0])
def test_the_largest_are_those_of_the_whole(decay):
    matrix = correlations(decay)
    values, vectors = spectrum(matrix, COUNT)
    exact, exact_vectors = np.linalg.eigh(matrix)
    np.testing.assert_allclose(values, exact[::-1][:COUNT], rtol=1e-3)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(COUNT), atol=1e-12)
    np.testing.assert_allclose(vectors.T @ matrix @ vectors, np.diag(values), atol=1e-10)
    np.testing.assert_allclose(
        np.abs((vectors * exact_vectors[:, ::-1][:, :COUNT]).sum(axis=0))[:3], 1, atol=1e-6
    )
    assert (np.diff(values) <= 0).all()
    assert (vectors[np.abs(vectors).argmax(axis=0), np.arange(COUNT)] > 0).all()


@pytest.mark.parametrize("rank", [0, 2])
def test_a_flat_or_deficient_matrix_is_no_trouble(rank):
    """Powers of such a matrix add no new direction, only rounding."""
    some = np.linalg.qr(np.random.default_rng(0).standard_normal((DIM, 2)))[0][:, :rank]
    matrix = np.eye(DIM) + 50 * some @ some.T
    values, vectors = spectrum(matrix, COUNT)
    np.testing.assert_allclose(values, [51.0] * rank + [1.0] * (COUNT - rank), rtol=1e-10)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(COUNT), atol=1e-10)


def test_the_same_matrix_gives_the_same_bits():
    matrix = correlations(0.5)
    for one, two in zip(spectrum(matrix, COUNT), spectrum(matrix.copy(), COUNT), strict=True):
        np.testing.assert_array_equal(one, two)
