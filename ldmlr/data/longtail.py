"""Which rows to use: long-tailed draws from a balanced set, and class-aware hold-outs.

A draw keeps ``n_max * factor^(-c / (C - 1))`` rows of class c, rounded down: the long-tailed
CIFAR of Cui et al., "Class-Balanced Loss Based on Effective Number of Samples" (CVPR 2019).
Rows are drawn without replacement, class by class, from streams that depend on (seed, class)
alone. A draw with a larger factor is therefore part of the draw with a smaller one.

Class 0 is the largest and class C - 1 the smallest, in a set that is balanced. In one that is imbalanced
already the classes keep their order: the largest there is stays the largest.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from ldmlr.data.images import ImageSplit, check_labels, infer_classes
from ldmlr.errors import InputError, UsageError, opt
from ldmlr.files import check_input, os_error, parse_json, write_text
from ldmlr.remote import as_path

Split = TypeVar("Split", bound=ImageSplit)
Integers = npt.NDArray[np.int64]

FORMAT = "ldmlr-draw"
SCHEMA_VERSION = 1
# Sets whose largest class has at least so many times the rows of the smallest have an order of their own;
# what differs less, as by images that were lost, is balanced.
_IMBALANCED = 1.5
# The stream of the class order, beside the streams 0 .. C-1 of the classes.
_ORDER_STREAM = 2**32 - 1


def long_tailed_counts(n_max: int, num_classes: int, factor: float) -> Integers:
    """Return the rows per class of a long-tailed set, ``[C]``, from the head to the tail.

    Parameters
    ----------
    n_max
        Rows of the first class.
    num_classes
        Number of classes, C.
    factor
        Imbalance factor: rows of the first class over rows of the last, at least 1.

    Raises
    ------
    UsageError
        The factor is below 1, or leaves a class without a row.

    Examples
    --------
    >>> long_tailed_counts(5000, 10, 100).tolist()
    [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]
    """
    if num_classes < 2 or n_max < 1:
        raise UsageError(
            f"{opt('imbalance_factor')}: a draw needs at least two classes with rows, not {num_classes} "
            f"with {n_max}"
        )
    counts = _counts(n_max, _ratios(num_classes, factor))
    if counts[-1] < 1:
        raise UsageError(
            f"{opt('imbalance_factor')}: {factor:g} leaves a class without a row, as the largest has "
            f"{n_max}; use at most {n_max}"
        )
    return counts


def _ratios(num_classes: int, factor: float) -> npt.NDArray[np.float64]:
    if not (math.isfinite(factor) and factor >= 1):
        raise UsageError(f"{opt('imbalance_factor')}: must be 1 (balanced) or more, not {factor:g}")
    return np.power(float(factor), -np.arange(num_classes) / (num_classes - 1))


def _counts(n_max: int, ratios: npt.NDArray[np.float64]) -> Integers:
    # Without the last factor a product that is whole could fall just below, and lose a row.
    return np.floor(n_max * ratios * (1 + 1e-12)).astype(np.int64)


def long_tailed_indices(
    labels: npt.ArrayLike,
    factor: float,
    seed: int = 0,
    *,
    num_classes: int | None = None,
    shuffle_classes: bool = False,
) -> Integers:
    """Return the rows of a long-tailed draw, ascending int64 ``[n]``.

    The head class keeps as many rows as every class can follow: all of them in a balanced set.

    Parameters
    ----------
    labels
        Class of each row, ``[N]``.
    factor
        Imbalance factor, at least 1.
    seed
        Chooses the rows.
    num_classes
        Number of classes, C; by default the largest label + 1.
    shuffle_classes
        Let the seed choose which class is the head and which the tail. Otherwise class 0 is
        the largest and class C - 1 the smallest; in a set that is imbalanced already, the classes keep
        their order by size.

    Raises
    ------
    InputError
        The labels are not whole numbers from 0 without gaps.
    UsageError
        The factor is below 1, or leaves a class without a row.
    """
    label = check_labels(labels, num_classes, "labels")
    classes = num_classes or infer_classes(label, "labels")
    available = np.bincount(label, minlength=classes)
    if shuffle_classes:
        order = np.argsort(_keys(seed, _ORDER_STREAM, classes), kind="stable")
    else:
        order = _order(available)
    counts = np.zeros(classes, np.int64)
    counts[order] = _drawn_counts(available[order], factor)
    chosen = []
    for c in range(classes):
        rows = np.flatnonzero(label == c)
        ranks = np.argsort(_keys(seed, c, len(rows)), kind="stable")
        chosen.append(rows[ranks[: counts[c]]])
    return np.sort(np.concatenate(chosen)).astype(np.int64)


def _keys(seed: int, stream: int, n: int) -> npt.NDArray[np.uint64]:
    """Return n random words that depend on (seed, stream) alone.

    Raw words of the bit generator are the same in every NumPy release; shuffles are not.
    """
    if seed < 0:
        raise UsageError(f"{opt('seed')}: must be 0 or more, not {seed}")
    return np.random.PCG64(np.random.SeedSequence([seed, stream])).random_raw(n)


def is_imbalanced(available: npt.ArrayLike) -> bool:
    """Tell whether rows per class ``[C]`` have an order of their own, which a draw keeps."""
    counts = np.asarray(available)
    return bool(counts.size and counts.max() > 0 and counts.max() >= _IMBALANCED * counts.min())


def _order(available: Integers) -> Integers:
    """Return the classes from the head to the tail."""
    if not is_imbalanced(available):
        return np.arange(len(available))
    return np.argsort(-available, kind="stable")


def _drawn_counts(available: Integers, factor: float) -> Integers:
    """Return the rows per class of a draw, from the head to the tail, of classes in this order."""
    n_max = _largest_head(available, factor)
    if len(available) >= 2 and n_max >= 1 and _counts(n_max, _ratios(len(available), factor))[-1] < 1:
        raise UsageError(
            f"{opt('imbalance_factor')}: {factor:g} leaves a class without a row, as the largest has "
            f"{int(available[0])} and the smallest {int(available[-1])}; use at most "
            f"{_largest_factor(available)}"
        )
    return long_tailed_counts(n_max, len(available), factor)


def _largest_head(available: Integers, factor: float) -> int:
    """Return the largest n_max for which no class is asked for more rows than it has."""
    if len(available) < 2:
        return 0
    ratios = _ratios(len(available), factor)
    # The counts grow with n_max.
    low, high = 0, int(available[0])
    while low < high:
        middle = (low + high + 1) // 2
        if np.any(_counts(middle, ratios) > available):
            high = middle - 1
        else:
            low = middle
    return low


def _largest_factor(available: Integers) -> int:
    """Return the largest whole factor that leaves every class a row."""
    low, high = 1, int(available[0])
    while low < high:
        middle = (low + high + 1) // 2
        counts = _counts(_largest_head(available, middle), _ratios(len(available), middle))
        low, high = (middle, high) if counts[-1] >= 1 else (low, middle - 1)
    return low


@dataclasses.dataclass(frozen=True, eq=False)
class LongTailedDraw:
    """The rows of a long-tailed draw, with what is needed to draw or check them again.

    Attributes
    ----------
    indices
        Rows of the source's training split, ascending int64 ``[n]``.
    imbalance_factor, seed, shuffle_classes
        How they were drawn.
    counts
        Rows per class, ``[C]``.
    source
        Name of the source.
    source_sha256
        Fingerprint of the source's training split.
    """

    indices: Integers = dataclasses.field(repr=False)
    imbalance_factor: float
    seed: int
    shuffle_classes: bool
    counts: tuple[int, ...]
    source: str
    source_sha256: str

    @property
    def sha256(self) -> str:
        """Hash of the indices as little-endian int64."""
        return hashlib.sha256(np.ascontiguousarray(self.indices, dtype="<i8").data).hexdigest()

    @classmethod
    def draw(
        cls, split: ImageSplit, source: str, factor: float, seed: int, *, shuffle_classes: bool = False
    ) -> LongTailedDraw:
        """Draw from a split; see `long_tailed_indices`."""
        indices = long_tailed_indices(
            split.labels, factor, seed, num_classes=split.num_classes, shuffle_classes=shuffle_classes
        )
        counts = np.bincount(split.labels[indices], minlength=split.num_classes).tolist()
        return cls(indices, float(factor), seed, shuffle_classes, tuple(counts), source, split.fingerprint())

    def apply(self, split: Split, where: str) -> Split:
        """Return the drawn rows of a split of the source `where`.

        Raises
        ------
        InputError
            The split is not the one the rows were drawn from.
        """
        if split.fingerprint() != self.source_sha256 or np.any(self.indices >= len(split)):
            raise InputError(
                f"{where}: not the training images of the saved draw, which was made from {self.source}; "
                f"name that source, or draw again with {opt('imbalance_factor')}"
            )
        return split.subset(self.indices)

    def save(self, path: Path | str, overwrite: bool = False) -> None:
        """Write the draw as JSON, with the sha256 of its indices."""
        document = {
            "format": FORMAT,
            "schema_version": SCHEMA_VERSION,
            **{f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "indices"},
            "indices_sha256": self.sha256,
            "indices": self.indices.tolist(),
        }
        write_text(as_path(path), json.dumps(document) + "\n", overwrite)

    @classmethod
    def load(cls, path: Path | str) -> LongTailedDraw:
        """Read a saved draw.

        Raises
        ------
        InputError
            The file is missing, is not a saved draw, or its indices do not match their sha256.
        """
        path = check_input(as_path(path), "file of saved indices")
        try:
            document: Any = parse_json(path.read_text(encoding="utf-8"))
            if document["format"] != FORMAT or document["schema_version"] != SCHEMA_VERSION:
                raise ValueError
            if any(type(row) is not int or row < 0 for row in document["indices"]):
                raise ValueError
            draw = cls(
                np.array(document["indices"], dtype=np.int64),
                float(document["imbalance_factor"]),
                int(document["seed"]),
                bool(document["shuffle_classes"]),
                tuple(int(count) for count in document["counts"]),
                str(document["source"]),
                str(document["source_sha256"]),
            )
            expected = document["indices_sha256"]
        except OSError as error:
            raise os_error(error, path) from error
        except (ValueError, KeyError, TypeError, OverflowError):
            raise InputError(
                f"{path}: not a saved draw ({FORMAT}, version {SCHEMA_VERSION}); "
                f"draw again with {opt('imbalance_factor')}"
            ) from None
        if draw.sha256 != expected:
            raise InputError(
                f"{path}: the indices do not match their sha256; the file was changed or damaged, draw again"
            )
        return draw


def hold_out(labels: npt.ArrayLike, fraction: float, seed: int = 0) -> tuple[Integers, Integers]:
    """Split rows into training and validation rows, class by class.

    Parameters
    ----------
    labels
        Class of each row, ``[N]``.
    fraction
        Part of each class that is held out, above 0 and below 1. At least one row of a class is
        held out and at least one stays; a class with a single row keeps it.
    seed
        Chooses the rows.

    Returns
    -------
    train, val
        Ascending rows, int64; together all rows, without overlap.
    """
    if not 0 < fraction < 1:
        raise UsageError(f"the held-out fraction must be above 0 and below 1, not {fraction:g}")
    label = check_labels(labels, None, "labels")
    held = np.zeros(len(label), bool)
    for c in np.unique(label):
        rows = np.flatnonzero(label == c)
        if len(rows) < 2:
            continue
        n = min(max(math.floor(fraction * len(rows) + 0.5), 1), len(rows) - 1)
        held[rows[np.argsort(_keys(seed, int(c), len(rows)), kind="stable")[:n]]] = True
    return np.flatnonzero(~held), np.flatnonzero(held)
