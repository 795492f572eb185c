"""Class means and the covariance that all classes share, in float64, of rows larger than memory.

Two things that must not decide how rows are drawn are taken out here. *One wild value* (99999 as a code, a
broken sensor): every value is pulled in to a wide interval around the median of its class and dimension,
`REACH` times the spread of the dimension; rows of a normal, an exponential or a Student distribution of three
degrees lie inside, up to one in ten thousand. *The unit of a dimension*: the ridge that keeps the covariance
invertible is a share of each dimension's own variance.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ldmlr.errors import InputError

Array = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]
Block = tuple[npt.NDArray[Any], Labels]

# Rows handled at a time, as the fit reads features larger than memory; and numbers, where rows are wide: one
# copy in float64 is 32 MB, and four are alive at most.
CHUNK, NUMBERS = 16384, 1 << 22
# Added to each variance, relative to it, so that dimensions that repeat each other stay harmless.
RIDGE = 1e-3
# Half the width of the interval that values are pulled into, in standard deviations of a normal that has the
# same middle. Rows that medians and spreads are taken from, per class.
REACH, SAMPLE = 20.0, 256
# The deviation of a constant dimension, relative to its value: rounding of the sums.
ROUNDING = 1e-12
# Rows of all classes together that the spread of a dimension is taken from.
POOLED = 4096
# A dimension has zeros to keep where more than this share of its values is exactly zero and none is below.
ZEROS = 0.05
# Quantiles of |x - median| and what they are in deviations of a normal: over all classes, and of one class.
WIDE, HALF = (0.95, 1.96), (0.75, 1.15)


@dataclasses.dataclass(frozen=True)
class WithZeros:
    """The dimensions that are often exactly zero and never below.

    Attributes
    ----------
    columns
        The dimensions, int64 ``[M]``, ascending.
    share, variance
        Share of zeros and variance of each class ``[C, M]``.
    """

    columns: Labels
    share: Array
    variance: Array


@dataclasses.dataclass(frozen=True)
class Statistics:
    """What the training rows tell about classes and dimensions.

    Attributes
    ----------
    mean
        ``[C, D]``.
    covariance
        ``[D, D]``, of residuals of the class means, a row weighted by ``counts^-0.5``; no ridge.
    low, high
        The interval of each class and dimension ``[C, D]`` that values are pulled into; ``[C, 1]``, infinite,
        where they are taken as they are.
    lowest, zeros
        Smallest value of each dimension ``[D]``, and which share of its values is exactly zero.
    censored
        The classes' zeros where a dimension has many; None where none has.
    """

    mean: Array
    covariance: Array
    low: Array
    high: Array
    lowest: Array
    zeros: Array
    censored: WithZeros | None = None

    def residuals(self, features: npt.NDArray[Any], labels: Labels) -> Array:
        """Return rows minus their class means, wild values pulled in."""
        found: Array = np.clip(features, self.low[labels], self.high[labels]) - self.mean[labels]
        return found

    def ridged(self) -> Array:
        """Return the covariance with its ridge: positive definite but for dimensions that are constant."""
        found = self.covariance.copy()
        found[np.diag_indices_from(found)] *= 1 + RIDGE
        return found

    def without_rounding(self) -> Statistics:
        """Return it with no variance where there is nothing but the rounding of means."""
        constant = np.diag(self.covariance) <= (ROUNDING * np.abs(self.mean).max(axis=0)) ** 2
        covariance = self.covariance.copy() if constant.any() else self.covariance
        covariance[constant], covariance[:, constant] = 0.0, 0.0
        return dataclasses.replace(self, covariance=covariance)


def measure(blocks: Sequence[Block], counts: npt.NDArray[np.int64], *, pull_in: bool = True) -> Statistics:
    """Return the statistics of training rows.

    Parameters
    ----------
    blocks
        (features ``[N, D]``, labels ``[N]``) pairs: the clean rows first, then each view.
    counts
        Clean training rows per class ``[C]``, each at least 1.
    pull_in
        Pull wild values in; without, every value counts as it is.

    Raises
    ------
    InputError
        No class has two different rows.
    """
    classes, dim = len(counts), blocks[0][0].shape[1]
    open_ended = np.full((classes, 1), np.inf)
    low, high = _limits(*blocks[0], classes) if pull_in else (-open_ended, open_ended)
    mean, rows = np.zeros((classes, dim)), np.zeros(classes)
    lowest, zeros = np.full(dim, np.inf), np.zeros(dim)
    for features, labels in chunks(blocks):
        mean += class_sums(np.clip(features, low[labels], high[labels]), labels, classes)
        rows += np.bincount(labels, minlength=classes)
        lowest = np.minimum(lowest, features.min(axis=0))
        zeros += (features == 0).sum(axis=0)
    mean /= rows[:, None]
    zeros /= rows.sum()
    columns = np.flatnonzero((zeros > ZEROS) & (lowest >= 0))
    share, variance = np.zeros((classes, len(columns))), np.zeros((classes, len(columns)))
    censored = WithZeros(columns, share, variance) if len(columns) else None
    found = Statistics(mean, np.zeros((dim, dim)), low, high, lowest, zeros, censored)
    row_weight, total = counts**-0.5, 0.0
    for features, labels in chunks(blocks):
        residual, weight = found.residuals(features, labels), row_weight[labels]
        found.covariance[:] += residual.T @ (residual * weight[:, None])
        total += float(weight.sum())
        if censored:
            share += class_sums((features[:, columns] == 0).astype(np.float64), labels, classes)
            variance += class_sums(residual[:, columns] ** 2, labels, classes)
    share /= rows[:, None]
    variance /= rows[:, None]
    found.covariance[:] /= total
    if not np.trace(found.covariance) > 0:
        raise InputError(
            "no class has two different rows, so the spread of a class cannot be estimated; "
            "add rows, or augmented views of them"
        )
    return found


def parts(rows: int, dim: int) -> Iterator[slice]:
    """Yield the rows of ``[N, D]`` some thousand at a time."""
    step = max(1, min(CHUNK, NUMBERS // dim))
    for start in range(0, rows, step):
        yield slice(start, start + step)


def chunks(blocks: Sequence[Block]) -> Iterator[tuple[Array, Labels]]:
    """Yield the rows of blocks in float64, some thousand at a time."""
    for features, labels in blocks:
        for part in parts(*features.shape):
            yield np.asarray(features[part], np.float64), labels[part]


def class_sums(features: Array, labels: Labels, num_classes: int) -> Array:
    """Return the sum of the rows of each class ``[C, D]``."""
    order = np.argsort(labels, kind="stable")
    present, starts = np.unique(labels[order], return_index=True)
    sums = np.zeros((num_classes, features.shape[1]))
    sums[present] = np.add.reduceat(features[order], starts, axis=0)
    return sums


def _limits(features: npt.NDArray[Any], labels: Labels, classes: int) -> tuple[Array, Array]:
    """Return the interval of each class and dimension, from evenly spaced rows of each class."""
    dim = features.shape[1]
    median, own = np.empty((classes, dim)), np.empty((classes, dim))
    away = []
    for label in range(classes):
        at = np.flatnonzero(labels == label)
        at = at[np.linspace(0, len(at) - 1, min(len(at), SAMPLE)).round().astype(int)]
        rows = np.asarray(features[at], np.float64)
        median[label] = np.median(rows, axis=0)
        distance = np.abs(rows - median[label])
        own[label] = np.quantile(distance, HALF[0], axis=0) / HALF[1]
        away.append(distance[:: -(-len(distance) * classes // POOLED)])
    all_away = np.concatenate(away)
    spread = np.quantile(all_away, WIDE[0], axis=0) / WIDE[1]
    # A dimension that is nearly always the same has no quantile to go by, and may tell classes apart.
    spread = np.where(spread > 0, spread, np.inf)
    reach = REACH * np.maximum(spread, own)
    return median - reach, median + reach
