"""Reading the description of a store file: everything but the features themselves.

Every check of a file's layout and of its small datasets is here, once. A problem is given to a
`Report`: opening a store raises the first one, `verify` collects them all.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ldmlr.arguments import beyond_int64, class_count
from ldmlr.errors import InputError, counted, listed, opt
from ldmlr.files import parse_json
from ldmlr.objects import looked_up_once
from ldmlr.remote import as_path
from ldmlr.store.datasets import check_present, dataset_names, is_ours, not_finite, text, views_of
from ldmlr.store.ids import StoredIds
from ldmlr.store.layout import (
    FORMAT,
    SCHEMA_VERSION,
    SPLITS,
    StoredHead,
    is_count,
    known_count,
    outside_remedy,
)
from ldmlr.store.names import CLASS_NAME_KEYS, enum_names, names_of_classes
from ldmlr.store.opening import Report, open_hdf5, place_of, reading_hdf5
from ldmlr.store.packed import feature_rows, missing_labels
from ldmlr.store.parts import FileParts, SplitParts
from ldmlr.store.rows import DataFile, Rows

# Features up to this size are looked through for NaN and infinity when a store is opened; larger
# ones by `verify` and by the importers only, since opening must not read terabytes.
CHECK_BYTES = 64 << 20

REQUIRED = ("schema_version", "complete", "num_classes", "dim", "encoder", "created_with", "config")
# What other programs may mean something else by: in their files these say nothing of ours.
OURS = ("format", "schema_version", "complete", "num_classes", "dim", "sha256")


def read_file(
    path: Path,
    report: Report,
    *,
    features_key: str | None = None,
    labels_key: str | None = None,
    check_values: bool = True,
    any_labels: bool = False,
    place: Path | None = None,
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
    any_labels
        Accept labels of any kind: the caller maps ``raw_labels``.
    place
        Where the file lies, if `path` is relative to a working folder of the past.
    """
    path = as_path(path)
    with looked_up_once(), open_hdf5(path, place := place_of(path, place)) as handle, reading_hdf5(path):
        file = DataFile.of(path, place)
        reader = _Reader(file, handle, report, check_values, any_labels)
        return reader.read(reader.find(features_key, labels_key))


def read_config(attributes: dict[str, Any]) -> dict[str, Any]:
    """Return the configuration kept in the attributes, or an empty one."""
    try:
        config = parse_json(attributes.get("config", "{}"))
    except (TypeError, ValueError):
        return {}
    return config if isinstance(config, dict) else {}


