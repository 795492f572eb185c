"""The axes that are diffused: the largest eigenvectors of the shared covariance, and what is left of it.

Dimensions are taken in units of their own spread, so that centimetres and kilometres count alike. Of the
correlations R = V diag(lambda) V^T the K largest axes are diffused, ``z = lambda^-1/2 V^T r / d`` (d the
standard deviation of each dimension), and a row is ``mean[y] + A z + psi e`` with ``A = d V lambda^1/2``
``[D, K]`` and what A leaves of each variance as independent noise: a factor model. With K = D nothing is
left.

`error_power` counts the denoiser's error on an axis in proportion to ``lambda^power``: 1 is the unit of the
dimensions themselves, 0 makes every axis count alike. With 0, structure in a few directions is lost in the
sum over many that have none.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import torch

from ldmlr.device import torch_threads
from ldmlr.diffusion.statistics import Array, Statistics

AUTO, NONE = "auto", "none"
# How many axes ``auto`` takes: those that hold this share of the variance, at most so many, and at most one
# per so many rows, but never fewer than the least.
SHARE, MOST, ROWS_PER_AXIS, LEAST = 0.995, 128, 40, 16


@dataclasses.dataclass(frozen=True)
class Axes:
    """The axes of a model.

    Attributes
    ----------
    scale
        A ``[D, K]``.
    psi
        Standard deviation of what is left ``[D]``; None if nothing is.
    whitening
        From residuals to z, ``[K, D]``.
    variance
        lambda ``[K]``.
    share
        Share of the variance that the axes hold.
    """

    scale: Array
    psi: Array | None
    whitening: Array
    variance: Array
    share: float

    def importance(self, power: float) -> Array:
        """Return how much the error on each axis counts ``[K]``, 1 on average."""
        weight = self.variance**power
        return np.asarray(weight / weight.mean())


def fit_axes(statistics: Statistics, latent: str, rows: int) -> Axes:
    """Return the axes of a shared covariance.

    Parameters
    ----------
    statistics
        Of the training rows.
    latent
        ``auto``, ``none`` (all axes) or a number K as text; more than D means all.
    rows
        Clean training rows.
    """
    covariance = statistics.ridged()
    deviation = np.sqrt(np.diag(covariance))
    with torch_threads(1):  # the last bits depend on the number of threads
        found = torch.linalg.eigh(torch.from_numpy(covariance / np.outer(deviation, deviation)))
    values, vectors = found.eigenvalues.numpy()[::-1], found.eigenvectors.numpy()[:, ::-1]
    values = np.maximum(values, 1e-9)
    # The sign of an eigenvector is whatever the library gives: largest entry positive.
    largest = np.abs(vectors).argmax(axis=0)
    vectors = vectors * np.sign(vectors[largest, np.arange(len(values))])
    count = axis_count(values, latent, rows)
    variance, kept = values[:count].copy(), vectors[:, :count]
    scale = deviation[:, None] * kept * np.sqrt(variance)
    rest = np.diag(covariance) - (scale**2).sum(axis=1)
    psi = None if count == len(values) else np.sqrt(np.maximum(rest, 0.0))
    whitening = (kept / np.sqrt(variance)).T / deviation
    return Axes(
        np.ascontiguousarray(scale), psi, np.ascontiguousarray(whitening), variance,
        float(variance.sum() / values.sum()),
    )  # fmt: skip


def axis_count(values: Array, latent: str, rows: int) -> int:
    """Return K for eigenvalues in falling order."""
    dim = len(values)
    if latent == NONE:
        return dim
    if latent != AUTO:
        return min(int(latent), dim)
    held = int(np.searchsorted(np.cumsum(values), SHARE * values.sum())) + 1
    return min(dim, held, MOST, max(LEAST, rows // ROWS_PER_AXIS))
