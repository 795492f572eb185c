"""How much wider held-out rows lie around the class means than the rows a generator learned from.

An encoder pulls the rows it was trained on together, the more so the rarer their class; a generator
that reproduces them is too narrow. For a class c with training mean mu_c, training rows around it at a
mean squared distance B_c, and held-out rows f_i, the *scatter ratio* is the mean of

    u_i = |f_i - mu_c|^2 / B_c

over its held-out rows. Rare classes have one or two of them, so ratios are shrunken in two steps, each a
mean in which the wider estimate counts for `PRIOR_ROWS` rows:

    group:  r_g = (sum of u_i in g + PRIOR_ROWS r) / (n_g + PRIOR_ROWS),  r the mean of all u_i
    class:  r_c = (sum of u_i in c + PRIOR_ROWS r_g) / (n_c + PRIOR_ROWS)

A class without a held-out row has its group's ratio. The widening of class c is k_c = sqrt(r_c).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ldmlr.errors import InputError
from ldmlr.groups import GROUPS, ClassGroups, ShotGroups

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

PRIOR_ROWS = 4.0
# A widening outside these limits says that something else is wrong with the rows.
LIMITS = (0.5, 3.0)
CHUNK = 16384


@dataclasses.dataclass(frozen=True)
class Squares:
    """Squared distances to the class means of training, summed per class; sums of several draws add up.

    Attributes
    ----------
    total
        Sum of u_i per class ``[C]``.
    rows
        Held-out rows per class ``[C]``.
    clean_total
        The same sum relative to the clean training rows alone, without augmented views ``[C]``.
    """

    total: Floats
    rows: Integers
    clean_total: Floats

    def __add__(self, other: Squares) -> Squares:
        return Squares(self.total + other.total, self.rows + other.rows, self.clean_total + other.clean_total)


@dataclasses.dataclass(frozen=True)
class ScatterRatio:
    """Scatter ratios and the widening that follows.

    Attributes
    ----------
    raw, clean
        Per class ``[C]``, relative to all training rows and to the clean ones; NaN without a held-out row.
    groups
        Shrunken ratio of each shot group that has a class.
    overall
        Ratio over all held-out rows.
    shrunk
        Per class ``[C]``.
    k
        Widening per class ``[C]``.
    rows
        Held-out rows per class ``[C]``.
    """

    raw: Floats
    clean: Floats
    groups: Mapping[str, float]
    overall: float
    shrunk: Floats
    k: Floats
    rows: Integers

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data for the result document."""

        def numbers(values: Floats) -> list[float | None]:
            return [None if np.isnan(value) else round(float(value), 4) for value in values]

        return {
            "estimator": "mean squared distance to the training class mean, held-out over training rows; "
            f"class shrunken to shot group to all, each counting for {PRIOR_ROWS:g} rows; "
            f"k = sqrt(ratio) within {LIMITS[0]:g} .. {LIMITS[1]:g}",
            "overall": round(self.overall, 4), "groups": {g: round(r, 4) for g, r in self.groups.items()},
            "val_rows": self.rows.tolist(), "ratio": numbers(self.raw), "ratio_to_clean": numbers(self.clean),
            "shrunk": numbers(self.shrunk), "k": numbers(self.k),
        }  # fmt: skip


