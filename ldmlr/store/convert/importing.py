"""Making a complete store of features in another file."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ldmlr.arguments import view_group
from ldmlr.boundary import boundary
from ldmlr.errors import InputError, UsageError, counted, listed, opt
from ldmlr.files import atomic_path, check_input, check_output
from ldmlr.isolated import bounded, size_of
from ldmlr.ownership import owned
from ldmlr.remote import as_path, is_remote
from ldmlr.spool import local_copy, renamed
from ldmlr.store.convert.arrays import Source
from ldmlr.store.convert.labels import MappedLabels, map_labels, renumbered
from ldmlr.store.convert.sources import labels_beside, open_source
from ldmlr.store.layout import SplitData
from ldmlr.store.store import FeatureStore

# Rows that take more than this as a store, and so many times their file, are a trap.
UNPACKED_BYTES, MOST_UNPACKED = 8 << 30, 200


@dataclasses.dataclass
class Imported:
    """The new store, and remarks: on what was done to the labels, and on what was left out."""

    store: FeatureStore
    notes: list[str]


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
    order. It runs in a process with limits (`ldmlr.isolated`): the source may be anybody's. What lies
    elsewhere is fetched first, and a store that is to lie elsewhere is made here.

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
    given = {"source": source, "labels": labels, "test": test, "test_labels": test_labels}
    files = {name: as_path(path) for name, path in given.items() if path is not None}
    if is_remote(files["source"]) and labels is None and files["source"].suffix == ".npy":
        # The labels lie beside the features there, not beside the copy.
        beside = labels_beside(files["source"], labels_key)
        if beside is not None:
            files["labels"], labels_key = beside, None
    target = as_path(out)
    with contextlib.ExitStack() as stack:
        copies = {name: _here(stack, path) for name, path in files.items()}
        place = target
        if is_remote(target):
            stack.enter_context(owned(target))
            place = stack.enter_context(atomic_path(target, overwrite))
            stack.enter_context(renamed(place, target))
        done = _import(
            copies["source"], place, labels=copies.get("labels"), test=copies.get("test"),
            test_labels=copies.get("test_labels"), features_key=features_key, labels_key=labels_key,
            num_classes=num_classes, encoder=encoder, encoder_trained_on_rows=encoder_trained_on_rows,
            dtype=dtype, origin=origin, remedy=remedy, overwrite=overwrite,
        )  # fmt: skip
    for name, here in copies.items():
        done.notes = [note.replace(str(here), str(files[name])) for note in done.notes]
    return Imported(FeatureStore.open(target), done.notes) if is_remote(target) else done


def _here(stack: contextlib.ExitStack, path: Path) -> Path:
    """Return a file, or a copy of what lies elsewhere, which errors do not name while `stack` is open."""
    if is_remote(path):
        check_input(path)
    return stack.enter_context(local_copy(path))


def _opened(notes: list[str], source: str | Path, out: str | Path, **_: Any) -> Imported:
    """Return what an import that ran in a process of its own has made."""
    return Imported(FeatureStore.open(out), notes)


@bounded("file of features", lambda done: done.notes, _opened, more=("test",))
def _import(
    source: str | Path,
    out: str | Path,
    *,
    labels: str | Path | None,
    test: str | Path | None,
    test_labels: str | Path | None,
    features_key: str | None,
    labels_key: str | None,
    num_classes: int | None,
    encoder: str | None,
    encoder_trained_on_rows: bool | None,
    dtype: str | None,
    origin: Mapping[str, Any] | None,
    remedy: str,
    overwrite: bool,
) -> Imported:
    check_output(as_path(out), overwrite)
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
        raise UsageError(
            f"{opt('num_classes')}: {source} has a head for {counted(len(found.head.weight), 'class')}"
        )
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
    config = {**found.config, "imported_from": as_path(source).name, **(origin or {})}
    if encoder_trained_on_rows is not None:
        config["encoder_trained_on_rows"] = encoder_trained_on_rows
    if mapped.note:
        config["labels"] = mapped.note
    with _named(out, source, test, {name: split.key for name, split in found.splits.items()}):
        store = FeatureStore.write(
            out, **splits, head=found.head, class_names=mapped.class_names, num_classes=mapped.num_classes,
            encoder=found.encoder if encoder is None else encoder, config=config,
            dtype=dtype or _same_type(found), overwrite=overwrite,
        )  # fmt: skip
    return Imported(store, [note for note in (mapped.note, *notes) if note])


@contextlib.contextmanager
def _named(
    out: str | Path, source: str | Path, test: str | Path | None, keys: Mapping[str, str]
) -> Iterator[None]:
    """Let errors about values name the file they come from, and what that file calls the features.

    The store that was to be written is not there, and its ``/train/features`` is nothing the caller knows.
    """
    try:
        yield
    except InputError as error:
        message = error.message
        where = source if test is None or not message.startswith(f"{out}: /test/") else test
        for name, key in keys.items():
            features = f"{out}: /{name}/features: "
            if message.startswith(features):
                message = f"{where}: {f'{key}: ' if key else ''}{message.removeprefix(features)}"
        raise InputError(message.replace(f"{out}: ", f"{where}: ", 1)) from None


def _unused(path: str | Path, names: tuple[str, ...]) -> str:
    return f"{path}: not used: {listed(names)}" if names else ""


def _kinds(name: str, kinds: Sequence[str]) -> str:
    """Return a note on kinds of views other than weak and strong, which are kept and count as one of them."""
    others = [kind for kind in dict.fromkeys(kinds) if kind not in ("weak", "strong")]
    taken = listed(f"{kind!r} counts as {view_group(kind)}" for kind in others)
    return f"{name} views: expected the kinds weak and strong; {taken}" if others else ""


def _untrained(path: str, mapped: MappedLabels) -> str:
    """Return a note on classes that have rows in other splits alone: often a label with a slip."""
    rows = {name: np.bincount(labels, minlength=mapped.num_classes) for name, labels in mapped.labels.items()}
    if "train" not in rows:
        return ""
    others = sum(count for name, count in rows.items() if name != "train")
    alone = np.flatnonzero((rows["train"] == 0) & (others > 0)).tolist()
    names = [mapped.class_names[label] if mapped.class_names else str(label) for label in alone]
    return (
        f"{path}: no training row has the label {listed(names)}; correct the labels if that is not meant"
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
                f"{where}: {counted(len(split.rows), 'row')} of {name} features but "
                f"{counted(len(split.labels), 'label')}; give one label per row"
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
