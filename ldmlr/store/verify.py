"""Checking every byte of a store: `verify` names all problems, not only the first."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ldmlr import progress
from ldmlr.boundary import boundary
from ldmlr.errors import LdmlrError
from ldmlr.files import os_error
from ldmlr.isolated import call, inside, size_of
from ldmlr.remote import RemotePath, as_path, is_remote
from ldmlr.spool import fetched_together
from ldmlr.store.datasets import dataset_blocks, is_wide, not_finite_rows, storage_name, stored_bytes
from ldmlr.store.layout import Array, repeated_name, root_sha256
from ldmlr.store.opening import (
    Collector,
    check_file,
    check_no_keys,
    has_checksums,
    open_hdf5,
    reading_hdf5,
)
from ldmlr.store.parts import FileParts
from ldmlr.store.reading import read_file
from ldmlr.store.shards import is_manifest, manifest_shards, read_manifest

# Where features and labels are, in a file of another layout.
Keys = tuple[str | None, str | None]


@dataclasses.dataclass
class Verification:
    """What was found.

    Attributes
    ----------
    path
        The file.
    problems
        One line each; a store without any is sound.
    warnings
        What is allowed but may surprise, such as a class without training rows.
    datasets
        What was read: name, shape, type, and whether its checksum is right (None: it has none).
    """

    path: Path
    problems: list[str] = dataclasses.field(default_factory=list)
    warnings: list[str] = dataclasses.field(default_factory=list)
    datasets: list[dict[str, Any]] = dataclasses.field(default_factory=list)


def verify(
    path: str | Path,
    untrusted: bool = False,
    *,
    features_key: str | None = None,
    labels_key: str | None = None,
) -> Verification:
    """Read a store (or all shards of one) completely and return everything that is wrong with it.

    Layout, attributes, labels, head, checksums, and NaN or infinity in any row.

    Parameters
    ----------
    path
        The file.
    untrusted
        Read in a process with limits of time and memory, whatever the file: it may have been made to do
        harm. A file that is no store of this package, or one in shards, is read so anyway.
    features_key, labels_key
        Datasets of another layout, as of `FeatureStore.open`.
    """
    path = as_path(path)
    keys = (features_key, labels_key)
    if is_remote(path):
        return _verify_elsewhere(path, untrusted, keys)
    if inside() or not (untrusted or _is_foreign(path)):
        return _verify(path, keys)
    try:
        plain = call(_verify_plainly, path, *keys, path=path, size=sum(map(size_of, _files(path))))
    except LdmlrError as error:
        return Verification(path, [error.message])
    return Verification(path, **plain)


def _verify_elsewhere(path: RemotePath, untrusted: bool, keys: Keys) -> Verification:
    """Verify objects: where they lie, or copies of those that are to be read in a process with limits."""
    if not untrusted and (is_manifest(path) or not _is_foreign(path)):
        return _verify(path, keys)
    try:
        copies = fetched_together([file for file in _files(path) if is_remote(file)])
    except OSError as error:
        return Verification(path, [os_error(error, path).message])
    found = verify(copies[0], untrusted, features_key=keys[0], labels_key=keys[1])
    here, there = str(copies[0].parent), str(path.parent)

    def renamed(lines: list[str]) -> list[str]:
        return [line.replace(here, there) for line in lines]

    return Verification(path, renamed(found.problems), renamed(found.warnings), found.datasets)


def _is_foreign(path: Path) -> bool:
    """Tell whether a file is anything but HDF5 whose structures carry checksums, as stores have them."""
    try:
        check_file(path)
        with path.open("rb") as handle:
            start = handle.read(9)
    except (OSError, LdmlrError):
        return False
    return not has_checksums(start)


def _files(path: Path) -> list[Path]:
    """Return the files that a check reads."""
    try:
        return [path, *manifest_shards(path)] if is_manifest(path) else [path]
    except LdmlrError:
        return [path]


def _verify_plainly(path: str, features_key: str | None, labels_key: str | None) -> dict[str, Any]:
    """Return what `_verify` finds as plain data, for the process that asked."""
    found = dataclasses.asdict(_verify(as_path(path), (features_key, labels_key)))
    del found["path"]
    return found


def _verify(path: Path, keys: Keys) -> Verification:
    found = Verification(as_path(path))
    report = Collector()
    try:
        with boundary(path, "feature store", "copy or write it again"):
            _verify_all(found, report, keys)
    except LdmlrError as error:
        if error.message not in report.problems:
            report.problem(error.message)
    found.problems = report.problems
    return found


def _verify_all(found: Verification, report: Collector, keys: Keys) -> None:
    try:
        check_file(found.path)
        if is_manifest(found.path):
            check_no_keys(found.path, "the shards of a manifest are stores", *keys)
            for shard in manifest_shards(found.path):
                if shard.exists():
                    _verify_file(shard, found, report, (None, None))
            parts = read_manifest(found.path, _Deduplicated(report), check_values=False)
        else:
            parts = _verify_file(found.path, found, report, keys)
        found.warnings += _class_warnings(parts)
    except OSError as error:
        report.problem(os_error(error, found.path).message)


class _Deduplicated(Collector):
    """Passes on problems that were not reported before."""

    def __init__(self, report: Collector):
        super().__init__()
        self.report = report

    def problem(self, message: str) -> None:
        if message not in self.report.problems:
            self.report.problem(message)


def _verify_file(path: Path, found: Verification, report: Collector, keys: Keys) -> FileParts:
    parts = read_file(path, report, features_key=keys[0], labels_key=keys[1], check_values=False)
    plain = "format" not in parts.attributes
    if plain:
        found.warnings.append(
            f"{path}: a plain file without checksums; `ldmlr store import` makes a complete store of it"
        )
    with open_hdf5(path) as handle:
        _check_root(path, parts, report)
        sizes = {name: handle[key].nbytes for name, key in parts.names.items()}
        with progress.bar(sum(sizes.values()), f"verify {path.name}", unit="B") as bar:
            for name, key in parts.names.items():
                expected = parts.checksums[name]
                if expected is None and not plain:
                    report.problem(f"{path}: {key}: has no sha256; write the store again")
                entry = {
                    "file": path.name,
                    "name": name,
                    "shape": list(handle[key].shape),
                    "dtype": str(handle[key].dtype),
                }
                right = _verify_dataset(path, handle[key], name, expected, report)
                found.datasets.append({**entry, "sha256": right})
                bar.update(sizes[name])
    return parts


def _check_root(path: Path, parts: FileParts, report: Collector) -> None:
    expected = parts.attributes.get("sha256")
    if expected is None:
        if "format" in parts.attributes:
            report.problem(f"{path}: has no attribute sha256; write the store again")
        return
    checksums = {name: str(checksum) for name, checksum in parts.checksums.items()}
    kinds = {name: split.view_kinds for name, split in parts.splits.items()}
    if root_sha256(checksums, parts.attributes, parts.head, kinds) != expected:
        report.problem(
            f"{path}: its attributes or its list of datasets differ from its sha256; "
            "copy the file again, or write it again"
        )


def _verify_dataset(
    path: Path, dataset: h5py.Dataset, name: str, expected: str | None, report: Collector
) -> bool | None:
    """Read a dataset once: checksum and finite values."""
    digest = hashlib.sha256()
    leaf = name.rsplit("/", 1)[-1]
    finite = _Finite(storage_name(f"{path}: {name}", dataset)) if leaf in ("features", "views") else None
    try:
        with reading_hdf5(f"{path}: {dataset.name}"):
            for block in dataset_blocks(dataset):
                digest.update(stored_bytes(block))
                if finite:
                    finite.look_at(block)
    except LdmlrError as error:
        report.problem(error.message)
        return False
    if finite and finite.count:
        # The views lie one after the other.
        view, first = divmod(finite.first, dataset.shape[-2])
        of = view if dataset.ndim == 3 else None
        rows = not_finite_rows(finite.count, first, dataset.dtype, of)
        report.problem(f"{path}: {dataset.name}: {rows}; remove these rows, or encode them again")
    if expected is None:
        return None
    if digest.hexdigest() != expected:
        report.problem(
            f"{path}: {dataset.name}: its contents differ from its sha256; "
            "copy the file again, or write it again"
        )
    return digest.hexdigest() == expected


class _Finite:
    """Counts rows with NaN or infinity in blocks that come in order."""

    def __init__(self, storage: str):
        self.storage, self.rows, self.count, self.first = storage, 0, 0, -1

    def look_at(self, block: Array) -> None:
        if self.storage == "bfloat16":
            fine = (block & 0x7F80) != 0x7F80
        else:
            with np.errstate(over="ignore"):
                fine = np.isfinite(block.astype(np.float32) if is_wide(block.dtype) else block)
        if not fine.all():
            bad = np.flatnonzero(~fine.all(axis=-1))
            self.first = self.rows + int(bad[0]) if self.first < 0 else self.first
            self.count += len(bad)
        self.rows += len(block)


def _class_warnings(parts: FileParts) -> list[str]:
    """Name classes without training rows, or with only one.

    A store of generated rows has rows of those classes alone that are filled up: that is no surprise.
    """
    train = parts.splits.get("train")
    if train is None:
        return [f"{parts.file.path}: has no training rows"]
    counts = np.bincount(train.labels, minlength=parts.num_classes)
    repeated = repeated_name(parts.class_names)
    warnings = [] if repeated is None else [f"{parts.file.path}: /class_names: {repeated}; rename one"]
    generated = train.source is not None and bool(np.asarray(train.source).all())
    for rows, words in () if generated else ((0, "no training row"), (1, "a single training row")):
        classes = np.flatnonzero(counts == rows)
        if len(classes):
            listed = ", ".join(map(str, classes[:10])) + (" ..." if len(classes) > 10 else "")
            plural = "class has" if len(classes) == 1 else "classes have"
            warnings.append(f"{parts.file.path}: /train/labels: {len(classes)} {plural} {words}: {listed}")
    return warnings
