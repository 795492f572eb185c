"""The axes that are diffused: the largest eigenvectors of the shared covariance, and what is left of it.

Dimensions are taken in units of their own spread, so that centimetres and kilometres count alike. Of the
correlations R = V diag(lambda) V^T the K largest axes are diffused, ``z = lambda^-1/2 V^T r / d`` (d the
standard deviation of each dimension), and a row is ``mean[y] + A z + psi e`` with ``A = d V lambda^1/2``
``[D, K]`` and what A leaves of each variance as independent noise: a factor model. With K = D nothing is
left.

`error_power` counts the denoiser's error on an axis in proportion to ``lambda^power``: 1 is the unit of the
dimensions themselves, 0 makes every axis count alike. With 0, structure in a few directions is lost in the
sum over many that have none; with 1/2 it is still lost at 256 dimensions. Between 3/4 and 1 it is found, and
3/4 is better for heads on CIFAR-10-LT (docs/results.md).
"""

from __future__ import annotations

import dataclasses

import numpy as np

from ldmlr.diffusion.statistics import Array, Statistics

AUTO, NONE = "auto", "none"
# How many axes ``auto`` takes: all of rows up to this width, where fewer would save next to nothing.
NARROW = 64
# Of wider ones those that hold this share of the variance, at most so many, and at most one per so many rows,
# but never fewer than the least.
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
    # It computes with torch, which drawing from a fitted model does not load.
    from ldmlr.diffusion.spectrum import spectrum

    correlation = statistics.without_rounding().ridged()
    dim, total = len(correlation), np.diag(correlation).copy()
    deviation = np.sqrt(total)
    # A constant dimension correlates with none and stays as it is.
    inverse = np.divide(1, deviation, out=np.zeros(dim), where=deviation > 0)
    correlation *= inverse
    correlation *= inverse[:, None]
    values, vectors = spectrum(correlation, most_axes(dim, latent, rows))
    count = axis_count(values, int((total > 0).sum()), latent, rows)
    variance, kept = values[:count].copy(), vectors[:, :count]
    scale = deviation[:, None] * kept * np.sqrt(variance)
    psi = None if count == dim else np.sqrt(np.maximum(total - (scale**2).sum(axis=1), 0.0))
    whitening = (kept / np.sqrt(variance)).T * inverse
    return Axes(
        np.ascontiguousarray(scale), psi, np.ascontiguousarray(whitening), variance,
        float(variance.sum() / np.count_nonzero(total)),
    )  # fmt: skip


def most_axes(dim: int, latent: str, rows: int) -> int:
    """Return the largest K that `axis_count` may choose."""
    if latent == NONE or (latent == AUTO and dim <= NARROW):
        return dim
    return min(dim, min(MOST, max(LEAST, rows // ROWS_PER_AXIS)) if latent == AUTO else int(latent))


def axis_count(values: Array, moving: int, latent: str, rows: int) -> int:
    """Return K for the largest eigenvalues of correlations, in falling order.

    Parameters
    ----------
    values
        As many as `most_axes` says, at least.
    moving
        Dimensions that are not constant: the ones on the diagonal of the correlations, so the sum of all
        eigenvalues.
    latent, rows
        As for `fit_axes`.
    """
    if latent == AUTO:
        held = int(np.searchsorted(np.cumsum(values), SHARE * moving)) + 1
        return min(most_axes(len(values), latent, rows), moving if moving <= NARROW else held)
    return most_axes(len(values), latent, rows)
