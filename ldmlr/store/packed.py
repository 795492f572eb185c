"""Rows that a file keeps packed or turned: NetCDF's scale and fill value, MATLAB's transposed matrices.

NetCDF keeps numbers as ``value * scale_factor + add_offset``, and marks missing ones by ``_FillValue`` or
``missing_value``; a missing number is NaN here, and so refused like any other. MATLAB writes matrices column
by column, so that HDF5 shows them transposed; they are read whole to be turned.
"""

from __future__ import annotations

from typing import Any

import h5py
import numpy as np

from ldmlr.store.datasets import read_dataset, rows_of, storage_name
from ldmlr.store.layout import Array, two_dimensions
from ldmlr.store.rows import DataFile, Rows

PACKING = ("scale_factor", "add_offset", "_FillValue", "missing_value")


class PackedRows(Rows):
    """Rows ``value * scale + offset`` of others, with NaN where the value stands for a missing one.

    Parameters
    ----------
    base
        The rows as they are kept.
    scale, offset
        NetCDF's ``scale_factor`` and ``add_offset``.
    missing
        Values that stand for a missing one.
    """

    def __init__(self, base: Rows, scale: float, offset: float, missing: tuple[float, ...]) -> None:
        self.base, self.scale, self.offset, self.missing = base, scale, offset, missing
        self.shape, self.storage = base.shape, "float32"

    def stored(self, start: int, stop: int) -> Array:
        """Return rows ``start .. stop``, unpacked."""
        return self._unpacked(self.base.stored(start, stop))

    def gather(self, index: Array) -> Array:
        """Return rows by number, unpacked."""
        return self._unpacked(self.base.gather(index))

    def _unpacked(self, kept: Array) -> Array:
        values = kept.astype(np.float64) * self.scale + self.offset
        for value in self.missing:
            values[kept == value] = np.nan
        with np.errstate(over="ignore"):
            return values.astype(np.float32)


class TurnedRows(Rows):
    """Rows of a matrix that the file shows transposed ``[D, N]``; read whole when first asked for."""

    def __init__(self, file: DataFile, dataset: h5py.Dataset) -> None:
        self.file, self.dataset = file, dataset.name
        self.storage = storage_name(f"{file.path}: {dataset.name}", dataset)
        self.shape = (int(dataset.shape[1]), int(dataset.shape[0]))
        self._values: Array | None = None

    def _whole(self) -> Array:
        if self._values is None:
            self._values = np.ascontiguousarray(read_dataset(self.file, self.dataset, ...).T)
        return self._values

    def stored(self, start: int, stop: int) -> Array:
        """Return a copy of rows ``start .. stop``."""
        return self._whole()[start:stop].copy()

    def gather(self, index: Array) -> Array:
        """Return rows by number."""
        return np.asarray(self._whole()[index])

    def __getstate__(self) -> dict[str, Any]:
        """Leave the rows behind: the other process reads its own."""
        return {**self.__dict__, "_values": None}


def is_turned(dataset: h5py.Dataset) -> bool:
    """Tell whether a matrix was written by MATLAB, and so is transposed."""
    return "MATLAB_class" in dataset.attrs and dataset.ndim == 2


def feature_rows(file: DataFile, dataset: h5py.Dataset) -> Rows:
    """Return a dataset of features ``[N, D]`` as rows, as its attributes say they are meant.

    Raises
    ------
    InputError
        It has other dimensions, or holds no numbers.
    """
    two_dimensions(dataset.shape, f"{file.path}: {dataset.name}")
    return _unpacked(TurnedRows(file, dataset) if is_turned(dataset) else rows_of(file, dataset), dataset)


def _unpacked(rows: Rows, dataset: h5py.Dataset) -> Rows:
    found = {name: _number(dataset.attrs[name]) for name in PACKING if name in dataset.attrs}
    numbers = {name: value for name, value in found.items() if value is not None}
    missing = tuple(
        numbers[name] for name in ("_FillValue", "missing_value")
        if name in numbers and not np.isnan(numbers[name])
    )  # fmt: skip
    scale, offset = numbers.get("scale_factor", 1.0), numbers.get("add_offset", 0.0)
    if (scale, offset) == (1.0, 0.0) and not missing:
        return rows
    return PackedRows(rows, scale, offset, missing)


def missing_labels(values: Array, dataset: h5py.Dataset) -> Array:
    """Return which labels ``[N]`` are NetCDF's missing value."""
    bad = np.zeros(values.shape, np.bool_)
    for name in ("_FillValue", "missing_value"):
        value = _number(dataset.attrs[name]) if name in dataset.attrs else None
        if value is not None and values.dtype.kind in "iuf":
            bad |= values == value
    return bad


def _number(value: Any) -> float | None:
    """Return an attribute as a number, or None if it is none."""
    try:
        return float(np.asarray(value).reshape(()).item())
    except (TypeError, ValueError):
        return None
