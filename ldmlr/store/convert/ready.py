"""Features in any form as a feature store: a copy is made once, kept beside the output and found by hash.

A store, and an HDF5 file laid out like one, is used as it is. Everything else that
`ldmlr.store.convert.sources` reads is converted to ``converted/NAME-HASH.h5`` in the folder of the output.
The hash is of the contents and of what says how to read them, so the copy of a file that has changed is
another one, and the next command in the same folder finds the copy that is there.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ldmlr.errors import InputError, opt
from ldmlr.files import check_input, fitting
from ldmlr.remote import as_path
from ldmlr.runfolder import kept_in_run, of_stage
from ldmlr.spool import local_copy
from ldmlr.store.convert.anndata import is_anndata
from ldmlr.store.convert.config import SourceConfig
from ldmlr.store.convert.delimited import is_delimited
from ldmlr.store.convert.importing import import_store
from ldmlr.store.convert.saved_dataset import is_saved_dataset
from ldmlr.store.convert.sources import labels_beside
from ldmlr.store.datasets import is_ours
from ldmlr.store.opening import is_hdf5, open_hdf5
from ldmlr.store.packed import PACKING, is_turned
from ldmlr.store.shards import is_manifest
from ldmlr.store.store import FeatureStore

# Part of every hash: raise it when the conversion makes something else of the same file.
VERSION = 1
FOLDER = "converted"
BLOCK = 1 << 22


@dataclasses.dataclass(frozen=True)
class Ready:
    """A source as a store, opened when it is needed.

    Attributes
    ----------
    source
        As it was given.
    path
        The store: the source itself, or the copy.
    notes
        What a user should know of the conversion.
    before
        Whether the copy was there already.
    """

    source: Path
    path: Path
    notes: tuple[str, ...] = ()
    before: bool = False

    @property
    def place(self) -> Path | None:
        """Where the store lies that messages call by the name of the source; None where it is the source."""
        return None if self.path == self.source else self.path

    def as_config(self) -> dict[str, str]:
        """Return the place as configurations in result documents say it."""
        return {} if self.place is None else {"converted": str(self.place)}

    def open(self) -> FeatureStore:
        """Open the store; its errors name the source."""
        return FeatureStore.open(self.source, place=self.place)


def ready_store(source: str | Path, folder: Path, keys: SourceConfig | None = None) -> Ready:
    """Return a source as a feature store, converting it where it is none.

    Parameters
    ----------
    source
        A feature store, or features in a form that `ldmlr.store.convert.sources.open_source` reads.
    folder
        That of the output: a copy is kept in its folder ``converted``.
    keys
        Where features and labels are.

    Raises
    ------
    InputError, UsageError
        The source is missing or damaged, or cannot be read as features and labels.
    """
    source, keys = as_path(source), keys or SourceConfig()
    if source.is_dir() and not is_saved_dataset(source):
        raise InputError(f"{source}: {_other_folder(source)}")
    if is_store(source, keys):
        return Ready(source, source)
    digest = _digest(source, keys)
    name = source.name.split(".")[0] or "features"
    copy = as_path(folder) / FOLDER / fitting(name, f"-{digest[:12]}.h5")
    origin = {"source_sha256": digest}
    if is_copy(copy, origin):
        return Ready(source, copy, before=True)
    done = import_store(
        source, copy, features_key=keys.features_key, labels_key=keys.labels_key,
        origin=origin, overwrite=True,
        remedy=f"name the .npy file of their labels with {opt('labels_key')}",
    )  # fmt: skip
    return Ready(source, copy, tuple(done.notes))


def _other_folder(folder: Path) -> str:
    """Say what to give instead of a folder that holds no features: those of its run, if it is that of one."""
    inside = kept_in_run(folder, (of_stage("encode", "features.h5"), f"{FOLDER}/*.h5"))
    if inside is not None:
        return f"is the folder of a run; its features are {inside}"
    return (
        "is a folder where a file of features is expected; of images, ldmlr encode makes features, and ldmlr "
        "run takes them as they are"
    )


def holds_features(source: Path) -> bool:
    """Tell whether a path looks like features in some form, a store among them, and not like images."""
    if source.is_dir():
        return is_saved_dataset(source)
    if is_delimited(source) or source.suffix.lower() in (".npz", ".npy", ".parquet", ".pt", ".pth", ".json"):
        return True
    if source.is_file() and is_hdf5(source):
        with open_hdf5(source) as file:
            return "train/images" not in file
    return False


def is_store(source: Path, keys: SourceConfig) -> bool:
    """Tell whether a source is used as it is: a store, or an HDF5 file that has all a store needs.

    Labels that are no numbering 0 .. C-1, or have names of their own, are for the conversion to map.
    """
    if keys.features_key is not None or keys.labels_key is not None:
        return False
    if is_manifest(source):
        return True
    if not source.is_file() or not is_hdf5(source):
        return False
    with open_hdf5(source) as file:
        if is_ours(file.attrs.get("format")):
            return True
        if is_anndata(file) or "train/features" not in file or "train/labels" not in file:
            return False
        splits = [name for name in ("train", "test", "val") if isinstance(file.get(name), h5py.Group)]
        return all(_is_plain(file[name]) for name in splits)


def _is_plain(group: h5py.Group) -> bool:
    """Tell whether a split can be read as that of a store."""
    features, labels = group.get("features"), group.get("labels")
    if not isinstance(features, h5py.Dataset) or not isinstance(labels, h5py.Dataset):
        return False
    if labels.dtype.kind not in "iu" or h5py.check_enum_dtype(labels.dtype) is not None or labels.ndim != 1:
        return False
    if set(PACKING) & set(features.attrs) or is_turned(features):
        return False
    try:
        found = np.unique(labels[...])
    except (OSError, RuntimeError):  # damaged: for the reader of stores to say how
        return True
    return not len(found) or bool(found[0] == 0)


def is_copy(copy: Path, origin: Mapping[str, Any]) -> bool:
    """Tell whether a copy is there, whole, and made of what its configuration says."""
    if not copy.is_file():
        return False
    try:
        return origin.items() <= FeatureStore.open(copy).config.items()
    except InputError:
        return False


def _digest(source: Path, keys: SourceConfig) -> str:
    """Return the hash of a source: of its files and of the keys."""
    digest = hashlib.sha256(repr((VERSION, keys.features_key, keys.labels_key)).encode())
    for name, part in _files(check_input(source, "file or folder"), keys.labels_key):
        digest.update(name.encode() + b"\0")
        # Of an object the copy is read that will be converted.
        with local_copy(part) as place, open(place, "rb") as handle:
            while block := handle.read(BLOCK):
                digest.update(block)
    return digest.hexdigest()


def _files(source: Path, labels_key: str | None) -> Iterator[tuple[str, Path]]:
    """Yield the files of a source, by their names inside it."""
    if source.is_dir():
        yield from ((str(p.relative_to(source)), p) for p in sorted(source.rglob("*")) if p.is_file())
        return
    yield "", source
    if source.suffix == ".npy":
        labels = labels_beside(source, labels_key)
        if labels is not None and labels.is_file():
            yield "labels", labels
