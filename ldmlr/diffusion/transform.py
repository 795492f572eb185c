"""From features to the space of the diffusion and back.

Both transforms are affine, ``f = mean[y] + scale z``, fitted in float64 on the training
rows and stored with the model:

- *whitened* residuals: mean per class, `scale` the Cholesky factor of the covariance shared
  by all classes. In this space every class is centred and round, so the standard normal the
  diffusion starts from already is the shared-covariance Gaussian of the class.
- *standardised*: mean and standard deviation per dimension over all rows, as in the paper;
  the denoiser has to learn where the classes are.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ldmlr.errors import InputError, LdmlrError, UsageError, nearest, opt

Array = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]
Block = tuple[npt.NDArray[Any], Labels]

# Rows beyond this many standard deviations are pulled in: they are errors of the encoder.
CLAMP = 8.0
# Added to the covariance, relative to its mean diagonal, so that dead dimensions stay harmless.
RIDGE = 1e-3
# Rows handled at a time: the fit reads features larger than memory.
CHUNK = 16384


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
        float64, a lower triangular ``[D, D]`` or a diagonal ``[D]``.
    floor
        Smallest value of a feature: 0 if no training feature is negative, else -inf.
    bound
        Largest absolute value in the space of the diffusion.
    """

    kind: str
    mean: Array
    scale: Array
    floor: float
    bound: float

    @property
    def dim(self) -> int:
        """Number of feature dimensions D."""
        return int(self.mean.shape[1])

    def class_means(self, num_classes: int) -> Array:
        """Return the mean of every class ``[C, D]``."""
        return np.array(np.broadcast_to(self.mean, (num_classes, self.dim)))

    def forward(
        self, features: npt.NDArray[Any], labels: Labels, out: npt.NDArray[np.float32] | None = None
    ) -> npt.NDArray[np.float32]:
        """Return z ``[N, D]`` float32 of features ``[N, D]`` with labels ``[N]``, in `out` if it is given."""
        inverse = np.linalg.inv(self.scale) if self.scale.ndim == 2 else 1 / self.scale
        z = np.empty(features.shape, np.float32) if out is None else out
        for start in range(0, len(features), CHUNK):
            part = slice(start, start + CHUNK)
            residual = features[part].astype(np.float64) - self._mean_of(labels[part])
            white = residual @ inverse.T if inverse.ndim == 2 else residual * inverse
            z[part] = np.clip(white, -self.bound, self.bound)
        return z

    def forward_all(self, blocks: Sequence[Block]) -> tuple[npt.NDArray[np.float32], Labels]:
        """Return z and labels of several blocks one after the other, without a second copy of z."""
        z = np.empty((sum(len(features) for features, _ in blocks), self.dim), np.float32)
        start = 0
        for features, labels in blocks:
            self.forward(features, labels, out=z[start : start + len(features)])
            start += len(features)
        return z, np.concatenate([labels for _, labels in blocks])

    def inverse(self, z: npt.NDArray[np.float32], labels: Labels, k: float = 1.0) -> Array:
        """Return ``max(floor, mean[y] + k scale z)`` in float64: the twin of the sampler's last step."""
        wide = z.astype(np.float64)
        spread = wide @ self.scale.T if self.scale.ndim == 2 else wide * self.scale
        return np.asarray(np.maximum(self._mean_of(labels) + k * spread, self.floor))

    def _mean_of(self, labels: Labels) -> Array:
        return self.mean[labels] if len(self.mean) > 1 else self.mean


def fit_transform(
    kind: str,
    blocks: Sequence[Block],
    counts: npt.NDArray[np.int64],
    class_names: Sequence[str] | None = None,
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
            f"class {empty[0]}{name} has no training row ({len(empty)} of {len(counts)} classes are empty); "
            "add rows, or number the classes that have some from 0 on, as `ldmlr store import` does"
        )
    low = min(float(features.min()) for part in blocks for features, _ in _chunks([part]))
    floor = 0.0 if low >= 0 else -np.inf
    if kind == "whitened":
        try:
            mean, scale = _whiten(blocks, counts)
        except MemoryError:
            dim = blocks[0][0].shape[1]
            raise LdmlrError(
                f"the covariance of {dim} dimensions needs {8e-9 * dim * dim:.1f} GB several times over, "
                f"which is not there; use {opt('transform')} standardised, or features of fewer dimensions"
            ) from None
        return Transform(kind, mean, scale, floor, CLAMP)
    if kind == "standardised":
        mean, scale, bound = _standardise(blocks)
        return Transform(kind, mean, scale, floor, bound)
    raise UsageError(
        f"{opt('transform')}: unknown value {kind!r}; {nearest(kind, ('whitened', 'standardised'))}"
    )


def _chunks(blocks: Sequence[Block]) -> Iterator[tuple[Array, Labels]]:
    for features, labels in blocks:
        for start in range(0, len(features), CHUNK):
            part = slice(start, start + CHUNK)
            yield np.asarray(features[part], np.float64), labels[part]


def _class_sums(features: Array, labels: Labels, num_classes: int) -> Array:
    order = np.argsort(labels, kind="stable")
    present, starts = np.unique(labels[order], return_index=True)
    sums = np.zeros((num_classes, features.shape[1]))
    sums[present] = np.add.reduceat(features[order], starts, axis=0)
    return sums


def _whiten(blocks: Sequence[Block], counts: npt.NDArray[np.int64]) -> tuple[Array, Array]:
    """Class means over all rows and ``chol(S + ridge)``, S the weighted covariance of the residuals."""
    dim = blocks[0][0].shape[1]
    mean, rows = np.zeros((len(counts), dim)), np.zeros(len(counts))
    for features, labels in _chunks(blocks):
        mean += _class_sums(features, labels, len(counts))
        rows += np.bincount(labels, minlength=len(counts))
    mean /= rows[:, None]
    covariance, total = np.zeros((dim, dim)), 0.0
    row_weight = counts**-0.5
    for features, labels in _chunks(blocks):
        residual = features - mean[labels]
        weight = row_weight[labels]
        covariance += residual.T @ (residual * weight[:, None])
        total += float(weight.sum())
    covariance /= total
    ridge = RIDGE * float(np.trace(covariance)) / dim
    if not ridge > 0:
        raise InputError(
            "no class has two different rows, so the spread of a class cannot be estimated; "
            "add rows, or augmented views of them"
        )
    return mean, np.linalg.cholesky(covariance + ridge * np.eye(dim))


def _standardise(blocks: Sequence[Block]) -> tuple[Array, Array, float]:
    """Mean and standard deviation per dimension; a constant dimension keeps its value."""
    rows = sum(len(features) for features, _ in blocks)
    mean = sum(features.sum(axis=0) for features, _ in _chunks(blocks)) / rows
    variance = sum(((features - mean) ** 2).sum(axis=0) for features, _ in _chunks(blocks)) / rows
    std = np.sqrt(variance)
    if not std.max() > 0:
        raise InputError("all training rows are equal, so there is nothing to learn; check the features")
    std = np.maximum(std, 1e-6 * std.max())
    bound = max(float(np.abs((features - mean) / std).max()) for features, _ in _chunks(blocks))
    return mean[None], std, bound
