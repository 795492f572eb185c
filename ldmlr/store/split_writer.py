"""Writing the rows of one split to their places in the file."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal, Protocol

import h5py
import numpy as np

from ldmlr.arguments import as_array
from ldmlr.errors import InputError, UsageError, counted, opt
from ldmlr.floats import encode, storage_type
from ldmlr.store.ids import check_whole
from ldmlr.store.layout import BLOCK_BYTES, Array, text_bytes
from ldmlr.store.staged import pwrite

IdKind = Literal[False, "int", "text"]


class Target(Protocol):
    """The file that a split is written into, as far as its rows must know it: a `StoreWriter`."""

    path: Path
    dim: int
    num_classes: int
    dtype: str

    def session(self) -> AbstractContextManager[h5py.File]:
        """Open the file's structure for a moment."""

    def guard(self) -> AbstractContextManager[int]:
        """Return the descriptor, with the file named in errors of the operating system."""


class SplitWriter:
    """Write the rows of one split, in any order; in ascending order is fastest.

    Made by `StoreWriter.split`.
    """

    def __init__(
        self,
        writer: Target,
        name: str,
        rows: int,
        offsets: dict[str, int],
        views: int,
        ids: IdKind,
        view_kinds: tuple[str, ...],
    ):
        self.writer, self.name, self.rows, self.ids, self.view_kinds = writer, name, rows, ids, view_kinds
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
        given = as_array(labels)
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
        values = as_array(features)
        if values.shape != (count, self.writer.dim) or values.dtype.kind not in "fiu":
            raise InputError(
                f"{self._where(key)}: is {values.dtype} of shape {values.shape}, expected numbers of shape "
                f"({count}, {self.writer.dim}); give one row of features per label"
            )
        step = max(1, BLOCK_BYTES // (4 * self.writer.dim))
        for first in range(0, count, step):
            block = values[first : first + step]
            with np.errstate(over="ignore"):
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
                f"{self.writer.dtype}; "
                + (
                    f"use {opt('dtype', 'bfloat16')} or float32, or "
                    if self.writer.dtype == "float16"
                    else ""
                )
                + "scale the features"
            )
        raise InputError(
            f"{self._where(key)}: rows with NaN or infinity: {int(bad.sum())}, the first is row "
            f"{start + row}; remove these rows, or make them again"
        )

    def _write_ids(self, start: int, ids: Sequence[Any] | Array, count: int) -> None:
        if len(ids) != count:
            raise InputError(
                f"{self._where('ids')}: {counted(len(ids), 'id')} for {counted(count, 'row')}; give "
                "one per row"
            )
        if self.ids == "int":
            numbers = np.asarray(ids)
            if numbers.dtype.kind not in "iu" and count:
                raise InputError(f"{self._where('ids')}: is {numbers.dtype}, expected whole numbers")
            check_whole(numbers, self._where("ids"))
            self._put("ids", start, numbers.astype("<i8"))
            return
        try:
            texts = [entry.decode() if isinstance(entry, bytes) else str(entry) for entry in ids]
            "".join(texts).encode()
        except UnicodeError:
            raise InputError(f"{self._where('ids')}: holds what is no text in UTF-8; rename it") from None
        empty = next((row for row, text in enumerate(texts) if "\0" in text), None)
        if empty is not None:
            raise InputError(f"{self._where('ids')}: the id of row {start + empty} has a NUL byte; rename it")
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
