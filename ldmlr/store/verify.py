"""Checking every byte of a store: `verify` names all problems, not only the first."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import h5py
import numpy as np

from ldmlr.store.layout import Array, block_rows, text_bytes
from ldmlr.store.reading import open_hdf5
from ldmlr.store.rows import DataFile


def dataset_sha256(file: DataFile, name: str) -> str:
    """Return the checksum of a dataset, read through HDF5 block by block."""
    digest = hashlib.sha256()
    with open_hdf5(file.path) as handle:
        file.check(file.path.stat())
        for block in dataset_blocks(handle[name]):
            digest.update(stored_bytes(block))
    return digest.hexdigest()


def stored_bytes(block: Array) -> bytes | memoryview:
    """Return the bytes of a block that go into the checksum."""
    if block.dtype.kind in "OSU":
        return text_bytes(block.ravel())
    little = np.ascontiguousarray(block, dtype=block.dtype.newbyteorder("<"))
    return little.reshape(-1).view(np.uint8).data


def dataset_blocks(dataset: h5py.Dataset) -> Iterator[Array]:
    """Yield a dataset in C order, a few megabytes at a time."""
    if dataset.ndim == 0:
        yield np.asarray(dataset[()])
        return
    if dataset.ndim == 3:
        for view in range(dataset.shape[0]):
            step = block_rows(dataset.shape[2] * dataset.dtype.itemsize)
            for start in range(0, dataset.shape[1], step):
                yield dataset[view, start : start + step]
        return
    width = int(np.prod(dataset.shape[1:])) * dataset.dtype.itemsize
    step = min(block_rows(width), 1 << 16)
    for start in range(0, dataset.shape[0], step):
        yield dataset[start : start + step]
