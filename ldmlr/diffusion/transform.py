"""From features to the space of the diffusion and back.

Both transforms are affine, ``f = mean[y] + scale z``, fitted in float64 on the training
rows and stored with the model:

- *whitened* residuals: mean per class, `scale` a root of the covariance shared by all classes. In this space
  every class is centred and round, so the standard normal the diffusion starts from already is the
  shared-covariance Gaussian of the class. The root is ``[D, K]`` with the K largest axes of the covariance
  (`ldmlr.diffusion.axes`) and independent noise `psi` for the rest, or, as in models before there were axes,
  its triangular Cholesky factor.
- *standardised*: mean and standard deviation per dimension over all rows, as in the paper;
  the denoiser has to learn where the classes are.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ldmlr.diffusion.axes import Axes, fit_axes
from ldmlr.diffusion.statistics import (
    RIDGE,
    ZEROS,
    Array,
    Block,
    Labels,
    Statistics,
    chunks,
    measure,
    parts,
)
from ldmlr.diffusion.zeros import Censored, censored
from ldmlr.errors import InputError, LdmlrError, UsageError, counted, nearest, opt

# Rows beyond this many standard deviations are pulled in: they are errors of the encoder.
CLAMP = 8.0
# A floor at zero is kept where few training values are exactly zero, and where it lifts class means by at
# most so many standard deviations, on average over the classes.
LIFT = 0.16


@dataclasses.dataclass(frozen=True)
class Transform:
    """A fitted transform.

    Attributes
    ----------
    kind
        ``whitened`` or ``standardised``.
    mean
        float64 ``[C, D]``, or ``[1, D]`` when all classes share it.
    scale
        float64: ``[D, K]`` of the axes, a lower triangular ``[D, D]``, or a diagonal ``[D]``.
    floor
        Smallest value of a feature, one number or ``[D]``; -inf where there is none.
    bound
        Largest absolute value in the space of the diffusion.
    psi
        Standard deviation of independent noise ``[D]`` that a row has beside its axes; None: none.
    axes
        What was fitted, where `scale` is of axes; None for a transform read from a file.
    low, high
        The intervals ``[C, D]`` that training values are pulled into; None: they are taken as they are.
    zeros
        The dimensions that are often exactly zero, which the sampler's last step keeps so; None: none is.
    """

    kind: str
    mean: Array
    scale: Array
    floor: float | Array
    bound: float
    psi: Array | None = None
    axes: Axes | None = None
    low: Array | None = None
    high: Array | None = None
    zeros: Censored | None = None

    @property
    def dim(self) -> int:
        """Number of feature dimensions D."""
        return int(self.mean.shape[1])

    @property
    def latent(self) -> int:
        """Numbers K of a row in the space of the diffusion."""
        return int(self.scale.shape[-1])

    def class_means(self, num_classes: int) -> Array:
        """Return the mean of every class ``[C, D]``."""
        return np.array(np.broadcast_to(self.mean, (num_classes, self.dim)))

    def forward(
        self, features: npt.NDArray[Any], labels: Labels, out: npt.NDArray[np.float32] | None = None
    ) -> npt.NDArray[np.float32]:
        """Return z ``[N, K]`` float32 of features ``[N, D]`` with labels ``[N]``, in `out` if it is given."""
        inverse = self._inverse()
        z = np.empty((len(features), self.latent), np.float32) if out is None else out
        for part in parts(*features.shape):
            wide, classes = np.asarray(features[part], np.float64), labels[part]
            if self.low is not None and self.high is not None:
                wide = np.clip(wide, self.low[classes], self.high[classes])
            residual = wide - self._mean_of(classes)
            white = residual @ inverse.T if inverse.ndim == 2 else residual * inverse
            z[part] = np.clip(white, -self.bound, self.bound)
        return z

    def forward_all(self, blocks: Sequence[Block]) -> tuple[npt.NDArray[np.float32], Labels]:
        """Return z and labels of several blocks one after the other, without a second copy of z."""
        z = np.empty((sum(len(features) for features, _ in blocks), self.latent), np.float32)
        start = 0
        for features, labels in blocks:
            self.forward(features, labels, out=z[start : start + len(features)])
            start += len(features)
        return z, np.concatenate([labels for _, labels in blocks])

    def inverse(self, z: npt.NDArray[np.float32], labels: Labels, k: float = 1.0) -> Array:
        """Return ``max(floor, mean[y] + k scale z)`` in float64: the last step without `psi` and `zeros`."""
        wide = z.astype(np.float64)
        spread = wide @ self.scale.T if self.scale.ndim == 2 else wide * self.scale
        return np.asarray(np.maximum(self._mean_of(labels) + k * spread, self.floor))

    def _inverse(self) -> Array:
        if self.axes is not None:
            return self.axes.whitening
        if self.scale.ndim == 1:
            return np.asarray(1 / self.scale)
        square = self.scale.shape[0] == self.scale.shape[1]
        return np.asarray(np.linalg.inv(self.scale) if square else np.linalg.pinv(self.scale))

    def _mean_of(self, labels: Labels) -> Array:
        return self.mean[labels] if len(self.mean) > 1 else self.mean


def fit_transform(
    kind: str,
    blocks: Sequence[Block],
    counts: npt.NDArray[np.int64],
    class_names: Sequence[str] | None = None,
    *,
    latent: str | None = None,
) -> Transform:
    """Fit a transform on training rows.

    Parameters
    ----------
    kind
        ``whitened`` or ``standardised``.
    blocks
        (features ``[N, D]``, labels ``[N]``) pairs: the clean rows first, then each view.
    counts
        Clean training rows per class ``[C]``; whitening weighs a row by ``counts^-0.5``.
    class_names
        For error messages.
    latent
        Axes to keep of a whitened transform, see `ldmlr.diffusion.axes.fit_axes`; None: no axes, but the
        Cholesky factor of the covariance.

    Raises
    ------
    InputError
        A class without a row, or rows without any spread.
    LdmlrError
        The covariance does not fit in memory.
    """
    empty = np.flatnonzero(counts == 0)
    if len(empty):
        name = f" ({class_names[empty[0]]})" if class_names else ""
        raise InputError(
            f"class {empty[0]}{name} has no training row ({len(empty)} of "
            f"{counted(len(counts), 'class')} are empty); "
            "add rows, or number the classes that have some from 0 on, as `ldmlr store import` does"
        )
    if kind == "standardised":
        mean, scale, bound = _standardise(blocks)
        low = min(float(features.min()) for features, _ in chunks(blocks))
        return Transform(kind, mean, scale, 0.0 if low >= 0 else -np.inf, bound)
    if kind != "whitened":
        raise UsageError(
            f"{opt('transform')}: unknown value {kind!r}; {nearest(kind, ('whitened', 'standardised'))}"
        )
    try:
        return _cholesky(blocks, counts) if latent is None else _in_axes(blocks, counts, latent)
    except MemoryError:
        dim = blocks[0][0].shape[1]
        raise LdmlrError(
            f"the covariance of {dim} dimensions needs {8e-9 * dim * dim:.1f} GB several times over, "
            f"which is not there; use {opt('transform', 'standardised')}, or features of fewer dimensions"
        ) from None


def _in_axes(blocks: Sequence[Block], counts: npt.NDArray[np.int64], latent: str) -> Transform:
    """Class means and the largest axes of the shared covariance."""
    found = measure(blocks, counts)
    axes = fit_axes(found, latent, int(counts.sum()))
    return Transform(
        "whitened", found.mean, axes.scale, floors(found), CLAMP,
        psi=axes.psi, axes=axes, low=found.low, high=found.high,
        zeros=censored(found, counts, axes.scale.shape[1]),
    )  # fmt: skip


def _cholesky(blocks: Sequence[Block], counts: npt.NDArray[np.int64]) -> Transform:
    """Class means over all rows and ``chol(S + ridge)``, S the weighted covariance of the residuals."""
    found = measure(blocks, counts, pull_in=False)
    dim = len(found.covariance)
    ridge = RIDGE * float(np.trace(found.covariance)) / dim
    root = np.asarray(np.linalg.cholesky(found.covariance + ridge * np.eye(dim)), np.float64)
    return Transform("whitened", found.mean, root, 0.0 if found.lowest.min() >= 0 else -np.inf, CLAMP)


def floors(statistics: Statistics) -> Array:
    """Return the floor of each dimension ``[D]``: 0 where no training value is below and it is harmless.

    A normal of mean m and deviation s that is cut at zero has its mean lifted by ``s (phi(a) - a Phi(-a))``,
    a = m / s. Features that are zero in half of the rows would be lifted by a fifth of their spread, so they
    have no floor but a cut of their own (`ldmlr.diffusion.zeros`).

    Parameters
    ----------
    statistics
        Of the training rows.
    """
    deviation = np.sqrt(np.maximum(np.diag(statistics.covariance), 1e-300))
    ratio = statistics.mean / deviation
    tail = np.vectorize(math.erfc, otypes=[float])(ratio / math.sqrt(2)) / 2
    lift = np.exp(-np.minimum(ratio**2 / 2, 700)) / math.sqrt(2 * math.pi) - ratio * tail
    kept = (statistics.lowest >= 0) & (statistics.zeros <= ZEROS) & (lift.mean(axis=0) <= LIFT)
    return np.where(kept, 0.0, -np.inf)


def _standardise(blocks: Sequence[Block]) -> tuple[Array, Array, float]:
    """Mean and standard deviation per dimension; a constant dimension keeps its value."""
    rows = sum(len(features) for features, _ in blocks)
    mean = sum(features.sum(axis=0) for features, _ in chunks(blocks)) / rows
    variance = sum(((features - mean) ** 2).sum(axis=0) for features, _ in chunks(blocks)) / rows
    std = np.sqrt(variance)
    if not std.max() > 0:
        raise InputError("all training rows are equal, so there is nothing to learn; check the features")
    std = np.maximum(std, 1e-6 * std.max())
    bound = max(float(np.abs((features - mean) / std).max()) for features, _ in chunks(blocks))
    return mean[None], std, bound
