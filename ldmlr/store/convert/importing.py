"""Making a complete store of features in another file."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ldmlr.arguments import view_group
from ldmlr.boundary import boundary
from ldmlr.errors import InputError, UsageError, opt
from ldmlr.files import check_output
from ldmlr.isolated import bounded, size_of
from ldmlr.store.convert.labels import MappedLabels, map_labels, renumbered
from ldmlr.store.convert.sources import Source, open_source
from ldmlr.store.layout import SplitData
from ldmlr.store.store import FeatureStore

# Rows that take more than this as a store, and so many times their file, are a trap.
UNPACKED_BYTES, MOST_UNPACKED = 8 << 30, 200


@dataclasses.dataclass
class Imported:
    """The new store, and remarks: on what was done to the labels, and on what was left out."""

    store: FeatureStore
    notes: list[str]


def _opened(notes: list[str], source: str | Path, out: str | Path, **_: Any) -> Imported:
    """Return what an import that ran in a process of its own has made."""
    return Imported(FeatureStore.open(out), notes)


@bounded("file of features", lambda done: done.notes, _opened, more=("test",))
def import_store(
    source: str | Path,
    out: str | Path,
    *,
    labels: str | Path | None = None,
    test: str | Path | None = None,
    test_labels: str | Path | None = None,
    features_key: str | None = None,
    labels_key: str | None = None,
    num_classes: int | None = None,
    encoder: str | None = None,
    encoder_trained_on_rows: bool | None = None,
    dtype: str | None = None,
    origin: Mapping[str, Any] | None = None,
    remedy: str = "name the .npy file of labels after it",
    overwrite: bool = False,
) -> Imported:
    """Write a store from a file of any kind that `ldmlr.store.convert.sources` reads.

    Every value is read and checked. Memory does not grow with the rows, but for arrays in Fortran
    order. It runs in a process with limits (`ldmlr.isolated`): the source may be anybody's.

    Parameters
    ----------
    source, labels
        The features, and the labels of an ``.npy`` file of features.
    out
        The store to write.
    test, test_labels
        Another file whose rows become the test split. Where both files name their classes, those names
        say which class is which.
    features_key, labels_key
        Names of arrays or columns (a pattern such as ``f*`` for many columns); ``{split}``
        stands for train, test and val.
    num_classes
        C; labels are then kept as they are. Without it, labels that are not 0 .. C-1 are mapped,
        see `ldmlr.store.convert.labels`.
    encoder
        What made the features, in words.
    encoder_trained_on_rows
        Whether it has seen the training rows, if that is known; the store keeps it.
    dtype
        ``float32``, ``float16`` or ``bfloat16``; by default as in the source.
    origin
        What else the configuration of the store says of where it comes from.
    remedy
        What to do where the labels of an ``.npy`` file are missing, for messages.
    overwrite
        Replace `out` if it exists.
    """
    check_output(Path(out), overwrite)
    found = open_source(source, labels, features_key=features_key, labels_key=labels_key, remedy=remedy)
    notes = [_unused(source, found.unused)]
    if test is not None:
        if "test" in found.splits:
            raise UsageError(f"{opt('test')}: {source} holds a test split already; leave out {opt('test')}")
        with boundary(test, "file of features"):
            other = open_source(
                test, test_labels, features_key=features_key, labels_key=labels_key,
                remedy=f"name the .npy file of their labels with {opt('test_labels')}",
            )  # fmt: skip
        rows = other.splits.get("test") or next(iter(other.splits.values()))
        if found.class_names and other.class_names:
            rows.labels = renumbered(str(test), rows.labels, other.class_names, found.class_names)
        found.splits["test"] = rows
        notes.append(_unused(test, other.unused))
    elif test_labels is not None:
        raise UsageError(f"{opt('test_labels')}: goes with {opt('test')}; name the file of test features")
    _check_shapes(source, test, found)
    _check_unpacked(source, test, found)
    notes += [_kinds(name, split.view_kinds) for name, split in found.splits.items()]
    if num_classes is not None and found.head is not None and len(found.head.weight) != num_classes:
        raise UsageError(f"{opt('num_classes')}: {source} has a head for {len(found.head.weight)} classes")
    mapped = map_labels(
        str(source), {name: split.labels for name, split in found.splits.items()}, found.class_names,
        num_classes or found.num_classes or (len(found.head.weight) if found.head else None),
    )  # fmt: skip
    splits = {
        name: SplitData(
            split.rows, mapped.labels[name], split.source, split.ids, split.views, split.view_kinds
        )
        for name, split in found.splits.items()
    }
    notes.append(_untrained(str(source if test is None else test), mapped))
    config = {**found.config, "imported_from": Path(source).name, **(origin or {})}
    if encoder_trained_on_rows is not None:
        config["encoder_trained_on_rows"] = encoder_trained_on_rows
    if mapped.note:
        config["labels"] = mapped.note
    with _named(out, source, test):
        store = FeatureStore.write(
            out, **splits, head=found.head, class_names=mapped.class_names, num_classes=mapped.num_classes,
            encoder=found.encoder if encoder is None else encoder, config=config,
            dtype=dtype or _same_type(found), overwrite=overwrite,
        )  # fmt: skip
    return Imported(store, [note for note in (mapped.note, *notes) if note])


@contextmanager
def _named(out: str | Path, source: str | Path, test: str | Path | None) -> Iterator[None]:
    """Let errors about values name the file they come from: the one that was to be written is not there."""
    try:
        yield
    except InputError as error:
        where = source if test is None or not error.message.startswith(f"{out}: /test/") else test
        raise InputError(error.message.replace(f"{out}: ", f"{where}: ", 1)) from None


def _unused(path: str | Path, names: tuple[str, ...]) -> str:
    listed = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
    return f"{path}: not used: {listed}" if names else ""


def _kinds(name: str, kinds: Sequence[str]) -> str:
    """Return a note on kinds of views other than weak and strong, which are kept and count as one of them."""
    others = [kind for kind in dict.fromkeys(kinds) if kind not in ("weak", "strong")]
    listed = ", ".join(f"{kind!r} counts as {view_group(kind)}" for kind in others[:8])
    return f"{name} views: expected the kinds weak and strong; {listed}" if others else ""


def _untrained(path: str, mapped: MappedLabels) -> str:
    """Return a note on classes that have rows in other splits alone: often a label with a slip."""
    rows = {name: np.bincount(labels, minlength=mapped.num_classes) for name, labels in mapped.labels.items()}
    if "train" not in rows:
        return ""
    others = sum(count for name, count in rows.items() if name != "train")
    alone = np.flatnonzero((rows["train"] == 0) & (others > 0)).tolist()
    names = [mapped.class_names[label] if mapped.class_names else str(label) for label in alone]
    listed = ", ".join(names[:8]) + (f" and {len(names) - 8:,} more" if len(names) > 8 else "")
    return (
        f"{path}: no training row has the label {listed}; correct the labels if that is not meant"
        if names
        else ""
    )


def _check_shapes(source: str | Path, test: str | Path | None, found: Source) -> None:
    dim = next(iter(found.splits.values())).rows.shape[1]
    for name, split in found.splits.items():
        where = test if name == "test" and test is not None else source
        if split.rows.shape[1] != dim:
            raise InputError(
                f"{where}: {name} features have dim {split.rows.shape[1]}, but others have dim {dim}; "
                "encode both with the same network"
            )
        if len(split.labels) != len(split.rows):
            raise InputError(
                f"{where}: {len(split.rows)} rows of {name} features but {len(split.labels)} labels; "
                "give one label per row"
            )


def _check_unpacked(source: str | Path, test: str | Path | None, found: Source) -> None:
    """Refuse a file that unpacks to far more than any sound one: the store would fill the disk."""
    packed = size_of(source) + (0 if test is None else size_of(test))
    rows = sum(4 * split.rows.shape[0] * split.rows.shape[1] for split in found.splits.values())
    if rows > UNPACKED_BYTES and rows > MOST_UNPACKED * packed:
        raise InputError(
            f"{source}: unpacks to {rows / 1e9:,.0f} GB, {MOST_UNPACKED} times the file and more; write it "
            "without compression if that is meant"
        )


def _same_type(found: Source) -> str:
    kinds = {split.rows.storage for split in found.splits.values()}
    kind = kinds.pop()
    return kind if not kinds and kind in ("float16", "bfloat16") else "float32"
