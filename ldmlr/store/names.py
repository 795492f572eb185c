"""The names of the classes in files of other programs, which call them by several keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ldmlr.store.datasets import text
from ldmlr.store.layout import Array
from ldmlr.store.parts import SplitParts

# Beside ``class_names``, in the order in which they are looked for.
CLASS_NAME_KEYS = ("classes", "label_names", "target_names")


def names_of_classes(values: Array, labels: Sequence[Array]) -> tuple[str, ...] | None:
    """Return an array as the names of the classes of some labels, or None where it cannot be that.

    A word such as ``classes`` may stand for something else: it names the classes where it holds texts, each
    once, that the labels are among, or one at least for every number that is a label.

    Parameters
    ----------
    values
        What the file holds under the key.
    labels
        The labels of each split.
    """
    if values.ndim != 1 or values.dtype.kind not in "SUO":
        return None
    found = values.tolist()
    if not all(isinstance(value, str | bytes) for value in found):
        return None
    names = tuple(text(value) for value in found)
    if len(set(names)) != len(names):
        return None
    return names if all(_among(part, names) for part in labels) else None


def _among(labels: Array, names: tuple[str, ...]) -> bool:
    if labels.dtype.kind in "iuf":
        return not labels.size or bool(labels.min() >= 0 and labels.max() < len(names))
    return {text(label) for label in labels.tolist()} <= set(names)


def enum_names(splits: Mapping[str, SplitParts]) -> tuple[str, ...] | None:
    """Return the names of an enumeration of labels, if it numbers the classes 0 .. C-1 in all splits."""
    found = next((parts.label_names for parts in splits.values() if parts.label_names), None)
    if not found or any(parts.label_names != found for parts in splits.values()):
        return None
    order = sorted(found, key=lambda name: found[name])
    return tuple(order) if [found[name] for name in order] == list(range(len(order))) else None
