"""Reading the description of a store file: everything but the features themselves.

Every check of a file's layout and small datasets is here, once. A problem is given to a
`Report`: opening a store raises the first one, `verify` collects them all.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ldmlr.errors import InputError
from ldmlr.store.layout import FORMAT, SCHEMA_VERSION, SPLITS, Array, Int64, StoredHead, UInt8
from ldmlr.store.rows import ArrayRows, ChunkedRows, DataFile, MappedRows, Rows, Views

# A chunked or compressed dataset up to this size is read into memory; a larger one is streamed.
IN_MEMORY_BYTES = 1 << 30
# Features up to this size are looked through for NaN and infinity when a store is opened; larger
# ones by `verify` and by the importers only, since opening must not read terabytes.
CHECK_BYTES = 64 << 20


class Report:
    """Receives problems: raises the first one."""

    def problem(self, message: str) -> None:
        """Take note of a problem."""
        raise InputError(message)


class Collector(Report):
    """Receives problems: keeps them all."""

    def __init__(self) -> None:
        self.problems: list[str] = []

    def problem(self, message: str) -> None:
        """Take note of a problem."""
        self.problems.append(message)


@dataclasses.dataclass
class SplitParts:
    """What a file holds about one split."""

    rows: Rows
    labels: Int64
    source: UInt8 | None = None
    ids: functools.partial[Array] | None = None
    views: Views | None = None
    view_kinds: tuple[str, ...] = ()


@dataclasses.dataclass
class FileParts:
    """What a file holds."""

    file: DataFile
    splits: dict[str, SplitParts]
    head: StoredHead | None
    class_names: tuple[str, ...] | None
    num_classes: int
    dim: int
    attributes: dict[str, Any]
    checksums: dict[str, str | None]
    names: dict[str, str]  # dataset of the format ("/train/labels") -> its path in this file


def open_hdf5(path: Path) -> h5py.File:
    """Open an HDF5 file for reading; errors say what the file is instead."""
    try:
        with open(path, "rb") as handle:
            start = handle.read(8)
        return h5py.File(path, "r", locking="best-effort")
    except IsADirectoryError:
        raise InputError(
            f"{path}: is a folder, not a feature store; name the file (a folder of images goes to "
            "`ldmlr baseline` or `ldmlr encode`)"
        ) from None
    except PermissionError:
        raise InputError(f"{path}: permission denied; make the file readable") from None
    except OSError as error:
        raise InputError(f"{path}: {_not_hdf5(start, Path(path).stat().st_size, error)}") from None


def _not_hdf5(start: bytes, size: int, error: OSError) -> str:
    imported = "`ldmlr store import` turns it into a store"
    if not size:
        return "is empty; write or copy it again"
    if start == b"\x89HDF\r\n\x1a\n":
        if "lock" in str(error):
            return "is being written by another process; wait until it is done"
        if "truncated" in str(error):
            return f"is truncated: the HDF5 file goes on after its {size} bytes; copy it again"
        return f"is a damaged HDF5 file ({_short(error)}); copy it again"
    if start.startswith(b"PK"):
        return f"is a zip or .npz file, not HDF5; {imported}"
    if start.startswith(b"\x93NUMPY"):
        return f"is a .npy file, not HDF5; {imported}"
    if start.startswith(b"PAR1"):
        return f"is a Parquet file, not HDF5; {imported}"
    return "is not an HDF5 file; expected a feature store, see `ldmlr store import`"


def _short(error: BaseException) -> str:
    return str(error).splitlines()[0][:160] if str(error) else type(error).__name__


def read_file(
    path: Path,
    report: Report,
    *,
    features_key: str | None = None,
    labels_key: str | None = None,
    check_values: bool = True,
) -> FileParts:
    """Read the description of a store file, its labels and its head.

    Parameters
    ----------
    path
        An HDF5 file.
    report
        Where problems go.
    features_key, labels_key
        Datasets of another layout; ``{split}`` in a key stands for train, test and val, a key
        without it names the training rows.
    check_values
        Look through small features for NaN and infinity.
    """
    path = Path(path)
    with open_hdf5(path) as handle:
        try:
            return _Reader(path, handle, report, features_key, labels_key, check_values).read()
        except InputError:
            raise
        except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
            # h5py's own words for a damaged object: which exception it raises depends on the damage.
            raise InputError(f"{path}: is a damaged HDF5 file ({_short(error)}); copy it again") from error


class _Reader:
    """Reads one file; keeps what its checks have in common."""

    def __init__(
        self,
        path: Path,
        handle: h5py.File,
        report: Report,
        features_key: str | None,
        labels_key: str | None,
        check_values: bool,
    ):
        self.path, self.handle, self.report = path, handle, report
        self.file = DataFile.of(path)
        self.features_key, self.labels_key = features_key, labels_key
        self.check_values = check_values
        self.names: dict[str, str] = {}

    def problem(self, dataset: str, what: str, remedy: str) -> None:
        where = f"{self.path}: {dataset}" if dataset else str(self.path)
        self.report.problem(f"{where}: {what}; {remedy}")

    def read(self) -> FileParts:
        attributes = {key: _plain(value) for key, value in self.handle.attrs.items()}
        self._check_attributes(attributes)
        found = self._find()
        splits = {name: self._split(name, *keys) for name, keys in found.items()}
        dims = {name: parts.rows.shape[1] for name, parts in splits.items()}
        dim = next(iter(dims.values()))
        for name, other in dims.items():
            if other != dim:
                first = next(iter(dims))
                self.problem(
                    f"/{name}/features", f"has dim {other}, but /{first}/features has dim {dim}",
                    "encode both with the same network",
                )  # fmt: skip
        if attributes.get("dim", dim) != dim:
            self.problem("", f"the attribute dim is {attributes['dim']}, but the features have dim {dim}",
                         "write the store again")  # fmt: skip
        head = self._head()
        names = self._class_names()
        classes = self._num_classes(attributes, splits, head, names)
        self._check_classes(splits, head, names, classes, dim)
        checksums = {
            name: _text(self.handle[key].attrs["sha256"]) if "sha256" in self.handle[key].attrs else None
            for name, key in self.names.items()
        }
        return FileParts(
            self.file, splits, head, names, classes, dim, attributes, checksums, dict(self.names)
        )

    def _check_attributes(self, attributes: dict[str, Any]) -> None:
        kind = str(attributes.get("format", ""))
        if not kind.startswith("ldmlr"):
            return  # a plain file: what is missing is derived
        if kind != FORMAT:
            self.problem("", f"its format is {kind!r}, expected {FORMAT!r}", "name a feature store")
        version = attributes.get("schema_version")
        if version != SCHEMA_VERSION:
            self.problem("", f"has schema_version {version!r}, this version reads {SCHEMA_VERSION}",
                         "upgrade ldmlr, or write the store again")  # fmt: skip
        if not attributes.get("complete"):
            self.problem("", "is not complete: its writing was interrupted", "write it again")

    def _find(self) -> dict[str, tuple[str, str]]:
        """Return the datasets of features and labels of each split."""
        features, labels = self.features_key, self.labels_key
        if features is None and labels is None:
            pairs = {name: (f"{name}/features", f"{name}/labels") for name in SPLITS}
        else:
            features, labels = features or "{split}/features", labels or "{split}/labels"
            names = SPLITS if "{split}" in features else ("train",)
            pairs = {n: (features.replace("{split}", n), labels.replace("{split}", n)) for n in names}
        found = {n: keys for n, keys in pairs.items() if keys[0] in self.handle}
        if not found:
            raise InputError(f"{self.path}: {self._nothing_found(pairs)}")
        return found

    def _nothing_found(self, pairs: dict[str, tuple[str, str]]) -> str:
        there: list[str] = []
        self.handle.visititems(lambda n, o: there.append(n) if isinstance(o, h5py.Dataset) else None)
        if any(name.endswith("/images") for name in there):
            return (
                "holds images, not features; `ldmlr baseline` and `ldmlr encode` make a feature store of them"
            )
        listed = ", ".join(there[:8]) + (" ..." if len(there) > 8 else "")
        wanted = " or ".join(f"/{keys[0]}" for keys in pairs.values())
        return (
            f"has no dataset {wanted}; it holds {listed or 'no dataset'}: "
            "name them with --features-key and --labels-key"
        )

    def _dataset(self, key: str, name: str) -> h5py.Dataset:
        """Return a dataset that is wholly there, noting under which name of the format it goes."""
        item = self.handle[key]
        where = f"/{key.lstrip('/')}"
        if not isinstance(item, h5py.Dataset):
            raise InputError(f"{self.path}: {where}: is a group, expected a dataset; correct the layout")
        layout = item.id.get_create_plist().get_layout()
        if layout == h5py.h5d.VIRTUAL or item.external:
            raise InputError(
                f"{self.path}: {where}: keeps its rows in other files, which HDF5 fills in silently "
                "when they are missing; copy it into one file, or write a manifest of shards"
            )
        if item.size:
            self._check_storage(item, layout, where)
        self.names[name] = key
        return item

    def _check_storage(self, item: h5py.Dataset, layout: int, where: str) -> None:
        if layout == h5py.h5d.CHUNKED:
            expected = math.prod(-(-n // c) for n, c in zip(item.shape, item.chunks, strict=True))
            present = item.id.get_num_chunks()
            if present < expected:
                raise InputError(
                    f"{self.path}: {where}: {expected - present} of {expected} chunks were never "
                    "written; write the file again"
                )
        elif layout == h5py.h5d.CONTIGUOUS:
            offset = item.id.get_offset()
            if offset is None:
                raise InputError(f"{self.path}: {where}: was never written; write the file again")
            if offset + item.id.get_storage_size() > self.file.size:
                raise InputError(f"{self.path}: {where}: the file is truncated; copy it again")

    def _split(self, name: str, features_key: str, labels_key: str) -> SplitParts:
        dataset = self._dataset(features_key, f"/{name}/features")
        where = f"/{features_key.lstrip('/')}"
        if dataset.ndim != 2 or dataset.shape[1] == 0:
            raise InputError(
                f"{self.path}: {where}: has shape {dataset.shape}, expected [N, D]; "
                "flatten the features to one row per sample"
            )
        rows = self._rows(dataset, where)[0][0]
        labels = self._labels(labels_key, f"/{name}/labels", where, len(rows))
        parts = SplitParts(rows, labels)
        group = self.handle.get(name) if self.features_key is None else None
        if isinstance(group, h5py.Group):
            self._extras(name, group, parts, dataset.shape)
        return parts

    def _rows(self, dataset: h5py.Dataset, where: str) -> tuple[list[Rows], Array | None]:
        """Return the rows of a dataset ``[N, D]``, or one per view of ``[K, N, D]``."""
        storage = self._storage(dataset, where)
        shape = (int(dataset.shape[-2]), int(dataset.shape[-1]))
        views = [None] if dataset.ndim == 2 else list(range(dataset.shape[0]))
        layout = dataset.id.get_create_plist().get_layout()
        if layout == h5py.h5d.CONTIGUOUS and not dataset.external:
            start = dataset.id.get_offset() or 0
            step = shape[0] * shape[1] * dataset.dtype.itemsize
            mapped: list[Rows] = [
                MappedRows(self.file, start + (view or 0) * step, shape, dataset.dtype, storage)
                for view in views
            ]
            self._check_finite(mapped, where)
            return mapped, None
        if dataset.size * dataset.dtype.itemsize > IN_MEMORY_BYTES:
            return [ChunkedRows(self.file, dataset.name, view, shape, storage) for view in views], None
        values = dataset[...]
        if storage not in ("float16", "bfloat16"):
            with np.errstate(over="ignore"):
                values, storage = values.astype(np.float32, copy=False), "float32"
        loaded: list[Rows] = [ArrayRows(values if view is None else values[view], storage) for view in views]
        self._check_finite(loaded, where)
        return loaded, values

    def _storage(self, dataset: h5py.Dataset, where: str) -> str:
        kind = dataset.dtype
        if kind == np.uint16:
            if _text(dataset.attrs.get("dtype", "")) != "bfloat16":
                raise InputError(
                    f"{self.path}: {where}: is uint16 without the attribute dtype='bfloat16'; "
                    "set it, or store float32"
                )
            return "bfloat16"
        if kind.kind not in "fiu":
            raise InputError(f"{self.path}: {where}: is {kind}, expected float32, float16 or bfloat16; "
                             "convert the features")  # fmt: skip
        return str(kind.name)

    def _check_finite(self, parts: Iterable[Rows], where: str) -> None:
        if not self.check_values:
            return
        for rows in parts:
            if rows.shape[0] * rows.shape[1] * 4 <= CHECK_BYTES:
                message = not_finite(rows)
                if message:
                    self.problem(where, message, "remove these rows, or encode them again")

    def _labels(self, key: str, name: str, features: str, rows: int) -> Int64:
        where = f"/{key.lstrip('/')}"
        if key not in self.handle:
            self.problem(where, "is missing", f"add one label per row of {features}, or name the dataset "
                         "with --labels-key")  # fmt: skip
            return np.zeros(rows, np.int64)
        dataset = self._dataset(key, name)
        if dataset.dtype.kind not in "iu":
            self.problem(where, f"is {dataset.dtype}, expected whole numbers 0 .. C-1",
                         "convert it, or use `ldmlr store import`, which maps other labels")  # fmt: skip
            return np.zeros(rows, np.int64)
        if dataset.shape != (rows,):
            self.problem(where, f"has shape {dataset.shape}, but {features} has {rows} rows",
                         "give one label per row")  # fmt: skip
            return np.zeros(rows, np.int64)
        labels = np.ascontiguousarray(dataset[...]).astype(np.int64)
        if rows and labels.min() < 0:
            bad = labels < 0
            self.problem(where, f"{int(bad.sum())} labels are negative, the first in row {int(bad.argmax())}",
                         "expected 0 .. C-1; `ldmlr store import` maps other labels")  # fmt: skip
            labels = np.maximum(labels, 0)
        return labels

    def _extras(self, name: str, group: h5py.Group, parts: SplitParts, shape: tuple[int, ...]) -> None:
        count = shape[0]
        for extra, expected in (("source", (count,)), ("ids", (count,)), ("views", None)):
            if extra not in group:
                continue
            where = f"/{name}/{extra}"
            dataset = self._dataset(f"{name}/{extra}", where)
            if extra == "views":
                self._views(dataset, where, parts, shape)
            elif dataset.shape != expected:
                self.problem(where, f"has shape {dataset.shape}, but there are {count} rows",
                             "give one entry per row")  # fmt: skip
            elif extra == "ids":
                parts.ids = functools.partial(read_ids, self.file, f"{name}/ids")
            elif dataset.dtype.kind not in "iu":
                self.problem(
                    where, f"is {dataset.dtype}, expected 0 (encoded) or 1 (generated)", "convert it"
                )
            else:
                source = dataset[...]
                if count and not np.isin(source, (0, 1)).all():
                    self.problem(where, "holds other values than 0 (encoded) and 1 (generated)", "correct it")
                parts.source = source.astype(np.uint8)

    def _views(self, dataset: h5py.Dataset, where: str, parts: SplitParts, shape: tuple[int, ...]) -> None:
        if dataset.ndim != 3 or dataset.shape[1:] != shape:
            self.problem(where, f"has shape {dataset.shape}, expected [K, {shape[0]}, {shape[1]}]",
                         "give every view one row per sample")  # fmt: skip
            return
        kinds = tuple(_text(kind) for kind in np.atleast_1d(dataset.attrs.get("kinds", [])))
        if kinds and len(kinds) != dataset.shape[0]:
            self.problem(
                where, f"has {len(kinds)} kinds for {dataset.shape[0]} views", "name one kind per view"
            )
        if dataset.shape[0]:
            parts.views = Views(*self._rows(dataset, where))
        parts.view_kinds = kinds

    def _head(self) -> StoredHead | None:
        group = self.handle.get("head")
        if not isinstance(group, h5py.Group) or "weight" not in group:
            return None
        arrays = {}
        for key in group:
            dataset = self._dataset(f"head/{key}", f"/head/{key}")
            if dataset.dtype.kind not in "fiu":
                raise InputError(
                    f"{self.path}: /head/{key}: is {dataset.dtype}, expected numbers; convert it"
                )
            arrays[key] = np.asarray(dataset[()])
            if not np.isfinite(arrays[key]).all():
                self.problem(f"/head/{key}", "holds NaN or infinity", "train the head again")
        weight = arrays.pop("weight").astype(np.float32)
        bias = arrays.pop("bias", None)
        if weight.ndim != 2 or (bias is not None and bias.shape != weight.shape[:1]):
            shapes = weight.shape if bias is None else (weight.shape, bias.shape)
            raise InputError(f"{self.path}: /head: has shape {shapes}, expected weight [C, D] and bias [C]; "
                             "store the head again")  # fmt: skip
        kind = _text(group.attrs.get("kind", "linear"))
        return StoredHead(kind, weight, None if bias is None else bias.astype(np.float32), arrays)

    def _class_names(self) -> tuple[str, ...] | None:
        if "class_names" not in self.handle:
            return None
        return tuple(_text(name) for name in self._dataset("class_names", "/class_names")[...])

    def _num_classes(
        self,
        attributes: dict[str, Any],
        splits: dict[str, SplitParts],
        head: StoredHead | None,
        names: tuple[str, ...] | None,
    ) -> int:
        if isinstance(attributes.get("num_classes"), int):
            return int(attributes["num_classes"])
        if head is not None:
            return int(head.weight.shape[0])
        if names is not None:
            return len(names)
        return 1 + max((int(parts.labels.max()) for parts in splits.values() if parts.labels.size), default=0)

    def _check_classes(
        self,
        splits: dict[str, SplitParts],
        head: StoredHead | None,
        names: tuple[str, ...] | None,
        classes: int,
        dim: int,
    ) -> None:
        if head is not None and head.weight.shape != (classes, dim):
            self.problem(
                "/head/weight",
                f"has shape {list(head.weight.shape)}, expected [{classes}, {dim}]: classes x dim of the features",
                "store the head that belongs to the features",
            )
        if names is not None and len(names) != classes:
            self.problem("/class_names", f"has {len(names)} names for {classes} classes", "name every class")
        for name, parts in splits.items():
            bad = parts.labels >= classes
            if bad.any():
                row = int(bad.argmax())
                self.problem(
                    f"/{self.names[f'/{name}/labels'].lstrip('/')}",
                    f"{int(bad.sum())} labels are not in 0 .. {classes - 1}, the first is "
                    f"{int(parts.labels[row])} in row {row}", "correct the labels or num_classes",
                )  # fmt: skip
                parts.labels = np.minimum(parts.labels, classes - 1)


def not_finite(rows: Rows) -> str | None:
    """Return a message about rows with NaN or infinity, or None if all values are finite."""
    first, count = -1, 0
    for start, block in rows.blocks():
        if not np.isfinite(block).all():
            bad = np.flatnonzero(~np.isfinite(block).all(axis=1))
            first = start + int(bad[0]) if first < 0 else first
            count += len(bad)
    return None if first < 0 else f"{count} rows hold NaN or infinity, the first is row {first}"


def read_ids(file: DataFile, dataset: str) -> Array:
    """Read the ids of a split: int64, or texts."""
    with open_hdf5(file.path) as handle:
        file.check(file.path.stat())
        values = handle[dataset][...]
    if values.dtype.kind in "iu":
        return np.asarray(values, dtype=np.int64)
    result = np.empty(len(values), dtype=object)
    result[:] = [_text(value) for value in values]
    return result


def read_config(attributes: dict[str, Any]) -> dict[str, Any]:
    """Return the configuration kept in the attributes, or an empty one."""
    try:
        config = json.loads(attributes.get("config", "{}"))
    except (TypeError, ValueError):
        return {}
    return config if isinstance(config, dict) else {}


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return _text(value)
    if isinstance(value, np.ndarray):
        return [_plain(entry) for entry in value.tolist()]
    return value.item() if hasattr(value, "item") else value
