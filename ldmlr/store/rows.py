"""Rows on disk: arrays that are read only where they are asked for.

Kinds of rows share one interface: rows at a known offset of a file (read with plain file reads,
or memory-mapped), rows of a chunked or compressed dataset (`ldmlr.store.datasets`), and several of
them joined end to end (`ldmlr.store.joined`). No handle and no HDF5 lock stays open between reads:
every read opens the file, so that objects may cross a fork, a thread or a pickle, and no file is ever
read after it was replaced.
"""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import errno
import math
import mmap
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ldmlr.errors import InputError, counted
from ldmlr.files import no_maps, os_error
from ldmlr.floats import from_bfloat16
from ldmlr.objects import Info
from ldmlr.remote import as_path, is_remote
from ldmlr.store.fetching import fetch_rows
from ldmlr.store.layout import Array, Float32, block_rows
from ldmlr.streamed import Streamed

Key = Any  # int, slice, index array, boolean mask, or a tuple that selects columns too


@dataclasses.dataclass(frozen=True)
class DataFile:
    """A file as it was when the store was opened.

    Size, time of change and number (inode), or what an object store calls the version, are compared at every
    read: a file that was replaced in the meantime is an error, not a mixture of two contents. It is read at
    its absolute `place`, whatever becomes of the working folder; messages name it by the `path` that was
    given.
    """

    path: Path
    place: Path
    size: int
    mtime_ns: int
    inode: int
    version: str = ""

    @classmethod
    def of(cls, path: Path, place: Path | None = None) -> DataFile:
        """Note the state of a file (at `place`, if that is not where `path` leads from here)."""
        place = as_path(place or path).absolute()
        if is_remote(place):
            found = place.found()
            return cls(as_path(path), place, found.size, 0, 0, found.version)
        state = os.stat(place)
        return cls(as_path(path), place, state.st_size, state.st_mtime_ns, state.st_ino)

    @property
    def is_mappable(self) -> bool:
        """Whether it is a file of this machine, which a memory map can be had of."""
        return not is_remote(self.place)

    @property
    def mark(self) -> tuple[str, int, int, int, str]:
        """What tells this file, as it is, from all others."""
        return str(self.place), self.size, self.mtime_ns, self.inode, self.version

    def check(self, state: os.stat_result | None = None) -> None:
        """Raise if the file (as in `state`, or as it is now) is not the one that was opened."""
        try:
            if is_remote(self.place):
                found = self.place.found()
                same = (found.size, found.version) == (self.size, self.version)
            else:
                state = state or os.stat(self.place)
                now = state.st_size, state.st_mtime_ns, state.st_ino
                same = now == (self.size, self.mtime_ns, self.inode)
        except OSError as error:
            raise InputError(str(os_error(error, self.path))) from error
        if not same:
            raise InputError(f"{self.path}: changed after it was opened; open the store again")

    @contextlib.contextmanager
    def opened(self) -> Iterator[BinaryIO]:
        """Open the file for reading, unbuffered."""
        try:
            if is_remote(self.place):
                self.check()
                with Streamed(str(self.place), Info(self.size, self.version, False)) as source:
                    yield source  # type: ignore[misc]
                return
            with open(self.place, "rb", buffering=0) as handle:
                self.check(os.fstat(handle.fileno()))
                yield handle
        except OSError as error:
            raise InputError(str(os_error(error, self.path))) from error

    def read(self, offset: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """Read an array at an offset into fresh memory."""
        values = np.empty(shape, dtype)
        with self.opened() as handle:
            if not _fill(handle, offset, values):
                raise InputError(f"{self.path}: ends too early; copy the file again")
        return values

    def map(self, offset: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """Memory-map an array at an offset, read-only."""
        if 0 in shape:
            return np.empty(shape, dtype)
        with self.opened() as handle:
            return np.memmap(handle, dtype=dtype, mode="r", offset=offset, shape=shape)

    def private_map(self, offset: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """Memory-map an array for a caller: read-only in NumPy, and never fatal.

        A tensor that shares the memory knows nothing of read-only, and writing into pages that are ends the
        process. Here it changes a private copy of the page, which neither the file nor another map sees.
        """
        if 0 in shape:
            return np.empty(shape, dtype)
        start = offset - offset % mmap.ALLOCATIONGRANULARITY
        length = offset - start + math.prod(shape) * dtype.itemsize
        try:
            with self.opened() as handle:
                # Without a reserve, as hardly a page is ever written: the rows may exceed the memory.
                pages = mmap.mmap(
                    handle.fileno(), length, mmap.MAP_PRIVATE | getattr(mmap, "MAP_NORESERVE", 0),
                    mmap.PROT_READ | mmap.PROT_WRITE, offset=start,
                )  # fmt: skip
        except InputError as error:
            if no_maps(error.__cause__, self.path):
                values = self.read(offset, shape, dtype)
                values.flags.writeable = False
                return values
            if not _no_memory(error):
                raise
            return self.map(offset, shape, dtype)
        mapped: np.memmap[Any, Any] = np.ndarray.__new__(
            np.memmap, shape, dtype, buffer=pages, offset=offset - start
        )
        mapped.flags.writeable = False
        mapped.filename, mapped.mode, mapped.offset = str(self.place), "c", offset
        return mapped


def _no_memory(error: InputError) -> bool:
    """Tell whether an error is that a map does not fit."""
    return isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.ENOMEM


def _fill(handle: BinaryIO, offset: int, values: Array) -> bool:
    """Read values at an offset; return False where the file ends before them."""
    view = values.reshape(-1).view(np.uint8).data
    handle.seek(offset)
    while len(view):
        count = handle.readinto(view)  # type: ignore[attr-defined]
        if not count:
            return False
        view = view[count:]
    return True


class Rows(abc.ABC):
    """An ``[N, D]`` array on disk. Indexing reads the rows asked for.

    Attributes
    ----------
    shape
        ``(N, D)``.
    storage
        Name of the element type in the file: ``float32``, ``bfloat16`` and so on.
    """

    shape: tuple[int, int]
    storage: str
    ndim = 2

    @abc.abstractmethod
    def stored(self, start: int, stop: int) -> Array:
        """Return rows ``start .. stop`` as they are kept in the file, in fresh memory."""

    def gather(self, index: Array) -> Array:
        """Return rows by number (not negative), as they are kept in the file."""
        result = np.empty((len(index), self.shape[1]), self.stored(0, 0).dtype)
        order = np.argsort(index, kind="stable")
        # Neighbours in the file are read together: one read per run of consecutive rows.
        breaks = np.flatnonzero(np.diff(index[order]) > 1) + 1
        for places in np.split(order, breaks) if len(index) else []:
            low, high = int(index[places[0]]), int(index[places[-1]]) + 1
            result[places] = self.stored(low, high)[index[places] - low]
        return result

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the elements that reading returns: float16 where stored so, else float32."""
        return np.dtype(np.float16 if self.storage == "float16" else np.float32)

    def decode(self, stored: Array) -> Array:
        """Return stored elements as float16 or float32."""
        if self.storage == "bfloat16":
            return from_bfloat16(stored)
        with np.errstate(over="ignore"):
            return stored.astype(self.dtype, copy=False)

    def float32(self, key: Key = None) -> Float32:
        """Return rows as float32 in fresh memory.

        Parameters
        ----------
        key
            A slice, an index array, a boolean mask, or None for all rows.
        """
        values = self.take(slice(None) if key is None else key)
        return np.ascontiguousarray(values, dtype=np.float32)

    def take(self, key: Key) -> Array:
        """Return rows by slice, index array or boolean mask."""
        count = self.shape[0]
        if isinstance(key, slice):
            start, stop, step = key.indices(count)
            if step == 1:
                return self.decode(self.stored(start, max(start, stop)))
            key = np.arange(start, stop, step)
        index = np.asarray(key)
        if index.dtype == bool:
            if index.shape != (count,):
                raise IndexError(f"boolean index of shape {index.shape} for {counted(count, 'row')}")
            index = np.flatnonzero(index)
        if index.size == 0:
            index = index.astype(np.int64)
        if index.dtype.kind not in "iu" or index.ndim != 1:
            raise IndexError("rows are selected by a slice, whole numbers or a boolean mask")
        index = index.astype(np.int64)
        outside = index[(index < -count) | (index >= count)]
        if outside.size:
            raise IndexError(f"row {outside[0]} is out of range for {counted(count, 'row')}")
        return self.decode(self.gather(np.where(index < 0, index + count, index)))

    def __len__(self) -> int:
        """Return the number of rows."""
        return self.shape[0]

    def __getitem__(self, key: Key) -> Any:
        """Return rows (and columns) as NumPy would."""
        columns: tuple[Any, ...] = ()
        if isinstance(key, tuple):
            key, columns = (key[0], key[1:]) if key else (slice(None), ())
        if key is Ellipsis:
            key = slice(None)
        if isinstance(key, int | np.integer):
            values = self.take(np.array([key]))[0]
            return values[columns] if columns else values
        if isinstance(key, slice):
            values = self.take(key)
            return values[(slice(None), *columns)] if columns else values
        index = np.asarray(key)
        if index.ndim == 1:
            values = self.take(index)
            return values[(np.arange(len(values)), *columns)] if columns else values
        if index.dtype.kind not in "iu":
            raise IndexError("rows are selected by a slice, whole numbers or a boolean mask")
        # Several axes of row numbers, as of np.ix_: they meet those of the columns.
        return self.take(index.ravel())[(np.arange(index.size).reshape(index.shape), *columns)]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        """Return all rows in memory."""
        values = self.take(slice(None))
        return values if dtype is None else values.astype(dtype, copy=False)

    def block_step(self) -> int:
        """Return how many rows are read at a time."""
        return block_rows(4 * self.shape[1])

    def blocks(self) -> Iterator[tuple[int, Float32]]:
        """Yield ``(first row, float32 block)`` over all rows, a few megabytes at a time."""
        step = self.block_step()
        for start in range(0, self.shape[0], step):
            yield start, self.float32(slice(start, start + step))


class MappedRows(Rows):
    """Rows at an offset of a file."""

    def __init__(
        self, file: DataFile, offset: int, shape: tuple[int, int], dtype: np.dtype[Any], storage: str
    ):
        self.file, self.offset, self.shape, self.storage = file, offset, shape, storage
        self.element = dtype
        self._map: Array | None = None

    def stored(self, start: int, stop: int) -> Array:
        """Return rows by plain file reads: no pages stay mapped, whatever the size."""
        width = self.shape[1]
        begin = self.offset + start * width * self.element.itemsize
        return self.file.read(begin, (stop - start, width), self.element)

    def memmap(self) -> Array:
        """Return the rows as they are stored, memory-mapped."""
        if self._map is None:
            self._map = self.file.map(self.offset, self.shape, self.element)
        return self._map

    def handed_out(self) -> Array:
        """Return the rows as they are stored, memory-mapped for a caller; see `DataFile.private_map`."""
        return self.file.private_map(self.offset, self.shape, self.element)

    def gather(self, index: Array) -> Array:
        """Return rows through the memory map, or by reads where the map does not fit or cannot be had."""
        if is_remote(self.file.place):
            self.file.check()
            try:
                return fetch_rows(str(self.file.place), self.offset, self.shape[1], self.element, index)
            except OSError as error:
                raise InputError(str(os_error(error, self.file.path))) from error
        try:
            mapped = self.memmap()
        except InputError as error:
            if _no_memory(error) or no_maps(error.__cause__, self.file.path):
                return super().gather(index)
            raise
        return np.asarray(mapped[index])

    def __getstate__(self) -> dict[str, Any]:
        """Leave the memory map behind: the other process makes its own."""
        return {**self.__dict__, "_map": None}
