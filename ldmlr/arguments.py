"""What a caller may pass for rows, labels, seeds and types, as plain NumPy and Python values."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from ldmlr.errors import InputError, UsageError, counted, opt

T = TypeVar("T")
SEED_LIMIT = 2**64
# Rows of a call, or of a plan: their numbers and offsets stay far from overflow.
MAX_ROWS = 2**40
# More classes than rows and than this are no numbering 0 .. C-1: the labels are ids, hashes or codes, and
# tables of C entries would use the memory up. Small test sets of many classes stay far below.
MOST_UNSEEN = 100_000

RENUMBER = "number the classes 0 .. C-1, as np.unique(labels, return_inverse=True) or `ldmlr store import` do"


def as_array(values: Any) -> npt.NDArray[Any]:
    """Return a NumPy array of an array, a tensor on any device or a nested list.

    Tensors lose their gradient; those of floating point become float32.

    Raises
    ------
    InputError
        It is a masked array with masked entries, whose numbers mean nothing.
    """
    if np.ma.isMaskedArray(values) and np.ma.getmaskarray(values).any():
        first = tuple(np.argwhere(np.ma.getmaskarray(values))[0].tolist())
        raise InputError(f"an entry is masked, the first at {list(first)}; fill it, or leave out such rows")
    if hasattr(values, "detach"):
        values = values.detach().cpu().float() if values.is_floating_point() else values.detach().cpu()
        return np.asarray(values.numpy())
    return np.asarray(values)


def class_count(labels: Iterable[tuple[str, npt.NDArray[Any]]], remedy: str = RENUMBER) -> int:
    """Return the number of classes that the largest label stands for, at least 1.

    Parameters
    ----------
    labels
        Whole numbers ``[N]`` of each split, after what messages call them.
    remedy
        What to do about labels that are no numbering of classes.

    Raises
    ------
    InputError
        There are far more classes than rows.
    """
    found = [(where, values) for where, values in labels if len(values)]
    where, values = max(found, key=lambda entry: int(entry[1].max()), default=("", np.zeros(1, np.int64)))
    rows, classes = sum(len(values) for _, values in found), 1 + max(int(values.max()), 0)
    if classes > max(rows, MOST_UNSEEN):
        raise InputError(
            f"{where}: label {values.max()} in row {int(values.argmax())} stands for "
            f"{counted(classes, 'class')}, but there are {counted(rows, 'row')}; {remedy}"
        )
    return classes


def check_seed(seed: Any) -> int:
    """Return a seed as an int.

    Raises
    ------
    UsageError
        It is no whole number, or not in 0 .. 2^64 - 1.
    """
    number = whole_number(seed)
    if number is None or not 0 <= number < SEED_LIMIT:
        raise UsageError(f"{opt('seed')}: must be a whole number, at least 0 and below 2^64, not {seed!r}")
    return number


def check_first_row(first_row: Any, rows: int) -> int:
    """Return the global number of the first of `rows` rows as an int; `UsageError` where it has none."""
    number = whole_number(first_row)
    if number is None or not 0 <= number <= SEED_LIMIT - rows:
        raise UsageError(f"first_row: must be a whole number, at least 0 and below 2^64, not {first_row!r}")
    return number


def beyond_int64(values: npt.NDArray[Any]) -> int | None:
    """Return the first row of whole numbers ``[N]`` that int64 cannot hold, or None."""
    if values.dtype.kind != "u" or values.dtype.itemsize < 8 or not len(values):
        return None
    row = int((values >= 2**63).argmax())
    return row if values[row] >= 2**63 else None


def check_labels(labels: Any, num_classes: int) -> npt.NDArray[np.int64]:
    """Return the labels of rows to draw as an int64 array ``[N]``; the error names the first wrong one.

    Parameters
    ----------
    labels
        Classes: an array, a tensor or a list.
    num_classes
        Classes C of the model.

    Raises
    ------
    UsageError
        They are no whole numbers in one dimension, or outside 0 .. C - 1.
    """
    array = as_array(labels)
    if array.ndim != 1:
        raise UsageError(f"labels: expected one dimension, not shape {list(array.shape)}")
    if array.size and not np.issubdtype(array.dtype, np.integer):
        raise UsageError(f"labels: expected whole numbers, not {array.dtype}")
    wrong = np.flatnonzero((array < 0) | (array >= num_classes))
    if len(wrong):
        raise UsageError(
            f"labels: row {wrong[0]} is {array[wrong[0]]}, outside 0 .. {num_classes - 1} of this model"
        )
    return np.ascontiguousarray(array, np.int64)


def type_name(dtype: Any) -> str:
    """Return the name of a type given as a name, a NumPy type or a torch type: ``float32`` of all three."""
    if isinstance(dtype, str):
        return dtype
    try:
        return str(np.dtype(dtype).name)
    except TypeError:
        return str(dtype).removeprefix("torch.")


def whole_number(value: Any) -> int | None:
    """Return a whole number of any type as an int; None for anything else, truth values included."""
    if isinstance(value, bool | np.bool_):
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None


def view_group(kind: str) -> str:
    """Return what augmented views of a kind count as: strong where its name says so, else weak."""
    return "strong" if "strong" in kind else "weak"


def strong_views(views: Sequence[T], kinds: Sequence[str]) -> list[T]:
    """Return the views that stand for rows that an encoder has not seen: strong ones, all if none is strong.

    Parameters
    ----------
    views, kinds
        Augmented views, or their numbers, and the kind of each.
    """
    strong = [view for view, kind in zip(views, kinds, strict=True) if view_group(kind) == "strong"]
    return strong or list(views)
