"""Features without labels, in any form that `ldmlr.store.convert.sources` reads: rows to be predicted."""

from __future__ import annotations

from pathlib import Path

from ldmlr.errors import InputError, UsageError, listed, nearest, opt
from ldmlr.files import check_input
from ldmlr.remote import as_path, is_remote
from ldmlr.spool import fetched, renamed
from ldmlr.store.convert.anndata import is_anndata, open_matrix
from ldmlr.store.convert.arrays import FEATURE_KEYS
from ldmlr.store.convert.delimited import is_delimited, read_delimited
from ldmlr.store.convert.parquet import read_parquet
from ldmlr.store.convert.saved_dataset import SavedDataset, is_saved_dataset, split_folders
from ldmlr.store.convert.sources import LABEL_COLUMNS
from ldmlr.store.convert.streams import MemoryRows, npy_rows, npz_members, npz_rows
from ldmlr.store.convert.tensors import is_torch_file, load_tensors
from ldmlr.store.datasets import check_present, dataset_names
from ldmlr.store.layout import SPLITS
from ldmlr.store.opening import open_hdf5, reading_hdf5
from ldmlr.store.packed import feature_rows
from ldmlr.store.rows import DataFile, Rows
from ldmlr.store.shards import is_manifest
from ldmlr.store.store import FeatureStore


def open_features(
    path: str | Path,
    *,
    features_key: str | None = None,
    labels_key: str | None = None,
    split: str | None = None,
) -> Rows:
    """Open features of a file of any kind; labels that it may have are left alone.

    Parameters
    ----------
    path
        A store, HDF5 of any layout, ``.npz``, ``.npy``, Parquet, CSV, a saved data set or ``torch.save``.
    features_key
        Name of the array, or a pattern of columns; ``{split}`` stands for the split.
    labels_key
        A column that is no feature.
    split
        ``train``, ``test`` or ``val``.  [default: test where there is one, else what there is]

    Raises
    ------
    InputError, UsageError
        Nothing is there that could be features.
    """
    if split is not None and split not in SPLITS:
        raise UsageError(f"{opt('split')}: unknown value {split!r}; {nearest(split, SPLITS)}")
    path = as_path(path)
    if is_remote(path) and not is_manifest(check_input(path)):
        with renamed(fetched(path), path) as place:
            return _opened(place, features_key, labels_key, split)
    return _opened(path, features_key, labels_key, split)


def _opened(path: Path, features_key: str | None, labels_key: str | None, split: str | None) -> Rows:
    others = (labels_key,) if labels_key is not None else LABEL_COLUMNS
    if is_saved_dataset(path):
        folders = split_folders(path)
        folder = folders[_which(path, list(folders), split)]
        return read_parquet(folder, features_key, others, lambda: SavedDataset(folder), labelled=False).rows
    path = check_input(path)
    with path.open("rb") as handle:
        start = handle.read(8)
    if start.startswith(b"\x93NUMPY"):
        return npy_rows(path)
    if start.startswith(b"PK"):
        if is_torch_file(path):
            tensors, short = load_tensors(path)
            name = _key(path, list(tensors), features_key, split)
            return MemoryRows(tensors[name], f"{path}: {name}", name in short)
        return npz_rows(path, _key(path, npz_members(path), features_key, split))
    if start.startswith(b"PAR1"):
        return read_parquet(path, features_key, others, labelled=False).rows
    if is_delimited(path):
        return read_delimited(path, features_key, others, labelled=False)[0]
    if is_manifest(path):
        store = FeatureStore.open(path)
        return store.split(_which(path, list(store.splits), split)).rows
    with open_hdf5(path) as file, reading_hdf5(path):
        if is_anndata(file):
            return open_matrix(path, file, features_key)
        dataset = file[_key(path, dataset_names(file), features_key, split)]
        found = DataFile.of(path)
        check_present(found, file, dataset)
        return feature_rows(found, dataset)


def _which(path: Path, there: list[str], split: str | None) -> str:
    if split is not None and split not in there:
        raise InputError(f"{path}: has no split {split!r}, only {', '.join(there)}; correct {opt('split')}")
    return split or ("test" if "test" in there else there[0])


def _key(path: Path, names: list[str], key: str | None, split: str | None) -> str:
    """Return the name of the array of features."""
    order = [split] if split is not None else ["test", "train", "val"]
    templates = [key.strip("/")] if key is not None else FEATURE_KEYS
    for template in templates:
        for name in order:
            if template.replace("{split}", name) in names:
                return template.replace("{split}", name)
    raise InputError(
        f"{path}: no array looks like features; it holds {listed(sorted(names))}: "
        f"name it with {opt('features_key')}"
    )
