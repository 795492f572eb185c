"""One HDF5 dataset: is it wholly there, how is it read (chunked ones by h5py only), what is its checksum."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import math
from collections.abc import Iterator
from typing import Any

import h5py
import numpy as np

from ldmlr.errors import InputError
from ldmlr.store.joined import Views
from ldmlr.store.layout import Array, block_rows, text_bytes
from ldmlr.store.opening import open_hdf5, reading_hdf5
from ldmlr.store.rows import DataFile, MappedRows, Rows

# A chunked or compressed dataset up to this size is read into memory when its rows are first
# asked for; a larger one is streamed.
IN_MEMORY_BYTES = 1 << 30
# Filters by the numbers that the HDF Group gave them.
FILTERS = {
    305: "lzo", 307: "bzip2", 32000: "lzf", 32001: "blosc", 32004: "lz4", 32008: "bitshuffle", 32013: "zfp",
    32015: "zstd", 32017: "sz", 32018: "fcidecomp", 32019: "jpeg", 32024: "sz3", 32026: "blosc2",
    32028: "sperr",
}  # fmt: skip


def text(value: Any) -> str:
    """Return a text of an attribute or a dataset."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def is_ours(form: Any) -> bool:
    """Tell by its attribute ``format`` (None: it has none) whether a file is of this package."""
    return text("" if form is None else form).startswith("ldmlr")


def dataset_names(handle: h5py.File) -> list[str]:
    """Return the names of all datasets in a file."""
    found: list[str] = []
    handle.visititems(lambda name, item: found.append(name) if isinstance(item, h5py.Dataset) else None)
    return found


