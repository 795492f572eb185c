"""Rows of an object elsewhere by their numbers: neighbours in one request, requests side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ldmlr.objects import read_ranges
from ldmlr.store.layout import Array, Int64

# Rows so many bytes apart are asked for one by one: those between cost less than another request.
GAP_BYTES = 1 << 16
# So many bytes, in so many requests, are asked for at once, and in memory beside the result.
GROUP_BYTES, GROUP_RUNS = 32 << 20, 64


def fetch_rows(url: str, offset: int, columns: int, element: np.dtype[Any], index: Int64) -> Array:
    """Return rows ``[n, columns]`` of an array at an offset of an object, as they are kept.

    Parameters
    ----------
    url
        The object.
    offset
        Where the first row begins, in bytes.
    columns, element
        Numbers of a row, and their type.
    index
        Numbers of rows ``[n]``, not negative, in any order.

    Raises
    ------
    FileNotFoundError
        There is no such object.
    """
    result = np.empty((len(index), columns), element)
    width = columns * element.itemsize
    order = np.argsort(index, kind="stable")
    ordered = index[order]
    apart = np.flatnonzero(np.diff(ordered) * width > GAP_BYTES) + 1
    near = np.split(np.arange(len(order)), apart) if len(index) else []
    for group in _groups(near, ordered, width):
        runs = [(int(ordered[places[0]]), int(ordered[places[-1]]) + 1) for places in group]
        pieces = read_ranges(url, [(offset + low * width, offset + high * width) for low, high in runs])
        for places, (low, _), piece in zip(group, runs, pieces, strict=True):
            rows = np.frombuffer(piece, element).reshape(-1, columns)
            result[order[places]] = rows[ordered[places] - low]
    return result


def _groups(runs: Sequence[Int64], ordered: Int64, width: int) -> Iterator[list[Int64]]:
    """Yield runs of rows (their places in `ordered`) in groups that are fetched together."""
    group: list[Int64] = []
    size = 0
    for places in runs:
        group.append(places)
        size += (int(ordered[places[-1]]) + 1 - int(ordered[places[0]])) * width
        if size >= GROUP_BYTES or len(group) >= GROUP_RUNS:
            yield group
            group, size = [], 0
    if group:
        yield group
