"""Features and labels in files of other kinds, for import: which array is what.

HDF5 in any layout, ``.npz``, a pair of ``.npy`` files, Parquet, CSV, a saved data set of ``datasets``,
AnnData, ``torch.save``. Labels are returned as they are in the file; `ldmlr.store.convert.labels` maps them.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ldmlr.errors import InputError, UsageError, counted, listed, opt
from ldmlr.files import check_input
from ldmlr.remote import as_path
from ldmlr.store.convert.anndata import is_anndata, read_anndata
from ldmlr.store.convert.delimited import is_delimited, read_delimited
from ldmlr.store.convert.parquet import read_parquet
from ldmlr.store.convert.saved_dataset import SavedDataset, class_names, is_saved_dataset, split_folders
from ldmlr.store.convert.streams import MemoryRows, load_array, load_member, npy_rows, npz_members, npz_rows
from ldmlr.store.convert.tensors import is_torch_file, load_tensors
from ldmlr.store.datasets import dataset_names, text
from ldmlr.store.layout import SPLITS, Array, StoredHead
from ldmlr.store.names import CLASS_NAME_KEYS, names_of_classes
from ldmlr.store.opening import Report, check_no_keys, open_hdf5
from ldmlr.store.parts import SplitParts
from ldmlr.store.reading import read_config, read_file
from ldmlr.store.rows import Rows
from ldmlr.store.shards import is_manifest, read_manifest

# Names that are tried in turn where none is given; {split} stands for train, test and val.
FEATURE_KEYS = (
    "{split}/features", "{split}_features", "features_{split}", "X_{split}", "x_{split}", "{split}_X",
    "{split}_x", "features", "embeddings", "X", "x",
)  # fmt: skip
LABEL_KEYS = (
    "{split}/labels", "{split}_labels", "labels_{split}", "y_{split}", "{split}_y", "labels", "label",
    "targets", "target", "y",
)  # fmt: skip
# What else there may be per row, in a file of named arrays: for its split, whatever the features are called.
_MORE = ("source", "ids", "views", "view_kinds")
_MORE_KEYS = ("{split}/{what}", "{split}_{what}", "{what}_{split}")
# What features and their labels are called in .npy files of their own.
_NPY_NAMES = (("X", "y"), ("x", "y"), ("features", "labels"), ("embeddings", "labels"), ("feats", "labels"))
LABEL_COLUMNS = ("label", "labels", "target", "targets", "y", "class")


@dataclasses.dataclass
class RawSplit:
    """Features on disk, labels as they were found, and what else there was per row.

    `key` is what the file calls the features; empty where it holds nothing else, or has a column for each.
    """

    rows: Rows
    labels: Array
    source: Any = None
    ids: Any = None
    views: Any = None
    view_kinds: tuple[str, ...] = ()
    key: str = ""


@dataclasses.dataclass
class Source:
    """What a file holds."""

    splits: dict[str, RawSplit]
    head: StoredHead | None = None
    class_names: tuple[str, ...] | None = None
    num_classes: int | None = None
    encoder: str = ""
    config: dict[str, Any] = dataclasses.field(default_factory=dict)
    unused: tuple[str, ...] = ()


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
            return _arrays(
                path, tensors, lambda name: MemoryRows(tensors[name], f"{path}: {name}", name in short),
                tensors.__getitem__, features_key, labels_key,
            )  # fmt: skip
        return _arrays(
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


def _arrays(
    path: Path,
    names: Collection[str],
    rows: Callable[[str], Rows],
    load: Callable[[str], Array],
    features_key: str | None,
    labels_key: str | None,
) -> Source:
    """Return what named arrays hold; `rows` opens one of features, `load` reads another whole."""
    splits, used = {}, {"class_names", "head_weight", "head_bias", "head_kind"}
    for name, (features, labels) in _choose(path, names, features_key, labels_key).items():
        split = RawSplit(rows(features), load(labels), key=features)
        used |= {features, labels, *_load_more(path, names, load, split, name, features)}
        splits[name] = split
    source = Source(splits)
    source.head = _head(path, names, load)
    if source.head is not None:
        used |= {f"head_{other}" for other in source.head.extra}
    if "class_names" in names:
        source.class_names = _words(f"{path}: class_names", load("class_names"))
    else:
        found = [split.labels for split in splits.values()]
        for key in (key for key in CLASS_NAME_KEYS if key in names and key not in used):
            source.class_names = names_of_classes(load(key), found)
            if source.class_names is not None:
                used.add(key)
                break
    source.unused = tuple(sorted(set(names) - used))
    return source


def _head(path: Path, names: Collection[str], load: Callable[[str], Array]) -> StoredHead | None:
    """Return the baseline's head, or None where there is none; half of one is refused."""
    if "head_weight" not in names:
        half = [other for other in ("head_bias", "head_kind") if other in names]
        if half:
            raise InputError(
                f"{path}: has {' and '.join(half)}, but no head_weight [C, D]; add it, or leave the head out"
            )
        return None
    kind = "linear"
    others = ["head_bias"] if "head_bias" in names else []
    if "head_kind" in names:
        word = load("head_kind")
        if word.size != 1:
            raise InputError(f"{path}: head_kind: has shape {word.shape}, expected one text; save a text")
        kind = text(word.item())
        # Without its kind a head is linear, and has no more than weight and bias.
        parts = ("head_weight", "head_kind")
        others = [name for name in sorted(names) if name.startswith("head_") and name not in parts]
    found = {name: load(name) for name in ("head_weight", *others)}
    for name, values in found.items():
        if values.dtype.kind not in "fiub":
            raise InputError(f"{path}: {name}: is {values.dtype}, expected numbers; convert it")
    bias = found.pop("head_bias").astype(np.float32) if "head_bias" in found else None
    weight = found.pop("head_weight").astype(np.float32)
    return StoredHead(kind, weight, bias, {name.removeprefix("head_"): found[name] for name in found})