class _Reader:
    """Reads one file; keeps what its checks have in common."""

    def __init__(
        self, file: DataFile, handle: h5py.File, report: Report, check_values: bool, any_labels: bool
    ):
        self.file, self.path, self.handle, self.report = file, file.path, handle, report
        self.check_values, self.any_labels = check_values, any_labels
        self.names: dict[str, str] = {}
        self.ours = False

    def problem(self, dataset: str, what: str, remedy: str) -> None:
        where = f"{self.path}: {dataset}" if dataset else str(self.path)
        self.report.problem(f"{where}: {what}; {remedy}")

    def find(self, features: str | None, labels: str | None) -> dict[str, tuple[str, str]]:
        """Return the datasets of features and labels of each split."""
        features, labels = features or "{split}/features", labels or "{split}/labels"
        names = SPLITS if "{split}" in features else ("train",)
        pairs = {n: (_absolute(features, n), _absolute(labels, n)) for n in names}
        found = {n: keys for n, keys in pairs.items() if keys[0] in self.handle}
        if found:
            return found
        there = dataset_names(self.handle)
        if any(name.endswith("/images") for name in there):
            raise InputError(
                f"{self.path}: holds images, not features; `ldmlr baseline` and `ldmlr encode` make a "
                "feature store of them"
            )
        raise InputError(
            f"{self.path}: has no dataset {' or '.join(keys[0] for keys in pairs.values())}; it holds "
            f"{listed(there) or 'no dataset'}: name them with {opt('features_key')} and {opt('labels_key')}"
        )

    def read(self, found: dict[str, tuple[str, str]]) -> FileParts:
        attributes = {key: _plain(value) for key, value in self.handle.attrs.items()}
        self._check_attributes(attributes)
        splits = {name: self._split(name, *keys) for name, keys in found.items()}
        dim = next(iter(splits.values())).rows.shape[1]
        for name, parts in splits.items():
            if parts.rows.shape[1] != dim:
                first = next(iter(splits))
                self.problem(
                    f"/{name}/features",
                    f"has dim {parts.rows.shape[1]}, but /{first}/features has dim {dim}",
                    "encode both with the same network",
                )
        if attributes.get("dim", dim) != dim:
            self.problem(
                "", f"the attribute dim is {attributes['dim']}, but dim is {dim}", "write the store again"
            )
        head, names = self._head(), self._class_names(splits) or enum_names(splits)
        labels = {f"/{name}/labels": parts.labels for name, parts in splits.items()}
        known = known_count(attributes, head, names)
        classes = known or class_count(
            [(f"{self.path}: {self.names.get(name, name)}", values) for name, values in labels.items()],
            "let `ldmlr store import` map the labels to 0 .. C-1",
        )
        self._check_classes(splits, head, names, classes, dim, known is not None)
        checksums = {name: self._checksum(key) for name, key in self.names.items()}
        return FileParts(
            self.file, splits, head, names, classes, dim, attributes, checksums, dict(self.names)
        )

    def _check_attributes(self, attributes: dict[str, Any]) -> None:
        kind = attributes.get("format")
        self.ours = is_ours(kind)
        if not self.ours:
            for key in OURS:
                attributes.pop(key, None)
            return  # a plain file: what is missing is derived
        if kind != FORMAT:
            self.problem("", f"its format is {kind!r}, expected {FORMAT!r}", "name a feature store")
        missing = [key for key in REQUIRED if key not in attributes]
        if missing:
            self.problem("", f"has no attribute {', '.join(missing)}", "write the store again")
        if attributes.get("schema_version", SCHEMA_VERSION) != SCHEMA_VERSION:
            self.problem(
                "",
                f"has schema_version {attributes['schema_version']!r}, this version reads {SCHEMA_VERSION}",
                "upgrade ldmlr, or write the store again",
            )
        if not attributes.get("complete", True):
            self.problem("", "is not complete: its writing was interrupted", "write it again")
        if not is_count(attributes.get("num_classes", 1)):
            self.problem("", "the attribute num_classes is not a positive number", "write the store again")
            attributes.pop("num_classes")

    def _checksum(self, key: str) -> str | None:
        attributes = self.handle[key].attrs
        return text(attributes["sha256"]) if self.ours and "sha256" in attributes else None

    def _dataset(self, key: str, name: str) -> h5py.Dataset:
        """Return a dataset that is wholly there; `name` is what the format calls it."""
        link = self.handle.get(key, getlink=True)
        if isinstance(link, h5py.SoftLink | h5py.ExternalLink) and self.handle.get(key) is None:
            raise InputError(
                f"{self.path}: {key}: is a link to {link.path}, where nothing is; copy the dataset itself"
            )
        item = self.handle[key]
        if not isinstance(item, h5py.Dataset):
            raise InputError(f"{self.path}: {key}: is a group, expected a dataset; correct the layout")
        check_present(self.file, self.handle, item)
        self.names[name] = key
        return item

    def _split(self, name: str, features_key: str, labels_key: str) -> SplitParts:
        dataset = self._dataset(features_key, f"/{name}/features")
        rows = feature_rows(self.file, dataset)
        self._check_finite([rows], features_key, dataset.dtype)
        parts = SplitParts(rows, np.zeros(len(rows), np.int64))
        self._labels(labels_key, f"/{name}/labels", features_key, parts)
        group = self.handle.get(name)
        if isinstance(group, h5py.Group) and features_key == f"/{name}/features":
            self._extras(f"/{name}", group, parts)
        return parts

    def _check_finite(self, parts: list[Rows], where: str, kind: np.dtype[Any]) -> None:
        # Elsewhere all rows would be fetched. Those of ours were looked through when they were written.
        fetched = self.ours and not self.file.is_mappable
        for rows in parts if self.check_values and not fetched else []:
            message = not_finite(rows, kind) if rows.shape[0] * rows.shape[1] * 4 <= CHECK_BYTES else None
            if message:
                self.problem(where, message, "remove these rows, or encode them again")

    def _labels(self, key: str, name: str, features: str, parts: SplitParts) -> None:
        count = len(parts.rows)
        if key not in self.handle:
            remedy = f"add one label per row of {features}, or name them with {opt('labels_key')}"
            self.problem(key, "is missing", remedy)
            return
        dataset = self._dataset(key, name)
        # One column of labels is what pandas, keras and MATLAB write.
        if dataset.shape not in ((count,), (count, 1), (1, count)):
            self.problem(
                key,
                f"has shape {dataset.shape}, but {features} has {counted(count, 'row')}",
                "give one label per row",
            )
            return
        values = dataset[...].reshape(-1)
        missing = missing_labels(values, dataset)
        if missing.any():
            row = int(missing.argmax())
            self.problem(key, f"row {row} holds {values[row]}, which stands for a missing value", "remove it")
        parts.label_names = h5py.check_enum_dtype(dataset.dtype)
        if self.any_labels:
            parts.raw_labels = values
            return
        if dataset.dtype.kind not in "iu":
            self.problem(
                key,
                f"is {dataset.dtype}, expected whole numbers 0 .. C-1",
                "convert it, or let `ldmlr store import` map it",
            )
            return
        if beyond_int64(values) is not None:
            self.problem(
                key,
                f"holds {values.max()}, expected whole numbers 0 .. C-1",
                "number the classes 0 .. C-1",
            )
            return
        parts.labels = np.ascontiguousarray(values, dtype=np.int64)

    def _extras(self, where: str, group: h5py.Group, parts: SplitParts) -> None:
        count = len(parts.rows)
        if "source" in group:
            dataset = self._dataset(f"{where}/source", f"{where}/source")
            values = dataset[...] if dataset.shape == (count,) and dataset.dtype.kind in "iu" else None
            if values is None or not np.isin(values, (0, 1)).all():
                self.problem(
                    f"{where}/source",
                    f"is {dataset.dtype} of shape {dataset.shape}, expected {count} times 0 (encoded) or "
                    "1 (generated)",
                    "correct it",
                )
            else:
                parts.source = values.astype(np.uint8)
        if "ids" in group:
            dataset = self._dataset(f"{where}/ids", f"{where}/ids")
            if dataset.shape != (count,) or dataset.dtype.kind not in "iuSO":
                self.problem(
                    f"{where}/ids",
                    f"is {dataset.dtype} of shape {dataset.shape}, expected "
                    f"{counted(count, 'number')} or texts",
                    "give one id per row",
                )
            else:
                is_text = dataset.dtype.kind not in "iu"
                parts.ids = StoredIds(self.file, f"{where}/ids", count, is_text)
        if "views" in group:
            self._views(self._dataset(f"{where}/views", f"{where}/views"), f"{where}/views", parts)

    def _views(self, dataset: h5py.Dataset, where: str, parts: SplitParts) -> None:
        count, dim = parts.rows.shape
        if dataset.ndim != 3 or dataset.shape[1:] != (count, dim):
            self.problem(
                where,
                f"has shape {dataset.shape}, expected [K, {count}, {dim}]",
                "give every view one row per sample",
            )
            return
        kinds = tuple(text(kind) for kind in np.atleast_1d(dataset.attrs.get("kinds", [])))
        if kinds and len(kinds) != dataset.shape[0]:
            self.problem(
                where,
                f"has {counted(len(kinds), 'kind')} for {counted(dataset.shape[0], 'view')}",
                "name one kind per view",
            )
        if dataset.shape[0]:
            parts.views = views_of(self.file, dataset)
            parts.view_kinds = kinds
            self._check_finite(list(parts.views.parts), where, dataset.dtype)

    def _head(self) -> StoredHead | None:
        group = self.handle.get("head")
        if not isinstance(group, h5py.Group) or "weight" not in group:
            return None
        arrays = {}
        for key in group:
            dataset = self._dataset(f"/head/{key}", f"/head/{key}")
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
            shapes = f"{weight.shape}" + ("" if bias is None else f" and {bias.shape}")
            raise InputError(
                f"{self.path}: /head: has shape {shapes}, expected weight [C, D] and bias [C]; "
                "store the head again"
            )
        kind = text(group.attrs.get("kind", "linear"))
        return StoredHead(kind, weight, None if bias is None else bias.astype(np.float32), arrays)

    def _class_names(self, splits: dict[str, SplitParts]) -> tuple[str, ...] | None:
        if "class_names" not in self.handle:
            return None if self.ours else self._names_of_others(splits)
        dataset = self._dataset("/class_names", "/class_names")
        if dataset.ndim != 1:
            raise InputError(
                f"{self.path}: /class_names: has shape {dataset.shape}, expected [C]; name every class"
            )
        return tuple(text(name) for name in dataset[...])

    def _names_of_others(self, splits: dict[str, SplitParts]) -> tuple[str, ...] | None:
        """Return the names of the classes under another key, where a foreign file has some that fit."""
        labels = [parts.labels if parts.raw_labels is None else parts.raw_labels for parts in splits.values()]
        for key in CLASS_NAME_KEYS:
            item = self.handle.get(key)
            if not isinstance(item, h5py.Dataset) or f"/{key}" in self.names.values():
                continue
            found = names_of_classes(item[...] if item.ndim == 1 else np.empty((0, 0)), labels)
            if found is not None:
                self._dataset(f"/{key}", "/class_names")
                return found
        return None

    def _check_classes(
        self,
        splits: dict[str, SplitParts],
        head: StoredHead | None,
        names: tuple[str, ...] | None,
        classes: int,
        dim: int,
        known: bool,
    ) -> None:
        if head is not None and head.weight.shape != (classes, dim):
            self.problem(
                "/head/weight",
                f"has shape {list(head.weight.shape)}, expected [{classes}, {dim}] (classes, dim)",
                "store the head that belongs to the features",
            )
        if names is not None and len(names) != classes:
            self.problem(
                "/class_names",
                f"has {counted(len(names), 'name')} for {counted(classes, 'class')}",
                "name every class",
            )
        all_labels = [parts.labels for parts in splits.values()]
        for name, parts in splits.items():
            bad = (parts.labels < 0) | (parts.labels >= classes)
            if bad.any():
                row = int(bad.argmax())
                self.problem(
                    self.names[f"/{name}/labels"],
                    f"labels outside 0 .. {classes - 1}: {int(bad.sum())}, the first is "
                    f"{int(parts.labels[row])} in row {row}",
                    outside_remedy(all_labels, classes, known),
                )
                parts.labels = np.clip(parts.labels, 0, classes - 1)


def _absolute(key: str, split: str) -> str:
    return "/" + key.replace("{split}", split).lstrip("/")


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return text(value)
    if isinstance(value, np.ndarray):
        return [_plain(entry) for entry in value.tolist()]
    return value.item() if hasattr(value, "item") else value
