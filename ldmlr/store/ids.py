"""Ids of rows on disk: whole numbers or texts, read where asked for."""

from __future__ import annotations

import abc
from collections.abc import Sequence

import numpy as np

from ldmlr.arguments import beyond_int64
from ldmlr.errors import InputError
from ldmlr.store.datasets import read_dataset
from ldmlr.store.layout import Array
from ldmlr.store.rows import DataFile


def check_whole(ids: Array, where: str) -> None:
    """Refuse ids beyond int64, such as hashes of 64 bits: they would turn negative."""
    row = beyond_int64(ids)
    if row is not None:
        raise InputError(f"{where}: {ids[row]} is beyond 2^63 - 1; save such ids as texts")


class Ids(abc.ABC):
    """One id per row.

    Attributes
    ----------
    is_text
        Whether the ids are texts.
    """

    is_text: bool

    @abc.abstractmethod
    def __len__(self) -> int:
        """Return the number of rows."""

    @abc.abstractmethod
    def read(self, start: int, stop: int) -> Array:
        """Return the ids of rows ``start .. stop``: int64, or texts as an object array."""


class StoredIds(Ids):
    """Ids in a dataset."""

    def __init__(self, file: DataFile, dataset: str, count: int, is_text: bool):
        self.file, self.dataset, self.count, self.is_text = file, dataset, count, is_text

    def __len__(self) -> int:
        """Return the number of rows."""
        return self.count

    def read(self, start: int, stop: int) -> Array:
        """Return some ids."""
        return as_ids(
            read_dataset(self.file, self.dataset, slice(start, stop)), f"{self.file.path}: {self.dataset}"
        )


class JoinedIds(Ids):
    """Ids of several splits end to end; all become texts where one has texts."""

    def __init__(self, parts: Sequence[Ids]):
        self.parts = tuple(parts)
        self.is_text = any(part.is_text for part in parts)

    def __len__(self) -> int:
        """Return the number of rows."""
        return sum(len(part) for part in self.parts)

    def read(self, start: int, stop: int) -> Array:
        """Return some ids."""
        pieces, first = [], 0
        for part in self.parts:
            low, high = max(start - first, 0), min(stop - first, len(part))
            if low < high:
                piece = part.read(low, high)
                pieces.append(as_ids(piece.astype(str)) if self.is_text and not part.is_text else piece)
            first += len(part)
        if not pieces:
            return np.empty(0, dtype=object if self.is_text else np.int64)
        return np.concatenate(pieces)


def as_ids(values: Array, where: str = "ids") -> Array:
    """Return ids as int64, or as texts in an object array.

    Parameters
    ----------
    values
        ``[N]``, whole numbers or texts.
    where
        What holds them, for messages.

    Raises
    ------
    InputError
        A number is beyond int64.
    """
    if values.dtype.kind in "iu":
        check_whole(values, where)
        return values.astype(np.int64, copy=False)
    result = np.empty(len(values), dtype=object)
    result[:] = [v.decode("utf-8", "replace") if isinstance(v, bytes) else str(v) for v in values]
    return result
