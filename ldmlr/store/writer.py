"""Writing a store row by row, whole or not at all, in memory that does not grow with the rows.

The arrays are laid out first, each contiguous at its final size; rows then go straight to their
place in the file. Checksums are taken along the way when rows come in order, and otherwise by
reading the file once more.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import h5py
import numpy as np

import ldmlr
from ldmlr.config import plain
from ldmlr.errors import InputError, LdmlrError, UsageError, nearest
from ldmlr.files import atomic_path, check_output, os_error
from ldmlr.store.layout import (
    BLOCK_BYTES,
    FORMAT,
    SCHEMA_VERSION,
    SPLITS,
    Array,
    StoredHead,
    array_sha256,
    check_dtype,
    contents_sha256,
    encode,
    gigabytes,
    storage_type,
    text_bytes,
)
from ldmlr.store.staged import pwrite, staged

Ids = Literal[False, "int", "text"]


class StoreWriter:
    """Write a feature store in pieces.

    A context manager: the file appears under its name when the block ends, and not at all if it
    ends by an exception. Every row of every declared split must have been written.

    Parameters
    ----------
    path
        The file to write.
    dim, num_classes
        D and C.
    dtype
        ``float32``, ``float16`` or ``bfloat16``: how features and views are kept.
    encoder
        What made the features, in words.
    config
        Configuration and provenance: plain data, saved as JSON.
    class_names
        One name per class.
    head
        The classifier that belongs to the features.
    overwrite
        Replace a file that exists.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "features.h5"
    >>> with StoreWriter(path, dim=2, num_classes=3) as writer:
    ...     train = writer.split("train", rows=4)
    ...     train.write(0, np.zeros((4, 2)), np.array([0, 1, 2, 2]))
    """

    def __init__(
        self,
        path: str | Path,
        *,
        dim: int,
        num_classes: int,
        dtype: str = "float32",
        encoder: str = "",
        config: Mapping[str, Any] | None = None,
        class_names: Sequence[str] | None = None,
        head: StoredHead | None = None,
        overwrite: bool = False,
    ):
        self.path = check_output(Path(path), overwrite)
        if dim < 1 or num_classes < 1:
            raise UsageError(f"{path}: dim and num_classes must be at least 1, not {dim} and {num_classes}")
        if class_names is not None and len(class_names) != num_classes:
            raise InputError(
                f"{path}: {len(class_names)} class names for {num_classes} classes; name every class"
            )
        if head is not None and tuple(head.weight.shape) != (num_classes, dim):
            raise InputError(
                f"{path}: the head has shape {tuple(head.weight.shape)}, expected ({num_classes}, {dim}); "
                "use the head that belongs to the features"
            )
        self.dim, self.num_classes, self.dtype = int(dim), int(num_classes), check_dtype(dtype)
        self.attributes = {
            "format": FORMAT, "schema_version": SCHEMA_VERSION, "num_classes": self.num_classes,
            "dim": self.dim, "encoder": encoder, "created_with": f"ldmlr {ldmlr.__version__}",
            "config": json.dumps(plain(dict(config or {}))),
        }  # fmt: skip
        self.class_names, self.head, self.overwrite = class_names, head, overwrite
        self.splits: dict[str, SplitWriter] = {}
        self._checksums: dict[str, str] = {}
        self._stack = contextlib.ExitStack()
        self._descriptor = -1

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            temporary = stack.enter_context(atomic_path(self.path, self.overwrite))
            self._descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o666)
            stack.callback(os.close, self._descriptor)
            with self.session("w") as handle:
                self._begin(handle)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if error is None:
            try:
                self._finish()
            except BaseException:
                self._stack.__exit__(*sys.exc_info())  # removes the temporary file
                raise
        self._stack.__exit__(kind, error, trace)

    @contextlib.contextmanager
    def session(self, mode: str = "r+") -> Iterator[h5py.File]:
        """Open the file's structure for a moment."""
        with self.guard(), staged(self._descriptor, mode) as handle:
            yield handle

    @contextlib.contextmanager
    def guard(self) -> Iterator[int]:
        """Name the file in errors of the operating system."""
        try:
            yield self._descriptor
        except OSError as error:
            raise os_error(error, self.path) from error

    def split(
        self,
        name: str,
        rows: int,
        *,
        source: bool = False,
        ids: Ids = False,
        views: int = 0,
        view_kinds: Sequence[str] = (),
    ) -> SplitWriter:
        """Lay out a split and return its writer.

        Parameters
        ----------
        name
            ``train``, ``test`` or ``val``.
        rows
            N, fixed from here on.
        source
            Also keep where each row comes from.
        ids
            Also keep one id per row, whole numbers or texts.
        views, view_kinds
            K, and what each view is.
        """
        if name not in SPLITS:
            raise UsageError(f"unknown split {name!r}; {nearest(name, SPLITS)}")
        if name in self.splits:
            raise UsageError(f"{self.path}: the split {name!r} was laid out before; lay it out once")
        if view_kinds and len(view_kinds) != views:
            raise UsageError(f"{self.path}: {len(view_kinds)} view kinds for {views} views; name every view")
        element = storage_type(self.dtype)
        needed = rows * (self.dim * element.itemsize * (1 + views) + 8)
        free = shutil.disk_usage(self.path.parent).free
        if needed > free:
            raise LdmlrError(
                f"{self.path}: needs {gigabytes(needed)}, but {gigabytes(free)} are free; "
                "free some space or choose another folder"
            )
        offsets: dict[str, int] = {}
        with self.session() as handle:
            group = handle.create_group(name)

            def lay_out(key: str, shape: tuple[int, ...], kind: np.dtype[Any]) -> h5py.Dataset:
                dataset = _contiguous(group, key, shape, kind)
                offsets[key] = dataset.id.get_offset() or 0
                return dataset

            features = lay_out("features", (rows, self.dim), element)
            lay_out("labels", (rows,), np.dtype("<i8"))
            if source:
                lay_out("source", (rows,), np.dtype("u1"))
            if ids == "int":
                lay_out("ids", (rows,), np.dtype("<i8"))
            elif ids == "text":
                group.create_dataset("ids", shape=(rows,), dtype=h5py.string_dtype())
            stacks = [features]
            if views:
                stacks.append(lay_out("views", (views, rows, self.dim), element))
                if view_kinds:
                    stacks[1].attrs["kinds"] = np.array([kind.encode() for kind in view_kinds])
            for dataset in stacks if self.dtype == "bfloat16" else []:
                dataset.attrs["dtype"] = "bfloat16"
        self.splits[name] = SplitWriter(self, name, rows, offsets, views, ids)
        return self.splits[name]

    def _begin(self, handle: h5py.File) -> None:
        for key, value in self.attributes.items():
            handle.attrs[key] = value
        handle.attrs["complete"] = False
        arrays: dict[str, Array] = {}
        if self.class_names is not None:
            names = [str(name).encode() for name in self.class_names]
            longest = max(1, *map(len, names)) if names else 1
            text = h5py.string_dtype("utf-8", longest)
            dataset = handle.create_dataset("class_names", data=np.array(names, dtype=text))
            self._checksums["/class_names"] = array_sha256(dataset[...])
        if self.head is not None:
            arrays = {"weight": np.asarray(self.head.weight, "<f4"), **self.head.extra}
            if self.head.bias is not None:
                arrays["bias"] = np.asarray(self.head.bias, "<f4")
            handle.create_group("head").attrs["kind"] = self.head.kind
        for key, values in arrays.items():
            values = np.asarray(values)
            if not np.isfinite(values).all():
                raise InputError(f"{self.path}: /head/{key}: holds NaN or infinity; train the head again")
            handle[f"head/{key}"] = values
            self._checksums[f"/head/{key}"] = array_sha256(values)

    def _finish(self) -> None:
        if not self.splits:
            raise UsageError(f"{self.path}: no split was written; a store holds at least one")
        for split in self.splits.values():
            self._checksums.update(split.checksums())
        with self.session() as handle:
            for name, checksum in self._checksums.items():
                handle[name].attrs["sha256"] = checksum
            handle.attrs["sha256"] = contents_sha256(self._checksums, **self.attributes)
            handle.attrs["complete"] = True