def _load_more(
    path: Path,
    names: Collection[str],
    load: Callable[[str], Array],
    split: RawSplit,
    name: str,
    features: str,
) -> list[str]:
    """Fill in what else there is per row of a split, and return the names of the arrays."""
    count, dim = split.rows.shape
    words = re.split(r"[^A-Za-z0-9]", features)
    # A key without {split} may name the features of any split, and its other arrays are called alike.
    spoken = next((other for other in SPLITS if other in words), name if name in features else None)
    found: dict[str, str] = {}
    for what in _MORE:
        keys = [key.format(split=spoken or name, what=what) for key in _MORE_KEYS]
        for key in [*([what] if spoken is None else []), *keys]:
            if key not in names:
                continue
            try:
                values = load(key)
                _check_fit(f"{path}: {key}", what, values, count, dim)
            except InputError:
                # A plain word may stand for something else, such as the name of a data set.
                if key == what:
                    continue
                raise
            setattr(split, what, _words(f"{path}: {key}", values) if what == "view_kinds" else values)
            found[what] = key
            break
    views = 0 if split.views is None else len(split.views)
    if split.view_kinds and len(split.view_kinds) != views:
        raise InputError(
            f"{path}: {found['view_kinds']}: {counted(len(split.view_kinds), 'kind')} for "
            f"{counted(views, 'view')}; name one per view"
        )
    return list(found.values())


def _check_fit(where: str, what: str, values: Array, count: int, dim: int) -> None:
    """Refuse an array that is not what there may be per row of ``[count, dim]`` features."""
    kind, shape = values.dtype.kind, values.shape
    if what == "view_kinds":
        fits, wanted = values.ndim == 1, "one text per view; save a list of texts"
    elif what == "views":
        fits = values.ndim == 3 and shape[1:] == (count, dim) and kind in "fiu"
        wanted = f"numbers of shape [K, {count}, {dim}]; give every view one row per sample"
    elif what == "ids":
        fits, wanted = (
            shape == (count,) and kind in "iuSUO",
            f"{count} whole numbers or texts; give one per row",
        )
    else:
        fits = shape == (count,) and kind in "iub" and bool(np.isin(values, (0, 1)).all())
        wanted = f"{count} times 0 (encoded) or 1 (generated); correct it"
    if not fits:
        raise InputError(f"{where}: is {values.dtype} of shape {shape}, expected {wanted}")


def _words(where: str, values: Array) -> tuple[str, ...]:
    if values.ndim != 1:
        raise InputError(
            f"{where}: has shape {values.shape}, expected one text per entry; save a list of texts"
        )
    return tuple(text(value) for value in values.tolist())


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
            features_key = _first(there, FEATURE_KEYS)
        if labels_key is None and not any(f"{name}/labels" in there for name in SPLITS):
            labels_key = _first(there, LABEL_KEYS)
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


def _first(there: Collection[str], templates: Collection[str]) -> str | None:
    """Return the first template that fits a name."""
    for template in templates:
        if any(template.replace("{split}", name) in there for name in SPLITS):
            return template
    return None


def _choose(
    path: Path, there: Collection[str], features_key: str | None, labels_key: str | None
) -> dict[str, tuple[str, str]]:
    """Return the names of features and labels per split."""
    features = features_key or _first(there, FEATURE_KEYS)
    labels = labels_key or _first(there, LABEL_KEYS)
    for what, key, option in (
        ("features", features, opt("features_key")),
        ("labels", labels, opt("labels_key")),
    ):
        if key is None:
            raise InputError(
                f"{path}: no array looks like {what}; it holds {listed(sorted(there))}: name it with {option}"
            )
    assert features is not None
    assert labels is not None
    names = SPLITS if "{split}" in features else ("train",)
    pairs = {n: (features.replace("{split}", n), labels.replace("{split}", n)) for n in names}
    found = {n: pair for n, pair in pairs.items() if pair[0] in there}
    if not found:
        raise InputError(
            f"{path}: has no array {features!r}; it holds {listed(sorted(there))}: "
            f"correct {opt('features_key')}"
        )
    for _, label in found.values():
        if label not in there:
            raise InputError(
                f"{path}: has no array {label!r}; it holds {listed(sorted(there))}: "
                f"name it with {opt('labels_key')}"
            )
    return found
