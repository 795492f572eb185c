"""Which of the named arrays of a file is what: features, labels, a head, what else there is per row."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np

from ldmlr.errors import InputError, counted, listed, opt
from ldmlr.store.datasets import text
from ldmlr.store.layout import SPLITS, Array, StoredHead
from ldmlr.store.names import CLASS_NAME_KEYS, names_of_classes
from ldmlr.store.rows import Rows

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


def arrays(
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


def first(there: Collection[str], templates: Collection[str]) -> str | None:
    """Return the first template that fits a name."""
    for template in templates:
        if any(template.replace("{split}", name) in there for name in SPLITS):
            return template
    return None


def _choose(
    path: Path, there: Collection[str], features_key: str | None, labels_key: str | None
) -> dict[str, tuple[str, str]]:
    """Return the names of features and labels per split."""
    features = features_key or first(there, FEATURE_KEYS)
    labels = labels_key or first(there, LABEL_KEYS)
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
