"""The feature store: open one, or write whole arrays as one."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from ldmlr.arguments import RENUMBER, as_array, class_count
from ldmlr.errors import InputError, UsageError, counted, nearest, opt
from ldmlr.objects import looked_up_once
from ldmlr.remote import as_path, is_remote
from ldmlr.store.datasets import dataset_sha256
from ldmlr.store.layout import (
    SPLITS,
    Array,
    Int64,
    SplitData,
    StoredHead,
    array_sha256,
    contents_sha256,
    known_count,
)
from ldmlr.store.opening import Report, check_file, note_known
from ldmlr.store.parts import FileParts
from ldmlr.store.reading import read_config, read_file
from ldmlr.store.rows import DataFile
from ldmlr.store.shards import is_manifest, read_manifest
from ldmlr.store.split import Split
from ldmlr.store.writer import StoreWriter, write_split


class FeatureStore:
    """An open feature store. The features stay on disk until they are asked for.

    Use `FeatureStore.open`. No handle stays open; a store may be used after a fork and pickled.

    Attributes
    ----------
    path
        The file (or the manifest of a store in shards).
    train, test, val
        `Split` or None.
    head
        `StoredHead` or None.
    class_names
        One name per class, or None.
    num_classes, dim
        C and D.
    encoder
        What made the features, in words.
    attributes, config
        The root attributes of the file, and the configuration among them.
    checksums
        The stored sha256 of each dataset, None where the file has none.
    """

    def __init__(self, path: Path, splits: Mapping[str, Split], parts: FileParts):
        self.path = as_path(path)
        self.splits = dict(splits)
        self.train, self.test, self.val = (self.splits.get(name) for name in SPLITS)
        self.head = parts.head
        self.class_names = parts.class_names
        self.num_classes = parts.num_classes
        self.dim = parts.dim
        self.attributes = parts.attributes
        self.encoder = str(parts.attributes.get("encoder", ""))
        self.config = read_config(parts.attributes)
        self.checksums = parts.checksums
        self.parts = parts
        self._computed: dict[str, str] = {}
        self._keys: tuple[str | None, str | None] = (None, None)

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        features_key: str | None = None,
        labels_key: str | None = None,
        place: Path | None = None,
    ) -> Self:
        """Open a store, a plain HDF5 file with the same datasets, or the manifest of a store in shards.

        Layout, labels, shapes and the head are checked. Features are looked through for NaN and
        infinity up to 64 MiB, and not where that would fetch them from elsewhere; `ldmlr store verify` reads
        all of them, whatever the size.

        Parameters
        ----------
        path
            The file, or the URL of an object such as ``s3://bucket/features.h5``.
        features_key, labels_key
            Datasets of an HDF5 file in another layout; ``{split}`` in a key stands for train,
            test and val, a key without it names the training rows.
        place
            Where the file lies, if `path` is what messages are to call it.

        Raises
        ------
        InputError
            The file is missing, damaged or holds something else; the message says which.
        """
        return cls._open(path, features_key, labels_key, check_values=True, place=place)

    @classmethod
    def _open(
        cls,
        path: str | Path,
        features_key: str | None,
        labels_key: str | None,
        check_values: bool,
        place: Path | None = None,
    ) -> Self:
        with looked_up_once():
            return cls._opened(path, features_key, labels_key, check_values, place)

    @classmethod
    def _opened(
        cls,
        path: str | Path,
        features_key: str | None,
        labels_key: str | None,
        check_values: bool,
        place: Path | None,
    ) -> Self:
        path = check_file(path, place)
        keys = (features_key, labels_key)
        if is_manifest(place or path):
            if keys != (None, None):
                raise UsageError(
                    f"{path}: is a manifest of shards; leave out {opt('features_key')} and "
                    f"{opt('labels_key')}"
                )
            parts = read_manifest(path, Report(), check_values=check_values, place=place)
        else:
            parts = read_file(
                path, Report(), features_key=features_key, labels_key=labels_key, check_values=check_values,
                place=place,
            )  # fmt: skip
        splits = {
            name: Split.of(name, part, parts.num_classes, reopen=(_reopen, (parts.file, keys, name)))
            for name, part in parts.splits.items()
        }
        store = cls(path, splits, parts)
        store._keys = keys
        return store

    def split(self, name: str) -> Split:
        """Return a split by name; an absent one is an error that names the file."""
        if name not in SPLITS:
            raise UsageError(f"unknown split {name!r}; {nearest(name, SPLITS)}")
        if name not in self.splits:
            raise InputError(
                f"{self.path}: has no split {name!r}, only {', '.join(self.splits)}; "
                f"add /{name}/features and /{name}/labels"
                + (", as `ldmlr store import FILE --test FILE` does" if name == "test" else "")
            )
        return self.splits[name]

    def same_file(self, other: FeatureStore) -> bool:
        """Tell whether two stores are one file, by whatever names."""
        if is_remote(self.path) or is_remote(other.path):
            return self.path == other.path
        try:
            return self.path.samefile(other.path)
        except OSError:  # gone since it was opened, as is the working folder that a name began in
            return False

    def fingerprint(self) -> str:
        """Return a sha256 of the contents, whatever the layout of the file.

        Made of the stored checksums; where the file has none, its datasets are read.
        """
        checksums = {name: self.dataset_sha256(name) for name in self.checksums}
        return contents_sha256(checksums, num_classes=self.num_classes, dim=self.dim)

    def dataset_sha256(self, name: str) -> str:
        """Return the checksum of a dataset such as ``/train/features``; computed if the file has none."""
        checksum = self.checksums.get(name) or self._computed.get(name)
        if checksum is None:
            checksum = self._computed[name] = self._computed_sha256(name)
        return checksum

    def _computed_sha256(self, name: str) -> str:
        if name in self.parts.names:
            return dataset_sha256(self.parts.file, self.parts.names[name])
        digest = hashlib.sha256()  # several shards: of their rows end to end
        split, what = name.strip("/").split("/")
        if what == "labels":
            return array_sha256(self.splits[split].labels)
        for _, block in self.splits[split].rows.blocks():
            digest.update(block.data)
        return digest.hexdigest()

    def close(self) -> None:
        """Do nothing: no handle is open between reads. For the ``with`` statement."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        """Show path, splits and classes."""
        splits = ", ".join(f"{name} {len(split)}" for name, split in self.splits.items())
        return (
            f"FeatureStore({str(self.path)!r}: {splits} rows, dim {self.dim}, "
            f"{counted(self.num_classes, 'class')})"
        )

    def __reduce__(self) -> Any:
        """Pickle by path."""
        return _reopen, (self.parts.file, self._keys, None)

    @classmethod
    def write(
        cls,
        path: str | Path,
        *,
        train: SplitData | Split | None = None,
        test: SplitData | Split | None = None,
        val: SplitData | Split | None = None,
        head: StoredHead | None = None,
        class_names: Sequence[str] | None = None,
        num_classes: int | None = None,
        encoder: str = "",
        config: Mapping[str, Any] | None = None,
        dtype: str = "float32",
        overwrite: bool = False,
    ) -> Self:
        """Write whole arrays (or the splits of another store) as a store, and open it.

        Parameters
        ----------
        path
            The file to write, or its URL.
        train, test, val
            Their rows; arrays on disk are read block by block.
        num_classes
            C; by default that of the head, the class names or the labels.
        head, class_names, encoder, config, dtype, overwrite
            As for `StoreWriter`.
        """
        given = {"train": train, "test": test, "val": val}
        splits = {name: split for name, split in given.items() if split is not None}
        if not splits:
            raise UsageError(f"{path}: no split to write; pass train, test or val")
        labels = _labels(path, splits)
        classes = num_classes or known_count({}, head, class_names) or class_count(labels)
        first = next(iter(splits.values()))
        try:
            shape = first.shape if isinstance(first, Split) else tuple(np.shape(first.features))
        except ValueError:
            raise InputError(f"{path}: features are rows of several lengths, expected [N, D]") from None
        if len(shape) != 2:
            raise InputError(f"{path}: features have shape {shape}, expected [N, D]; flatten them")
        with StoreWriter(
            path, dim=shape[1], num_classes=classes, dtype=dtype, encoder=encoder, config=config,
            class_names=class_names, head=head, overwrite=overwrite,
        ) as writer:  # fmt: skip
            for name, data in splits.items():
                write_split(writer, name, data)
        return cls.open(path)


def _labels(path: str | Path, splits: Mapping[str, SplitData | Split]) -> list[tuple[str, Array]]:
    """Return the labels of each split after what messages call them."""
    found = []
    for name, data in splits.items():
        if not isinstance(data, SplitData | Split):
            raise UsageError(
                f"{name}: expected SplitData(features, labels) or a split of a store, not "
                f"{type(data).__name__}"
            )
        where, labels = f"{path}: /{name}/labels", as_array(data.labels)
        if labels.ndim != 1:
            raise InputError(f"{where}: has shape {labels.shape}, expected [N]; give one label per row")
        if len(labels) and labels.dtype.kind not in "iu":
            raise InputError(f"{where}: is {labels.dtype}, expected whole numbers 0 .. C-1; {RENUMBER}")
        found.append((where, labels))
    return found


def _reopen(file: DataFile, keys: tuple[str | None, str | None], name: str | None) -> FeatureStore | Split:
    """Open a store again in another process; a file that has changed is an error."""
    check_file(file.path, file.place)
    file.check()
    note_known(file.place)
    store = FeatureStore._open(file.path, *keys, check_values=False, place=file.place)
    return store if name is None else store.split(name)


def check_trainable(store: FeatureStore, min_rows: int = 1) -> Int64:
    """Return the training rows per class ``[C]``, if every class has at least `min_rows`.

    Raises
    ------
    InputError
        The store has no training rows, or the classes named have too few.
    """
    counts = store.split("train").counts
    short = np.flatnonzero(counts < min_rows)
    if len(short):
        names = [_class_label(store, int(label)) for label in short[:5]]
        more = f" and {len(short) - 5} more" if len(short) > 5 else ""
        rows = "row" if min_rows == 1 else "rows"
        if short.tolist() == [0] and not counts[0] and _only_labels_tell(store):
            raise InputError(
                f"{store.path}: /train/labels: start from 1, expected 0 .. C-1; `ldmlr store import` numbers "
                "them so"
            )
        raise InputError(
            f"{store.path}: /train/labels: fewer than {min_rows} training {rows} in class "
            f"{', '.join(names)}{more}; add rows, or leave the class out of the store"
        )
    return counts


def _only_labels_tell(store: FeatureStore) -> bool:
    return known_count(store.attributes, store.head, store.class_names) is None


def _class_label(store: FeatureStore, label: int) -> str:
    return f"{label} ({store.class_names[label]})" if store.class_names else str(label)
