"""Rows put together: those of shards end to end, and a split's rows under several augmentations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ldmlr.store.layout import Array
from ldmlr.store.rows import Key, Rows


class JoinedRows(Rows):
    """Several row arrays end to end, such as those of shards."""

    def __init__(self, parts: Sequence[Rows]):
        self.parts = tuple(parts)
        self.starts = np.concatenate([[0], np.cumsum([len(part) for part in parts])]).astype(np.int64)
        self.shape = (int(self.starts[-1]), parts[0].shape[1])
        storages = {part.storage for part in parts}
        self.storage = storages.pop() if len(storages) == 1 else "float32"

    def stored(self, start: int, stop: int) -> Array:
        """Return rows across the parts (float32 where their types differ)."""
        pieces = []
        for part, first in zip(self.parts, self.starts[:-1].tolist(), strict=True):
            low, high = max(start - first, 0), min(stop - first, len(part))
            if low < high:
                pieces.append(self._same(part, part.stored(low, high)))
        if len(pieces) == 1:
            return pieces[0]
        return np.concatenate(pieces) if pieces else self._same(self.parts[0], self.parts[0].stored(0, 0))

    def gather(self, index: Array) -> Array:
        """Return rows by number, part by part."""
        empty = self.stored(0, 0)
        result = np.empty((len(index), self.shape[1]), empty.dtype)
        owner = np.searchsorted(self.starts, index, side="right") - 1
        for number in np.unique(owner).tolist():
            places = np.flatnonzero(owner == number)
            part = self.parts[number]
            result[places] = self._same(part, part.gather(index[places] - self.starts[number]))
        return result

    def _same(self, part: Rows, stored: Array) -> Array:
        if part.storage == self.storage:
            return stored
        return part.decode(stored).astype(np.float32)


class Views:
    """The rows of a split under K augmentations, ``[K, N, D]``, read where asked for.

    Parameters
    ----------
    parts
        The rows of each view.
    array
        Returns all of them, where they are in memory anyway.
    """

    ndim = 3

    def __init__(self, parts: Sequence[Rows], array: Callable[[], Array] | None = None):
        self.parts = tuple(parts)
        self.array = array
        self.shape = (len(self.parts), *self.parts[0].shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the elements that reading returns."""
        return self.parts[0].dtype

    def __len__(self) -> int:
        """Return the number of views."""
        return len(self.parts)

    def __getitem__(self, key: Key) -> Any:
        """Return one view (its rows, still on disk), or ``views[k, rows]`` in memory."""
        if isinstance(key, int | np.integer):
            return self.parts[key]
        if isinstance(key, tuple) and key and isinstance(key[0], int | np.integer):
            return self.parts[key[0]][key[1:]]
        return np.asarray(self)[key]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        """Return all views in memory."""
        values = np.stack([np.asarray(part) for part in self.parts])
        return values if dtype is None else values.astype(dtype, copy=False)