class SplitWriter:
    """Write the rows of one split, in any order; in ascending order is fastest.

    Made by `StoreWriter.split`.
    """

    def __init__(
        self, writer: StoreWriter, name: str, rows: int, offsets: dict[str, int], views: int, ids: Ids
    ):
        self.writer, self.name, self.rows, self.ids = writer, name, rows, ids
        dim = writer.dim
        width = dim * storage_type(writer.dtype).itemsize
        self._places = {"labels": _Place(offsets["labels"], 8, rows)}
        self._places["features"] = _Place(offsets["features"], width, rows)
        for key, size in (("source", 1), ("ids", 8)):
            if key in offsets:
                self._places[key] = _Place(offsets[key], size, rows)
        for view in range(views):
            self._places[f"views/{view}"] = _Place(offsets["views"] + view * rows * width, width, rows)
        if ids == "text":
            self._places["ids"] = _Place(0, 0, rows)

    def write(
        self,
        start: int,
        features: Array,
        labels: Array,
        source: Array | int | None = None,
        ids: Sequence[Any] | Array | None = None,
    ) -> None:
        """Write rows ``start .. start + n``.

        Parameters
        ----------
        start
            Number of the first row.
        features
            ``[n, D]``.
        labels
            ``[n]`` in ``0 .. C-1``.
        source
            ``[n]`` (or one value for all): 0 encoded, 1 generated; needed if the split was laid out with it.
        ids
            ``[n]``, likewise.
        """
        given = np.asarray(labels)
        count = len(given)
        if given.ndim != 1 or (given.dtype.kind not in "iu" and count):
            raise InputError(
                f"{self._where('labels')}: is {given.dtype} of shape {given.shape}, "
                "expected [n] whole numbers; convert it"
            )
        bad = (given < 0) | (given >= self.writer.num_classes)
        if bad.any():
            row = int(bad.argmax())
            raise InputError(
                f"{self._where('labels')}: label {given[row]} in row {start + row} is not in "
                f"0 .. {self.writer.num_classes - 1}; correct the labels or the number of classes"
            )
        for key, values in (("source", source), ("ids", ids)):
            if (values is not None) != (key in self._places):
                there = "is missing" if values is None else "was not laid out"
                raise UsageError(f"{self._where(key)}: {there}; pass {key} to both split() and write()")
        self._write_rows("features", start, features, count)
        self._put("labels", start, given.astype("<i8"))
        if source is not None:
            flags = np.broadcast_to(np.asarray(source), (count,))
            if not np.isin(flags, (0, 1)).all():
                raise InputError(f"{self._where('source')}: expected 0 (encoded) or 1 (generated)")
            self._put("source", start, flags.astype("u1"))
        if ids is not None:
            self._write_ids(start, ids, count)

    def write_view(self, view: int, start: int, features: Array) -> None:
        """Write rows ``start .. start + n`` of a view."""
        self._write_rows(f"views/{view}", start, features, len(features))

    def checksums(self) -> dict[str, str]:
        """Return the checksum of every dataset; raise if a row is missing."""
        found = {}
        views = [place for key, place in self._places.items() if key.startswith("views/")]
        for key, place in self._places.items():
            gap = place.first_missing()
            if gap is not None:
                raise InputError(
                    f"{self._where(key)}: row {gap} of {self.rows} was never written; write every row"
                )
            if not key.startswith("views/"):
                found[f"/{self.name}/{key}"] = self._checksum(key, [place])
        if views:
            found[f"/{self.name}/views"] = self._checksum("views", views)
        return found

    def _checksum(self, key: str, places: list[_Place]) -> str:
        if len(places) == 1 and places[0].running is not None:
            return str(places[0].running.hexdigest())
        digest = hashlib.sha256()
        if key == "ids" and self.ids == "text":
            with self.writer.session() as handle:
                for start in range(0, self.rows, 1 << 14):
                    digest.update(text_bytes(handle[f"{self.name}/ids"][start : start + (1 << 14)]))
            return digest.hexdigest()
        with self.writer.guard() as descriptor:
            for place in places:
                end = place.offset + place.width * place.rows
                for begin in range(place.offset, end, BLOCK_BYTES):
                    digest.update(os.pread(descriptor, min(BLOCK_BYTES, end - begin), begin))
        return digest.hexdigest()

    def _write_rows(self, key: str, start: int, features: Array, count: int) -> None:
        values = np.asarray(features)
        if values.shape != (count, self.writer.dim) or values.dtype.kind not in "fiu":
            raise InputError(
                f"{self._where(key)}: is {values.dtype} of shape {values.shape}, expected numbers of shape "
                f"({count}, {self.writer.dim}); give one row of features per label"
            )
        step = max(1, BLOCK_BYTES // (4 * self.writer.dim))
        for first in range(0, count, step):
            block = values[first : first + step]
            stored = encode(block.astype(np.float32, copy=False), self.writer.dtype)
            self._check_finite(key, start + first, block, stored)
            self._put(key, start + first, stored)

    def _check_finite(self, key: str, start: int, block: Array, stored: Array) -> None:
        if stored.dtype == np.uint16:
            finite = (stored & 0x7F80) != 0x7F80
        else:
            finite = np.isfinite(stored)
        if finite.all():
            return
        bad = ~finite.all(axis=1)
        row = int(bad.argmax())
        if np.isfinite(block[row]).all():
            raise InputError(
                f"{self._where(key)}: row {start + row} holds {np.abs(block[row]).max():g}, too large for "
                f"{self.writer.dtype}; use --dtype bfloat16 or float32"
            )
        raise InputError(
            f"{self._where(key)}: {int(bad.sum())} rows hold NaN or infinity, the first is row "
            f"{start + row}; remove these rows, or make them again"
        )

    def _write_ids(self, start: int, ids: Sequence[Any] | Array, count: int) -> None:
        if len(ids) != count:
            raise InputError(f"{self._where('ids')}: {len(ids)} ids for {count} rows; give one per row")
        if self.ids == "int":
            numbers = np.asarray(ids)
            if numbers.dtype.kind not in "iu" and count:
                raise InputError(f"{self._where('ids')}: is {numbers.dtype}, expected whole numbers")
            self._put("ids", start, numbers.astype("<i8"))
            return
        texts = [entry.decode() if isinstance(entry, bytes) else str(entry) for entry in ids]
        place = self._places["ids"]
        for first in range(0, count, 1 << 14):
            part = texts[first : first + (1 << 14)]
            place.note(start + first, len(part), self._where("ids"))
            with self.writer.session() as handle:
                handle[f"{self.name}/ids"][start + first : start + first + len(part)] = part
            place.hash(start + first, len(part), memoryview(text_bytes(part)))

    def _put(self, key: str, start: int, stored: Array) -> None:
        place = self._places[key]
        place.note(start, len(stored), self._where(key))
        data = stored.reshape(-1).view(np.uint8).data
        with self.writer.guard() as descriptor:
            pwrite(descriptor, data, place.offset + start * place.width)
        place.hash(start, len(stored), data)

    def _where(self, key: str) -> str:
        return f"{self.writer.path}: /{self.name}/{key}"


class _Place:
    """Where a dataset lies in the file, which of its rows are written, and its running checksum."""

    def __init__(self, offset: int, width: int, rows: int):
        self.offset, self.width, self.rows = offset, width, rows
        self.written: list[tuple[int, int]] = []
        self.running: Any = hashlib.sha256()
        self.hashed = 0

    def note(self, start: int, count: int, where: str) -> None:
        if start < 0 or start + count > self.rows:
            raise UsageError(f"{where}: rows {start} .. {start + count} are not in 0 .. {self.rows}")
        if count:
            merged = []
            low, high = start, start + count
            for first, last in self.written:
                if last < low or first > high:
                    merged.append((first, last))
                else:
                    low, high = min(low, first), max(high, last)
            self.written = sorted([*merged, (low, high)])

    def hash(self, start: int, count: int, data: memoryview) -> None:
        if self.running is None or not count:
            return
        if start != self.hashed:
            self.running = None
            return
        self.running.update(data)
        self.hashed += count

    def first_missing(self) -> int | None:
        if not self.rows or self.written == [(0, self.rows)]:
            return None
        return self.written[0][1] if self.written and self.written[0][0] == 0 else 0


def _contiguous(group: h5py.Group, name: str, shape: tuple[int, ...], kind: np.dtype[Any]) -> h5py.Dataset:
    """Create a contiguous dataset whose place in the file is fixed at once and not filled."""
    settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    settings.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    settings.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    space = h5py.h5s.create_simple(shape)
    return h5py.Dataset(h5py.h5d.create(group.id, name.encode(), h5py.h5t.py_create(kind), space, settings))
