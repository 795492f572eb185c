"""Eigenvalues and eigenvectors of a symmetric matrix: all of them, or the largest ones of a wide one.

All of D x D take time with D^3: half a second of one core at D 1,280, 17 s at 4,096. Where few are wanted, a
block Krylov space is enough, 1.8 s at D 4,096 for 128: block Lanczos with full reorthogonalisation (Golub
and Underwood 1977), with a random start (Musco and Musco 2015). The space is ``[X, R X, R^2 X, ...]``, X a
few more columns than are wanted, and the eigenproblem is solved in it. Eigenvalues that stand out are exact
to rounding. Where the spectrum is flat, what comes out is one basis of many of nearly the same variance, and
its products with the matrix are still diagonal. Start and thread count are fixed, so the same matrix always
gives the same bits.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ldmlr.device import one_blas_thread

Array = npt.NDArray[np.float64]
# Powers of the matrix in the Krylov space, and columns of a block beyond those that are wanted.
POWERS, SPARE = 5, 16
# Eigenvalues below are taken for this: of a matrix with ones on its diagonal it is rounding.
SMALLEST = 1e-9


def spectrum(matrix: Array, count: int) -> tuple[Array, Array]:
    """Return eigenvalues in falling order and eigenvectors ``[D, ...]``, `count` of them or all.

    Parameters
    ----------
    matrix
        Symmetric ``[D, D]`` with ones, or numbers of that size, on its diagonal.
    count
        How many are wanted.
    """
    with one_blas_thread():
        rising = _largest(matrix, count) if worth_it(len(matrix), count) else np.linalg.eigh(matrix)
    values, vectors = rising[0][::-1], rising[1][:, ::-1]
    # The sign of an eigenvector is whatever the library gives: largest entry positive.
    largest = np.abs(vectors).argmax(axis=0)
    signs = np.sign(vectors[largest, np.arange(len(values))])
    return np.maximum(values, SMALLEST), vectors * signs


def worth_it(dim: int, count: int) -> bool:
    """Tell whether the largest eigenvectors are had for much less than all: the space is below half of D."""
    return 2 * (POWERS + 1) * (count + SPARE) < dim


def _largest(matrix: Array, count: int) -> tuple[Array, Array]:
    """Return the largest eigenvalues in rising order and their vectors."""
    start = np.random.default_rng(0).standard_normal((len(matrix), count + SPARE))
    block = np.linalg.qr(start).Q
    basis = block
    for _ in range(POWERS):
        block = matrix @ block
        # Again and again: what a nearly dependent block has left after the first time is rounding.
        for _ in range(3):
            block = np.linalg.qr(block - basis @ (basis.T @ block)).Q
        basis = np.concatenate([basis, block], axis=1)
    inner = basis.T @ (matrix @ basis)
    values, vectors = np.linalg.eigh((inner + inner.T) / 2)
    return values[-count:], basis @ vectors[:, -count:]
