"""Features and labels in files of other kinds, for import: which array is what.

HDF5 in any layout, ``.npz``, a pair of ``.npy`` files, Parquet, CSV, a saved data set of ``datasets``,
AnnData, ``torch.save``. Labels are returned as they are in the file; `ldmlr.store.convert.labels` maps them.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path

import h5py
import numpy as np

from ldmlr.errors import InputError, UsageError, opt
from ldmlr.files import check_input
from ldmlr.remote import as_path
from ldmlr.store.convert.anndata import is_anndata, read_anndata
from ldmlr.store.convert.arrays import FEATURE_KEYS, LABEL_KEYS, RawSplit, Source, arrays, first
from ldmlr.store.convert.delimited import is_delimited, read_delimited
from ldmlr.store.convert.parquet import read_parquet
from ldmlr.store.convert.saved_dataset import SavedDataset, class_names, is_saved_dataset, split_folders
from ldmlr.store.convert.streams import MemoryRows, load_array, load_member, npy_rows, npz_members, npz_rows
from ldmlr.store.convert.tensors import is_torch_file, load_tensors
from ldmlr.store.datasets import dataset_names
from ldmlr.store.layout import SPLITS, Array
from ldmlr.store.opening import Report, check_no_keys, open_hdf5
from ldmlr.store.parts import SplitParts
from ldmlr.store.reading import read_config, read_file
from ldmlr.store.shards import is_manifest, read_manifest

# What features and their labels are called in .npy files of their own.
_NPY_NAMES = (("X", "y"), ("x", "y"), ("features", "labels"), ("embeddings", "labels"), ("feats", "labels"))
LABEL_COLUMNS = ("label", "labels", "target", "targets", "y", "class")


def open_source(
    path: str | Path,
    labels: str | Path | None = None,
    *,
    features_key: str | None = None,
    labels_key: str | None = None,
    remedy: str = "name the .npy file of labels after it",
) -> Source:
    """Open a file of any kind; which kind is told by its first bytes, not by its name.

    Parameters
    ----------
    path
        HDF5, a manifest of shards, ``.npz``, ``.npy``, Parquet, CSV or TSV, AnnData, a dictionary of
        ``torch.save``, or a folder that ``save_to_disk`` of `datasets` wrote.
    labels
        The labels of an ``.npy`` file: another ``.npy`` file. Without it they are looked for beside the
        features, see `labels_beside`.
    features_key, labels_key
        Names of arrays or columns; ``{split}`` stands for train, test and val.
    remedy
        What to do where the labels of an ``.npy`` file are missing, for messages.
    """
    path = as_path(path)
    if is_saved_dataset(path):
        return _saved_dataset(path, features_key, labels_key)
    path = check_input(path)
    with open(path, "rb") as handle:
        start = handle.read(8)
    if start.startswith(b"\x93NUMPY"):
        check_no_keys(path, "an .npy file holds one array", features_key, None)
        return _npy(path, labels, labels_key, remedy)
    if labels is not None:
        raise UsageError(f"{labels}: a file of labels goes with an .npy file of features, not with {path}")
    if start.startswith(b"PK"):
        if is_torch_file(path):
            tensors, short = load_tensors(path)
            return arrays(
                path, tensors, lambda name: MemoryRows(tensors[name], f"{path}: {name}", name in short),
                tensors.__getitem__, features_key, labels_key,
            )  # fmt: skip
        return arrays(
            path, npz_members(path), lambda name: npz_rows(path, name), lambda name: load_member(path, name),
            features_key, labels_key,
        )  # fmt: skip
    names = (labels_key,) if labels_key else LABEL_COLUMNS
    if start.startswith(b"PAR1"):
        table = read_parquet(path, features_key, names)
        split = RawSplit(table.rows, table.labels, table.source, table.ids)
        return Source({"train": split}, class_names=table.class_names)
    if is_delimited(path):
        rows, found = read_delimited(path, features_key, names)
        return Source({"train": RawSplit(rows, found)})
    if not (h5py.is_hdf5(path) or is_manifest(path)):
        raise InputError(
            f"{path}: is no HDF5, .npz, .npy, Parquet, CSV or torch.save file; save the features as one of "
            "them, such as np.savez(path, features=X, labels=y)"
        )
    if not is_manifest(path):
        with open_hdf5(path) as file:
            annotated = is_anndata(file)
        if annotated:
            matrix, codes, classes = read_anndata(path, features_key, names)
            return Source({"train": RawSplit(matrix, codes)}, class_names=classes)
    return _hdf5(path, features_key, labels_key)


def _saved_dataset(path: Path, features_key: str | None, labels_key: str | None) -> Source:
    names = (labels_key,) if labels_key else LABEL_COLUMNS
    splits, classes = {}, None
    for split, folder in split_folders(path).items():
        table = read_parquet(folder, features_key, names, functools.partial(SavedDataset, folder))
        splits[split] = RawSplit(table.rows, table.labels, table.source, table.ids)
        if split == "train":
            classes = class_names(folder, table.label)
    return Source(splits, class_names=classes)


def _npy(path: Path, labels: str | Path | None, labels_key: str | None, remedy: str) -> Source:
    if labels is not None and labels_key is not None:
        raise UsageError(f"{opt('labels_key')}: {labels} holds the labels already; leave one of the two out")
    file = as_path(labels) if labels is not None else labels_beside(path, labels_key)
    if file is None:
        raise UsageError(f"{path}: holds features only; {remedy}")
    return Source({"train": RawSplit(npy_rows(path), load_array(check_input(file)))})


def labels_beside(path: Path, name: str | None = None) -> Path | None:
    """Return the file of labels that belongs to an ``.npy`` file of features.

    Parameters
    ----------
    path
        The features.
    name
        The file of labels, from here or beside the features. Without it, the usual names are tried:
        ``y.npy`` beside ``X.npy``, ``labels.npy`` beside ``features.npy``, also as a part of a longer name.
    """
    if name is not None:
        beside = path.parent / name
        return beside if beside.exists() else as_path(name)
    stem = path.name[: -len(path.suffix)] if path.suffix else path.name
    for features, labels in _NPY_NAMES:
        words = re.split(r"([-_.])", stem)
        if features in words:
            words[words.index(features)] = labels
            found = path.with_name("".join(words) + path.suffix)
            if found.is_file():
                return found
    return None


def _hdf5(path: Path, features_key: str | None, labels_key: str | None) -> Source:
    if is_manifest(path):
        check_no_keys(path, "the shards of a manifest are stores", features_key, labels_key)
        parts = read_manifest(path, Report(), check_values=False)
        unused: set[str] = set()
    else:
        with open_hdf5(path) as handle:
            there = dataset_names(handle)
        if features_key is None and not any(f"{name}/features" in there for name in SPLITS):
            # An unusual layout; where none fits either, reading names what the file holds.
            features_key = first(there, FEATURE_KEYS)
        if labels_key is None and not any(f"{name}/labels" in there for name in SPLITS):
            labels_key = first(there, LABEL_KEYS)
        parts = read_file(
            path, Report(), features_key=features_key, labels_key=labels_key, check_values=False,
            any_labels=True,
        )  # fmt: skip
        unused = set(there) - {key.lstrip("/") for key in parts.names.values()}
    splits = {
        name: RawSplit(
            split.rows, split.labels if split.raw_labels is None else _named(split), split.source,
            split.ids, split.views, split.view_kinds, parts.names.get(f"/{name}/features", ""),
        )
        for name, split in parts.splits.items()
    }  # fmt: skip
    fixed = parts.head is not None or "num_classes" in parts.attributes
    return Source(
        splits, parts.head, parts.class_names, parts.num_classes if fixed else None,
        str(parts.attributes.get("encoder", "")), read_config(parts.attributes), tuple(sorted(unused)),
    )  # fmt: skip


def _named(split: SplitParts) -> Array:
    """Return labels as they are in the file: those of an enumeration that does not count from 0, as texts."""
    assert split.raw_labels is not None
    names = split.label_names
    if not names or sorted(names.values()) == list(range(len(names))):
        return split.raw_labels
    texts = {value: name for name, value in names.items()}
    return np.array([texts.get(value, str(value)) for value in split.raw_labels.tolist()], dtype=str)