def squares(
    blocks: Sequence[tuple[npt.NDArray[Any], Integers]],
    held: npt.NDArray[Any],
    held_labels: Integers,
    num_classes: int,
) -> Squares:
    """Measure held-out rows against training rows.

    Parameters
    ----------
    blocks
        Training rows ``[N, D]`` and labels ``[N]``: the clean rows first, then augmented views of them.
    held, held_labels
        Held-out rows ``[M, D]`` and labels ``[M]``.
    num_classes
        Classes C, each with a training row.

    Raises
    ------
    InputError
        There are no held-out rows, or the training rows have no spread at all.
    """
    if not len(held_labels):
        raise InputError("scatter ratio: there are no held-out rows")
    mean = np.zeros((num_classes, held.shape[1]))
    rows = np.zeros(num_classes)
    for features, labels in _chunks(blocks):
        np.add.at(mean, labels, features)
        rows += np.bincount(labels, minlength=num_classes)
    mean /= np.maximum(rows, 1)[:, None]
    clean, clean_rows = _sums(blocks[:1], mean)
    views, view_rows = _sums(blocks[1:], mean)
    base = _typical((clean + views), clean_rows + view_rows)
    clean_base = _typical(clean, clean_rows)
    distance = np.zeros(len(held_labels))
    for start in range(0, len(held_labels), CHUNK):
        part = slice(start, start + CHUNK)
        residual = np.asarray(held[part], np.float64) - mean[held_labels[part]]
        distance[part] = np.square(residual).sum(axis=1)
    return Squares(
        _summed(held_labels, distance / base[held_labels], num_classes),
        np.bincount(held_labels, minlength=num_classes),
        _summed(held_labels, distance / clean_base[held_labels], num_classes),
    )


def scatter_ratio(
    measured: Squares, counts: npt.ArrayLike, groups: ClassGroups | None = None
) -> ScatterRatio:
    """Return ratios and widening from what was measured.

    Parameters
    ----------
    measured
        From `squares`, of one draw or the sum of several.
    counts
        Training rows per class ``[C]``: they decide the shot groups.
    groups
        Shot groups; many > 100, few < 20 by default.
    """
    total, rows = measured.total, measured.rows
    if not rows.sum():
        raise InputError("scatter ratio: there are no held-out rows")
    overall = float(total.sum() / rows.sum())
    of_groups: dict[str, float] = {}
    prior = np.full(len(rows), overall)
    for name in GROUPS:
        mask = (groups or ShotGroups()).masks(counts)[name]
        if mask.any():
            weight = rows[mask].sum() + PRIOR_ROWS
            of_groups[name] = float((total[mask].sum() + PRIOR_ROWS * overall) / weight)
            prior[mask] = of_groups[name]
    shrunk = (total + PRIOR_ROWS * prior) / (rows + PRIOR_ROWS)
    missing = np.full(len(rows), np.nan)
    raw = np.divide(total, rows, out=missing.copy(), where=rows > 0)
    clean = np.divide(measured.clean_total, rows, out=missing, where=rows > 0)
    k = np.clip(np.sqrt(shrunk), *LIMITS)
    return ScatterRatio(raw, clean, of_groups, overall, shrunk, k, rows)


def _summed(labels: Integers, values: Floats, num_classes: int) -> Floats:
    sums: Floats = np.bincount(labels, values, minlength=num_classes).astype(np.float64)
    return sums


def _chunks(blocks: Sequence[tuple[npt.NDArray[Any], Integers]]) -> Any:
    for features, labels in blocks:
        for start in range(0, len(labels), CHUNK):
            part = slice(start, start + CHUNK)
            yield np.asarray(features[part], np.float64), labels[part]


def _sums(blocks: Sequence[tuple[npt.NDArray[Any], Integers]], mean: Floats) -> tuple[Floats, Floats]:
    """Return sums of squared distances and rows per class."""
    total, rows = np.zeros(len(mean)), np.zeros(len(mean))
    for features, labels in _chunks(blocks):
        distance = np.square(features - mean[labels]).sum(axis=1)
        total += np.bincount(labels, distance, minlength=len(mean))
        rows += np.bincount(labels, minlength=len(mean))
    return total, rows


def _typical(total: Floats, rows: Floats) -> Floats:
    """Mean squared distance per class; a class without spread (one row, no views) has that of all rows."""
    if not total.sum() > 0:
        raise InputError(
            "scatter ratio: the training rows of every class are equal, so there is no spread to compare with"
        )
    whole = total.sum() / rows[total > 0].sum()
    return np.where(total > 1e-9 * whole * np.maximum(rows, 1), total / np.maximum(rows, 1), whole)
