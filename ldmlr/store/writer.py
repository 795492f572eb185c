"""Writing a store row by row, whole or not at all, in memory that does not grow with the rows.

The arrays are laid out first, each contiguous at its final size; rows then go straight to their
place in the file. Checksums are taken along the way when rows come in order, and otherwise by
reading the file once more.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, Self

import h5py
import numpy as np

from ldmlr import progress
from ldmlr.arguments import as_array
from ldmlr.config import plain
from ldmlr.errors import InputError, LdmlrError, UsageError, counted, nearest
from ldmlr.files import atomic_path, check_output, existing_folder, os_error, room_for
from ldmlr.floats import storage_type
from ldmlr.ownership import owned
from ldmlr.remote import as_path
from ldmlr.store.layout import (
    FORMAT,
    SCHEMA_VERSION,
    SPLITS,
    Array,
    SplitData,
    StoredHead,
    array_sha256,
    block_rows,
    check_dtype,
    gigabytes,
    root_sha256,
)
from ldmlr.store.rows import Rows
from ldmlr.store.split import Split
from ldmlr.store.split_writer import IdKind, SplitWriter
from ldmlr.store.staged import new_group, staged

# Endings of other kinds of files, which would lie about a store.
OTHER_KINDS = (".npz", ".npy", ".parquet", ".csv", ".json", ".safetensors", ".pt")


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
        self.path = check_output(as_path(path), overwrite)
        if self.path.suffix in OTHER_KINDS:
            raise UsageError(
                f"{path}: a feature store is an HDF5 file; name it {self.path.with_suffix('.h5').name} "
                "(`ldmlr store export` writes other kinds)"
            )
        if dim < 1 or num_classes < 1:
            raise UsageError(f"{path}: dim and num_classes must be at least 1, not {dim} and {num_classes}")
        if class_names is not None and len(class_names) != num_classes:
            raise InputError(
                f"{path}: {counted(len(class_names), 'class name')} for "
                f"{counted(num_classes, 'class')}; name every class"
            )
        if head is not None and tuple(head.weight.shape) != (num_classes, dim):
            raise InputError(
                f"{path}: the head has shape {tuple(head.weight.shape)}, expected ({num_classes}, {dim}); "
                "use the head that belongs to the features"
            )
        self.dim, self.num_classes, self.dtype = int(dim), int(num_classes), check_dtype(dtype)
        self.attributes = {
            "format": FORMAT, "schema_version": SCHEMA_VERSION, "num_classes": self.num_classes,
            "dim": self.dim, "encoder": encoder, "created_with": f"ldmlr {metadata.version('ldmlr')}",
            "config": json.dumps(plain(dict(config or {}))),
        }  # fmt: skip
        self.class_names, self.head, self.overwrite = class_names, head, overwrite
        self.splits: dict[str, SplitWriter] = {}
        self.checksums: dict[str, str] = {}
        self._stack = contextlib.ExitStack()
        self._descriptor = -1

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            stack.enter_context(owned(self.path))
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
                self.finish()
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
        ids: IdKind = False,
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
            raise UsageError(
                f"{self.path}: {counted(len(view_kinds), 'view kind')} for {counted(views, 'view')}; "
                "name every view"
            )
        element = storage_type(self.dtype)
        needed = rows * (self.dim * element.itemsize * (1 + views) + 8)
        free = shutil.disk_usage(existing_folder(self.path)).free
        if needed > free:
            raise LdmlrError(
                f"{self.path}: needs {gigabytes(needed)}, but {gigabytes(free)} are free; "
                f"{room_for(self.path)}"
            )
        offsets: dict[str, int] = {}
        with self.session() as handle:
            group = new_group(handle, name)

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
        self.splits[name] = SplitWriter(self, name, rows, offsets, views, ids, tuple(view_kinds))
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
            self.checksums["/class_names"] = array_sha256(dataset[...])
        if self.head is not None:
            arrays = {"weight": as_array(self.head.weight).astype("<f4"), **self.head.extra}
            if self.head.bias is not None:
                arrays["bias"] = as_array(self.head.bias).astype("<f4")
            new_group(handle, "head").attrs["kind"] = self.head.kind
        for key, values in arrays.items():
            values = as_array(values)
            if not np.isfinite(values).all():
                raise InputError(f"{self.path}: /head/{key}: holds NaN or infinity; train the head again")
            handle[f"head/{key}"] = values
            self.checksums[f"/head/{key}"] = array_sha256(values)

    def finish(self) -> None:
        """Complete the file: checksums, then `complete`. Called at the end of the ``with`` block."""
        if not self.splits:
            raise UsageError(f"{self.path}: no split was written; a store holds at least one")
        for split in self.splits.values():
            self.checksums.update(split.checksums())
        with self.session() as handle:
            for name, checksum in self.checksums.items():
                handle[name].attrs["sha256"] = checksum
            kinds = {name: split.view_kinds for name, split in self.splits.items()}
            handle.attrs["sha256"] = root_sha256(self.checksums, self.attributes, self.head, kinds)
            handle.attrs["complete"] = True


def _contiguous(group: h5py.Group, name: str, shape: tuple[int, ...], kind: np.dtype[Any]) -> h5py.Dataset:
    """Create a contiguous dataset whose place in the file is fixed at once and not filled."""
    settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    settings.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    settings.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    # The same contents are the same bytes, whenever they are written.
    settings.set_obj_track_times(False)
    space = h5py.h5s.create_simple(shape)
    return h5py.Dataset(h5py.h5d.create(group.id, name.encode(), h5py.h5t.py_create(kind), space, settings))


def write_split(writer: StoreWriter, name: str, data: SplitData | Split) -> None:
    """Lay out and write one split, a few megabytes at a time."""
    where = f"{writer.path}: /{name}"
    count = len(data.labels)
    features = data.rows if isinstance(data, Split) else data.features
    ids = data.ids_on_disk if isinstance(data, Split) else data.ids
    for key, values in (("features", features), ("source", data.source), ("ids", ids)):
        if values is not None and len(values) != count:
            raise InputError(
                f"{where}: {counted(len(values), 'row')} of {key} but {counted(count, 'label')}; "
                "give one per row"
            )
    views: Any = data.views_on_disk if isinstance(data, Split) else data.views
    view_count = 0 if views is None else len(views)
    split = writer.split(
        name, count, source=data.source is not None, ids=_id_kind(ids), views=view_count,
        view_kinds=data.view_kinds,
    )  # fmt: skip
    labels = as_array(data.labels)
    step = block_rows(4 * writer.dim)
    with progress.bar(count * (1 + view_count), f"write {name}", unit="rows") as bar:
        for start in range(0, count, step):
            stop = min(start + step, count)
            split.write(
                start,
                _block(features, start, stop),
                labels[start:stop],
                None if data.source is None else np.asarray(data.source[start:stop]),
                _some_ids(ids, start, stop),
            )
            bar.update(stop - start)
        for view in range(view_count):
            _write_view(split, view, views[view], step, bar)


def _write_view(split: SplitWriter, view: int, rows: Any, step: int, bar: Any) -> None:
    if len(rows) != split.rows:
        raise InputError(
            f"{split.writer.path}: /{split.name}/views: view {view} has {counted(len(rows), 'row')}, "
            f"expected {split.rows}; give every view one row per sample"
        )
    for start in range(0, split.rows, step):
        stop = min(start + step, split.rows)
        split.write_view(view, start, _block(rows, start, stop))
        bar.update(stop - start)


def _block(features: Any, start: int, stop: int) -> Array:
    if isinstance(features, Rows) and features.storage == "float64":
        return features.stored(start, stop)  # the writer tells what float32 cannot hold from infinity
    return as_array(features[start:stop])


def _id_kind(ids: Any) -> IdKind:
    if ids is None:
        return False
    if hasattr(ids, "is_text"):
        return "text" if ids.is_text else "int"
    return "int" if np.asarray(ids).dtype.kind in "iu" else "text"


def _some_ids(ids: Any, start: int, stop: int) -> Any:
    if ids is None:
        return None
    return ids.read(start, stop) if hasattr(ids, "is_text") else ids[start:stop]
