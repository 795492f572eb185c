"""Rows in NumPy files: ``.npy`` and members of ``.npz``. Pickled objects are never loaded."""

from __future__ import annotations

import abc
import math
import zipfile
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ldmlr.boundary import boundary
from ldmlr.errors import InputError, counted
from ldmlr.floats import encode
from ldmlr.store.datasets import number_type
from ldmlr.store.layout import Array, block_rows, two_dimensions
from ldmlr.store.rows import DataFile, MappedRows, Rows

# An array that is read whole and unpacks to more, and to so many times its file, is a trap.
WHOLE_BYTES, MOST_PACKED = 1 << 30, 100
# What is said of rows in files that are no HDF5.
CANNOT_BE_READ = "cannot be read"


class MemoryRows(Rows):
    """Rows of an array in memory.

    Parameters
    ----------
    values
        ``[N, D]``.
    where
        What holds them, for messages.
    bfloat16
        The values were bfloat16 and became float32 because NumPy lacks it.
    """

    def __init__(self, values: Array, where: str, bfloat16: bool = False):
        self.values, self.shape = values, two_dimensions(values.shape, where)
        self.storage = "bfloat16" if bfloat16 else number_type(where, values.dtype)

    def stored(self, start: int, stop: int) -> Array:
        """Return a copy of rows; of bfloat16, the bit patterns."""
        rows = self.values[start:stop]
        return encode(rows, self.storage) if self.storage == "bfloat16" else rows.copy()


class StreamRows(Rows):
    """Rows that can only be read from the first on, such as those of a zip member.

    Reading on is cheap; going back starts again from the first row.

    Parameters
    ----------
    where
        What holds them, for messages.
    shape
        ``(N, D)``.
    storage
        Name of the element type.
    """

    def __init__(self, where: str | Path, shape: tuple[int, int], storage: str):
        self.where, self.shape, self.storage = str(where), shape, storage
        self._blocks: Iterator[Array] = iter(())
        self._first = 0
        self._held: Array | None = None

    @abc.abstractmethod
    def all_blocks(self) -> Iterator[Array]:
        """Yield an empty block of the right type, then all rows from the first."""

    def stored(self, start: int, stop: int) -> Array:
        """Return rows, reading on to them."""
        if self._held is None or start < self._first:
            self._blocks, self._first = self.all_blocks(), 0
            self._held = self._next()
        while self._first + len(self._held) < stop:
            done = min(max(0, start - self._first), len(self._held))
            self._held = np.concatenate([self._held[done:], self._next()])
            self._first += done
        return self._held[start - self._first : stop - self._first].copy()

    def _next(self) -> Array:
        """Return the next block; whatever reading it raises names the file."""
        with boundary(self.where, "file of features", "write it again", CANNOT_BE_READ):
            block = next(self._blocks, None)
        if block is None:
            raise InputError(f"{self.where}: ends before its {counted(self.shape[0], 'row')}; write it again")
        return block


def npz_rows(path: Path, member: str) -> Rows:
    """Return an array of an ``.npz`` file as rows; in Fortran order it is read whole."""
    where = f"{path}: {member}"
    with _reading(where), zipfile.ZipFile(path) as archive, archive.open(f"{member}.npy") as handle:
        shape, fortran, dtype = array_header(handle, where)
        _check_length(where, shape, dtype, archive.getinfo(f"{member}.npy").file_size)
    if fortran and len(shape) > 1:
        return MemoryRows(load_member(path, member), where)
    return NpzRows(path, member, shape, dtype)


class NpzRows(StreamRows):
    """Rows of an array in an ``.npz`` file, decompressed on the way; shape and type are of its header."""

    def __init__(self, path: Path, member: str, shape: tuple[int, ...], dtype: np.dtype[Any]):
        where = f"{path}: {member}"
        super().__init__(where, two_dimensions(shape, where), number_type(where, dtype))
        self.path, self.member, self.element = path, member, dtype

    def all_blocks(self) -> Iterator[Array]:
        """Yield all rows from the first."""
        count, dim = self.shape
        step = block_rows(dim * self.element.itemsize)
        with zipfile.ZipFile(self.path) as archive, archive.open(f"{self.member}.npy") as handle:
            array_header(handle, self.where)
            yield np.empty((0, dim), self.element)
            for start in range(0, count, step):
                rows = min(step, count - start)
                data = handle.read(rows * dim * self.element.itemsize)
                yield np.frombuffer(data, self.element).reshape(rows, dim)


def npy_rows(path: Path) -> Rows:
    """Return the array of an ``.npy`` file as rows on disk."""
    where = str(path)
    file = DataFile.of(path)
    with open(path, "rb") as handle:
        shape, fortran, dtype = array_header(handle, where)
        offset = handle.tell()
    rows = two_dimensions(shape, where)
    if offset + rows[0] * rows[1] * dtype.itemsize > file.size:
        raise InputError(
            f"{path}: is truncated: its size is too small for {counted(rows[0], 'row')}; copy it again"
        )
    if fortran:
        return MemoryRows(load_array(path), where)
    return MappedRows(file, offset, rows, dtype, number_type(where, dtype))


def load_array(path: Path) -> Array:
    """Load a whole ``.npy`` file."""
    with _reading(str(path)):
        with open(path, "rb") as handle:
            shape, _, dtype = array_header(handle, str(path))
            _check_length(str(path), shape, dtype, path.stat().st_size)
        return np.asarray(np.load(path, allow_pickle=False))


def load_member(path: Path, member: str) -> Array:
    """Load a whole array of an ``.npz`` file."""
    where = f"{path}: {member}"
    with _reading(where):
        with zipfile.ZipFile(path) as packed, packed.open(f"{member}.npy") as handle:
            shape, _, dtype = array_header(handle, where)
            length = packed.getinfo(f"{member}.npy").file_size
            _check_length(where, shape, dtype, length)
            if length > WHOLE_BYTES and length > MOST_PACKED * path.stat().st_size:
                raise InputError(
                    f"{where}: unpacks to {length / 1e9:,.0f} GB, {MOST_PACKED} times its file and "
                    "more; save it without compression if that is meant"
                )
        with np.load(path, allow_pickle=False) as archive:
            return np.asarray(archive[member])


def npz_members(path: Path) -> list[str]:
    """Return the names of the arrays in an ``.npz`` file."""
    with _reading(path, "is not an .npz file"), zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if name.endswith(".npy")]
    return [name.removesuffix(".npy") for name in names]


def array_header(handle: BinaryIO | Any, where: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Read the header of an array: shape, whether in Fortran order, type."""
    with _reading(where, "is not a NumPy array file"):
        version = np.lib.format.read_magic(handle)
        if version == (1, 0):
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(handle)
        else:
            shape, fortran, dtype = np.lib.format.read_array_header_2_0(handle)
    if dtype.hasobject:
        raise InputError(f"{where}: holds pickled objects, which are never loaded; save plain numbers")
    return shape, fortran, dtype


def _check_length(where: str, shape: tuple[int, ...], dtype: np.dtype[Any], length: int) -> None:
    """Refuse an array that is longer than what holds it, before memory is asked for."""
    if any(size < 0 for size in shape) or math.prod(shape) * dtype.itemsize > length:
        raise InputError(f"{where}: its shape {shape} needs more bytes than there are; write the file again")


def _reading(where: str | Path, fault: str = CANNOT_BE_READ) -> AbstractContextManager[None]:
    """Return the boundary to what NumPy and zip files raise."""
    return boundary(where, "NumPy file", "write it again", fault)
