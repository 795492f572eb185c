"""Rows of an AnnData file (``.h5ad``): ``X`` or ``obsm/NAME`` as features, a column of ``obs`` as labels.

Read with h5py from the public layout of the format; the package of that name is not needed. A sparse matrix
by rows (CSR) is made dense a block of rows at a time; one by columns (CSC) is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np

from ldmlr.errors import InputError, counted, listed, opt
from ldmlr.store.datasets import check_present, read_dataset, rows_of, text
from ldmlr.store.layout import Array
from ldmlr.store.opening import open_hdf5, reading_hdf5
from ldmlr.store.rows import DataFile, Rows

# A row of genes, once dense, is far from small: a matrix whose store would be larger than this is refused.
DENSE_BYTES = 64 << 30
# Names of label columns that only this field has, tried after the common ones.
CELL_COLUMNS = ("cell_type", "celltype", "cell_label", "louvain", "leiden")


class SparseRows(Rows):
    """Rows of a sparse matrix by rows, made dense where they are read.

    Parameters
    ----------
    file, group
        The file, and the group of ``data``, ``indices`` and ``indptr``.
    pointers
        Where each row begins, ``[N + 1]``.
    dim
        Columns.
    """

    def __init__(self, file: DataFile, group: str, pointers: Array, dim: int) -> None:
        self.file, self.group, self.pointers = file, group, pointers
        self.shape, self.storage = (len(pointers) - 1, dim), "float32"

    def stored(self, start: int, stop: int) -> Array:
        """Return rows, dense."""
        rows = np.zeros((max(stop - start, 0), self.shape[1]), np.float32)
        if not len(rows):
            return rows
        low, high = int(self.pointers[start]), int(self.pointers[stop])
        columns = read_dataset(self.file, f"{self.group}/indices", slice(low, high))
        values = read_dataset(self.file, f"{self.group}/data", slice(low, high))
        owner = np.repeat(np.arange(len(rows)), np.diff(self.pointers[start : stop + 1]))
        fits = len(columns) == len(values) == high - low
        if not fits or (len(columns) and not 0 <= columns.min() <= columns.max() < rows.shape[1]):
            raise InputError(
                f"{self.file.path}: {self.group}: indices do not fit the matrix; copy the file again"
            )
        rows[owner, columns] = values
        return rows


def is_anndata(handle: h5py.File) -> bool:
    """Tell whether an open file has the layout of AnnData."""
    kind = text(handle.attrs.get("encoding-type", ""))
    return kind == "anndata" or ("X" in handle and "obs" in handle and "var" in handle)


def read_anndata(
    path: Path, features_key: str | None, label_names: Sequence[str]
) -> tuple[Rows, Array, tuple[str, ...] | None]:
    """Open an AnnData file: features as rows on disk, labels, and the names of the classes.

    Parameters
    ----------
    path
        The file.
    features_key
        ``X`` (also by default), ``obsm/NAME`` or ``layers/NAME``.
    label_names
        Columns of ``obs``, tried in turn.

    Raises
    ------
    InputError
        There is no such matrix or column, it is sparse by columns, or too large to be made dense.
    """
    with open_hdf5(path) as handle, reading_hdf5(path):
        rows = open_matrix(path, handle, features_key)
        obs = handle["obs"]
        names = [name for name in (*label_names, *CELL_COLUMNS) if name in obs]
        if not names:
            raise InputError(
                f"{path}: obs has no column {' or '.join(label_names[:3])}; its columns are "
                f"{listed(obs)}: name it with {opt('labels_key')}"
            )
        labels, classes = _column(f"{path}: obs/{names[0]}", obs[names[0]])
        return rows, labels, classes


def open_matrix(path: Path, handle: h5py.File, features_key: str | None) -> Rows:
    """Return a matrix of an open file as rows on disk: ``X``, ``obsm/NAME`` or ``layers/NAME``."""
    key = (features_key or "X").strip("/")
    if key not in handle:
        there = [f"{group}/{name}" for group in ("obsm", "layers") for name in handle.get(group, ())]
        raise InputError(
            f"{path}: has no {key}; it holds {listed(['X', *there])}: correct {opt('features_key')}"
        )
    return _matrix(DataFile.of(path), handle, key)


def _matrix(file: DataFile, handle: h5py.File, key: str) -> Rows:
    item, where = handle[key], f"{file.path}: {key}"
    if isinstance(item, h5py.Dataset):
        if item.ndim != 2:
            raise InputError(f"{where}: has shape {item.shape}, expected [N, D]; name another matrix")
        check_present(file, handle, item)
        return rows_of(file, item)
    kind = text(item.attrs.get("encoding-type", item.attrs.get("h5sparse_format", "")))
    if not kind.startswith("csr"):
        raise InputError(
            f"{where}: is {kind or 'a group'}, expected a dense matrix or one that is sparse by rows; "
            "convert it with scipy's tocsr()"
        )
    shape = item.attrs["shape"] if "shape" in item.attrs else item.attrs["h5sparse_shape"]
    count, dim = (int(size) for size in shape)
    if 4 * count * dim > DENSE_BYTES:
        raise InputError(
            f"{where}: {count:,} x {counted(dim, 'number')} would take {4 * count * dim / 1e9:.0f} "
            f"GB once dense; reduce it first, or name a matrix of obsm with {opt('features_key')}"
        )
    for name in ("data", "indices", "indptr"):
        check_present(file, handle, item[name])
    pointers = np.asarray(item["indptr"][...], np.int64)
    if len(pointers) != count + 1 or (np.diff(pointers) < 0).any() or pointers[-1] != len(item["data"]):
        raise InputError(f"{where}: indptr does not fit the matrix; copy the file again")
    return SparseRows(file, f"/{key}", pointers, dim)


def _column(where: str, item: h5py.Dataset | h5py.Group) -> tuple[Array, tuple[str, ...] | None]:
    """Return a column of ``obs``: numbers, texts, or codes and the names of their categories."""
    if isinstance(item, h5py.Dataset):
        return np.asarray(item[...]), None
    if "codes" not in item or "categories" not in item:
        raise InputError(f"{where}: is no column of categories, numbers or texts; name another")
    codes, names = np.asarray(item["codes"][...], np.int64), item["categories"][...]
    if (codes < 0).any():
        row = int(np.flatnonzero(codes < 0)[0])
        raise InputError(f"{where}: row {row} has no category; remove such rows")
    # A category without a row is no class: what is there is numbered as labels are.
    used = np.unique(codes)
    if len(used) and used[-1] >= len(names):
        raise InputError(f"{where}: has codes beyond its {len(names)} categories; write the file again")
    return np.searchsorted(used, codes), tuple(text(names[code]) for code in used)
