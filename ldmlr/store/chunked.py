"""Rows of chunked or compressed datasets, which only the HDF5 library can read."""

from __future__ import annotations

from typing import Any

import numpy as np

from ldmlr.store.layout import Array
from ldmlr.store.opening import damaged, open_hdf5
from ldmlr.store.rows import DataFile, Rows


class ChunkedRows(Rows):
    """Rows of a dataset that can be read only through h5py."""

    def __init__(
        self,
        file: DataFile,
        dataset: str,
        view: int | None,
        shape: tuple[int, int],
        storage: str,
        chunk: int = 1,
    ):
        self.file, self.dataset, self.view, self.shape, self.storage = file, dataset, view, shape, storage
        self.chunk = chunk

    def stored(self, start: int, stop: int) -> Array:
        """Return rows through a handle of this call's own."""
        key = slice(start, stop)
        return read_dataset(self.file, self.dataset, key if self.view is None else (self.view, key))

    def block_step(self) -> int:
        """Return the rows of a block: whole chunks, so that none is decompressed twice."""
        return -(-super().block_step() // self.chunk) * self.chunk


class Loader:
    """A compressed dataset that is read once, when it is first asked for."""

    def __init__(self, file: DataFile, dataset: str, storage: str):
        self.file, self.dataset, self.storage = file, dataset, storage
        self._values: Array | None = None

    @property
    def in_final_form(self) -> bool:
        """Whether the elements are floating-point numbers as they are read (bfloat16 is not)."""
        return self.storage != "bfloat16"

    def values(self) -> Array:
        """Return all elements: float16 or float32, or uint16 for bfloat16."""
        if self._values is None:
            values = read_dataset(self.file, self.dataset, ...)
            if self.storage not in ("float16", "bfloat16"):
                with np.errstate(over="ignore"):
                    values = values.astype(np.float32, copy=False)
            # All who ask share it; a change would be seen by the others, and not by the file.
            values.flags.writeable = False
            self._values = values
        return self._values

    def __getstate__(self) -> dict[str, Any]:
        """Leave the elements behind: the other process reads its own."""
        return {**self.__dict__, "_values": None}


class LoadedRows(Rows):
    """Rows of a compressed dataset that fits into memory."""

    def __init__(self, loader: Loader, rows: ChunkedRows):
        self.loader, self.view, self.shape = loader, rows.view, rows.shape
        self.storage = rows.storage if rows.storage in ("float16", "bfloat16") else "float32"

    def values(self) -> Array:
        """Return all rows as they are kept."""
        values = self.loader.values()
        return values if self.view is None else np.asarray(values[self.view])

    def stored(self, start: int, stop: int) -> Array:
        """Return a copy of rows."""
        return self.values()[start:stop].copy()

    def gather(self, index: Array) -> Array:
        """Return rows by number."""
        return np.asarray(self.values()[index])


def read_dataset(file: DataFile, dataset: str, key: Any) -> Array:
    """Read a part of a dataset; the file must be the one that was opened."""
    file.check()
    with open_hdf5(file.path, file.place) as handle:
        try:
            return np.asarray(handle[dataset][key])
        except (OSError, RuntimeError, KeyError, ValueError) as error:
            raise damaged(file.path, error) from error