def check_present(file: DataFile, handle: h5py.File, dataset: h5py.Dataset) -> None:
    """Raise if rows of a dataset are not in the file: HDF5 would read fill values instead."""
    where = f"{file.path}: {dataset.name}"
    check_filters(where, dataset)
    if h5py.h5o.get_info(dataset.id).fileno != h5py.h5o.get_info(handle.id).fileno:
        raise InputError(f"{where}: is a link into another file; copy the dataset into this one")
    layout = dataset.id.get_create_plist().get_layout()
    if layout == h5py.h5d.VIRTUAL or dataset.external:
        raise InputError(
            f"{where}: keeps its rows in other files, which HDF5 fills in silently when they are "
            "missing; copy it into one file, or write a manifest of shards"
        )
    if not dataset.size:
        return
    if layout == h5py.h5d.CHUNKED:
        expected = math.prod(-(-n // c) for n, c in zip(dataset.shape, dataset.chunks, strict=True))
        missing = expected - dataset.id.get_num_chunks()
        if missing > 0:
            raise InputError(
                f"{where}: {missing} of {expected} chunks were never written; write the file again"
            )
    elif layout == h5py.h5d.CONTIGUOUS:
        offset = dataset.id.get_offset()
        if offset is None:
            raise InputError(f"{where}: was never written; write the file again")
        if offset + dataset.id.get_storage_size() > file.size:
            raise InputError(f"{where}: the file is truncated; copy it again")


def check_filters(where: str, dataset: h5py.Dataset) -> None:
    """Raise if a dataset was written through a filter (a compression) that is not installed, naming it.

    Those of the package hdf5plugin are there once it is imported, which is done where one is missing.
    """
    plist = dataset.id.get_create_plist()
    for place in range(plist.get_nfilters()):
        code, _, _, name = plist.get_filter(place)
        if h5py.h5z.filter_avail(code):
            continue
        with contextlib.suppress(ImportError):
            importlib.import_module("hdf5plugin")
        if h5py.h5z.filter_avail(code):
            continue
        known = FILTERS.get(code) or text(name).split(";")[0].strip() or "without a name"
        raise InputError(
            f"{where}: was compressed with the HDF5 filter {known} (number {code}), which is not installed; "
            "run pip install 'ldmlr[filters]', or write the file with gzip"
        )


def storage_name(where: str, dataset: h5py.Dataset) -> str:
    """Return the name of the type of features, or raise if they are not numbers."""
    kind = dataset.dtype
    if kind == np.uint16 and text(dataset.attrs.get("dtype", "")) == "bfloat16":
        return "bfloat16"
    return number_type(where, kind)


def number_type(where: str, kind: np.dtype[Any]) -> str:
    """Return the name of a type of numbers that features may have."""
    if kind == np.uint16:
        raise InputError(
            f"{where}: is uint16; bfloat16 needs the attribute dtype='bfloat16', and whole numbers "
            "another type: store float32"
        )
    if kind.kind not in "fiu":
        raise InputError(f"{where}: is {kind}, expected float32, float16 or bfloat16; convert the features")
    return str(kind.name)


def rows_of(file: DataFile, dataset: h5py.Dataset) -> Rows:
    """Return a dataset ``[N, D]`` as rows on disk."""
    return _rows(file, dataset, [None])[0][0]


def views_of(file: DataFile, dataset: h5py.Dataset) -> Views:
    """Return a dataset ``[K, N, D]`` as views on disk."""
    rows, loader = _rows(file, dataset, list(range(dataset.shape[0])))
    return Views(rows, loader.values if loader and loader.in_final_form else None)


def _rows(file: DataFile, dataset: h5py.Dataset, views: list[Any]) -> tuple[list[Rows], Loader | None]:
    storage = storage_name(f"{file.path}: {dataset.name}", dataset)
    shape = (int(dataset.shape[-2]), int(dataset.shape[-1]))
    layout = dataset.id.get_create_plist().get_layout()
    if layout == h5py.h5d.CONTIGUOUS:
        start = dataset.id.get_offset() or 0
        size = shape[0] * shape[1] * dataset.dtype.itemsize
        return [
            MappedRows(file, start + (view or 0) * size, shape, dataset.dtype, storage) for view in views
        ], None
    chunk = dataset.chunks[-2] if dataset.chunks else 1
    streamed = [ChunkedRows(file, dataset.name, view, shape, storage, chunk) for view in views]
    if dataset.size * dataset.dtype.itemsize > IN_MEMORY_BYTES:
        return list(streamed), None
    loader = Loader(file, dataset.name, storage)
    return [LoadedRows(loader, rows) for rows in streamed], loader


def is_wide(kind: np.dtype[Any]) -> bool:
    """Tell whether a type has finite numbers that are infinite in float32."""
    return kind.kind == "f" and kind.itemsize > 4


def not_finite_rows(count: int, first: int, kind: np.dtype[Any], view: int | None = None) -> str:
    """Return a message about rows (of a view, if given) that hold NaN or infinity once they are float32."""
    of = "" if view is None else f" of view {view}"
    wide = " (in float32)" if is_wide(kind) else ""
    return f"rows with NaN or infinity: {count}, the first is row {first}{of}{wide}"


def not_finite(rows: Rows, kind: np.dtype[Any]) -> str | None:
    """Return a message about rows with NaN or infinity, or None if all values are finite.

    `kind` is the type of the numbers in the file.
    """
    first, count = -1, 0
    for start, block in rows.blocks():
        if not np.isfinite(block).all():
            bad = np.flatnonzero(~np.isfinite(block).all(axis=1))
            first = start + int(bad[0]) if first < 0 else first
            count += len(bad)
    return None if first < 0 else not_finite_rows(count, first, kind)


def dataset_blocks(dataset: h5py.Dataset) -> Iterator[Array]:
    """Yield a dataset in C order, a few megabytes at a time."""
    if dataset.ndim == 0:
        yield np.asarray(dataset[()])
        return
    if dataset.ndim == 3:
        prefixes: list[tuple[int, ...]] = [(view,) for view in range(dataset.shape[0])]
    else:
        prefixes = [()]
    axis = len(prefixes[0]) if prefixes else 0
    width = math.prod(dataset.shape[axis + 1 :]) * dataset.dtype.itemsize
    step = min(block_rows(width), 1 << 16)
    if dataset.chunks:
        step = -(-step // dataset.chunks[axis]) * dataset.chunks[axis]
    for prefix in prefixes:
        for start in range(0, dataset.shape[axis], step):
            yield dataset[(*prefix, slice(start, start + step))]


def stored_bytes(block: Array) -> bytes | memoryview:
    """Return the bytes of a block that go into the checksum."""
    if block.dtype.kind in "OSU":
        return text_bytes(block.ravel())
    little = np.ascontiguousarray(block, dtype=block.dtype.newbyteorder("<"))
    return little.reshape(-1).view(np.uint8).data


def dataset_sha256(file: DataFile, name: str) -> str:
    """Return the checksum of a dataset, read through HDF5 block by block."""
    digest = hashlib.sha256()
    with open_hdf5(file.path, file.place) as handle, reading_hdf5(file.path):
        file.check()
        for block in dataset_blocks(handle[name]):
            digest.update(stored_bytes(block))
    return digest.hexdigest()


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
    with open_hdf5(file.path, file.place) as handle, reading_hdf5(file.path):
        return np.asarray(handle[dataset][key])
