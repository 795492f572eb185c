"""Training rows as the model takes them: checked once, at the boundary."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ldmlr.arguments import as_array, view_group
from ldmlr.diffusion.statistics import CHUNK, Block, Labels, parts
from ldmlr.errors import InputError, counted

if TYPE_CHECKING:
    from ldmlr.store import FeatureStore

FLOAT32_MAX = np.float64(np.finfo(np.float32).max)


def check_features(values: Any, what: str = "features") -> npt.NDArray[Any]:
    """Return finite features ``[N, D]``; float16 and float64 stay as they are until a batch needs them.

    Raises
    ------
    InputError
        Another number of dimensions, no rows, no numbers, NaN or infinity.
    """
    array = as_array(values)
    if array.ndim != 2 or 0 in array.shape:
        raise InputError(f"{what}: expected rows and columns [N, D], not shape {list(array.shape)}")
    if not (np.issubdtype(array.dtype, np.floating) or np.issubdtype(array.dtype, np.integer)):
        raise InputError(f"{what}: expected numbers, not {array.dtype}")
    for part in parts(*array.shape):
        # What float32 cannot hold (a NaN compares false as well) would be infinite in the first batch.
        wrong = np.argwhere(~(np.abs(array[part]) <= FLOAT32_MAX))
        if len(wrong):
            row, column = part.start + wrong[0, 0], wrong[0, 1]
            raise InputError(
                f"{what}: row {row}, column {column} is {array[row, column]}, expected a "
                "finite float32; remove or repair such rows"
            )
    return array


def check_labels(values: Any, rows: int, num_classes: int | None = None, what: str = "labels") -> Labels:
    """Return labels ``[N]`` int64 in 0 .. C - 1.

    Raises
    ------
    InputError
        Wrong shape, wrong number, not whole numbers, or out of range.
    """
    array = as_array(values)
    if array.ndim != 1 or len(array) != rows:
        raise InputError(f"{what}: expected {rows}, one per row, not shape {list(array.shape)}")
    if not np.issubdtype(array.dtype, np.integer):
        raise InputError(f"{what}: expected whole numbers 0 .. C - 1, not {array.dtype}")
    low, high = int(array.min()), int(array.max())
    if low < 0 or (num_classes is not None and high >= num_classes):
        limit = f"0 .. {num_classes - 1}" if num_classes is not None else "0 and up"
        raise InputError(f"{what}: found {low if low < 0 else high}, expected {limit}; renumber the classes")
    return np.ascontiguousarray(array, np.int64)


def blocks(features: npt.NDArray[Any], labels: Labels, views: Any) -> list[Block]:
    """Return the clean rows and each view of them as (features, labels) pairs."""
    found: list[Block] = [(features, labels)]
    for number, view in enumerate(() if views is None else views):
        rows = check_features(view, f"views[{number}]")
        if rows.shape != features.shape:
            raise InputError(
                f"views[{number}]: expected shape {list(features.shape)} like the features, "
                f"not {list(rows.shape)}"
            )
        found.append((rows, labels))
    return found


def rows_per_class(labels: Labels, classes: int, counts: Any = None) -> Labels:
    """Return the clean training rows per class ``[C]``: those counted, or those given; 0 where there is none.

    Raises
    ------
    InputError
        Numbers were given that are not one per class, or 0 for a class that has rows.
    """
    present = np.bincount(labels, minlength=classes)
    given = present if counts is None else np.asarray(counts, np.int64)
    if given.shape != (classes,) or (given[present > 0] < 1).any():
        raise InputError(
            f"counts: expected {counted(classes, 'number')}, at least 1 for each class with rows"
        )
    return np.where(present > 0, given, 0)


def digest(blocks: list[Block]) -> str:
    """Return a hash of the training rows, so that a checkpoint is not continued on other data."""
    found = hashlib.sha256()
    for features, labels in blocks:
        for start in range(0, len(features), CHUNK):
            found.update(np.ascontiguousarray(features[start : start + CHUNK]).tobytes())
        found.update(labels.tobytes())
    return found.hexdigest()


def choose_views(kinds: Sequence[str], weak: int, strong: int) -> list[int]:
    """Return the numbers of the views to train on: the first `weak` and the first `strong` ones.

    A view whose kind is neither (or not named) counts as weak.
    """
    limits = {"weak": weak, "strong": strong}
    chosen = []
    for number, kind in enumerate(kinds):
        group = view_group(kind)
        if limits[group] > 0:
            limits[group] -= 1
            chosen.append(number)
    return chosen


def store_rows(store: FeatureStore, weak: int, strong: int) -> tuple[Any, Labels, list[Any]]:
    """Return a store's encoded training rows: features, labels and the views to train on.

    Rows stay memory-mapped where the file allows it. Generated rows are left out.
    """
    split = store.split("train")
    encoded = None if split.source is None or not split.source.any() else np.flatnonzero(split.source == 0)

    def rows(whole: Any, view: int | None = None) -> Any:
        if encoded is None and isinstance(whole, np.ndarray):
            return whole
        return split.float32(encoded, view=view)

    labels = split.labels if encoded is None else split.labels[encoded]
    if split.views is None:
        return rows(split.features), labels, []
    kinds = split.view_kinds or ("weak",) * len(split.views)
    views = [rows(split.views[i], i) for i in choose_views(kinds, weak, strong)]
    return rows(split.features), labels, views
