"""How many classes there are, whether the labels fit them, and names that two of them share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ldmlr.store.layout import Array, StoredHead


def known_count(
    attributes: Mapping[str, Any], head: StoredHead | None, names: Sequence[str] | None
) -> int | None:
    """Return the number of classes that a file states, or None where only its labels tell."""
    if is_count(attributes.get("num_classes")):
        return int(attributes["num_classes"])
    if head is not None:
        return int(head.weight.shape[0])
    return None if names is None else len(names)


def is_count(value: Any) -> bool:
    """Tell whether a value of an attribute is a number of classes."""
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def outside_remedy(labels: Iterable[Array], classes: int, known: bool) -> str:
    """Return what to do about labels that are not in ``0 .. classes - 1``."""
    if not known:
        return "correct them, or let `ldmlr store import` map them"
    filled = [values for values in labels if len(values)]
    if min(int(values.min()) for values in filled) == 1 and max(int(v.max()) for v in filled) == classes:
        return "they start from 1: subtract 1"
    return "correct them or num_classes"


def repeated_name(names: Sequence[str] | None) -> str | None:
    """Return a message about the first name that two classes share, or None."""
    seen: dict[str, int] = {}
    for number, name in enumerate(names or ()):
        if name in seen:
            return f"classes {seen[name]} and {number} are both named {name!r}"
        seen[name] = number
    return None
