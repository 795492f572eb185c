"""Classes named by a user, by name or number, and tables of what is wanted of them.

Imports no NumPy: configurations hold such tables, and the command line answers at once.
"""

from __future__ import annotations

import dataclasses
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ldmlr.errors import UsageError, nearest, opt

# What names a class: its name or its number.
Key = str | int
# Longer numbers are no rows and no classes; from 4,300 digits on Python refuses to read them.
MAX_DIGITS = 100


@dataclasses.dataclass(frozen=True)
class _Value:
    """What a table by class holds: the option, how messages call its forms, and how a value is read."""

    option: str
    entry: str
    value: str
    table: str
    read: Callable[[Any], float | None]


def row_table(given: Any) -> dict[Key, int]:
    """Return the rows that are wanted of classes, by class.

    Parameters
    ----------
    given
        A table from class (name or number) to rows, or ``CLASS=ROWS`` texts, one or a list.

    Raises
    ------
    UsageError
        Something else, a number that is no number of rows, or a class that is named twice.
    """
    return _table(given, _ROWS)


def factor_table(given: Any) -> dict[Key, float]:
    """Return the widening of classes, by class: as `row_table`, with factors above 0."""
    return _table(given, _FACTORS)


def saved_table(table: Mapping[Any, float]) -> dict[str, float] | list[str]:
    """Return a table by class as JSON can hold it; `row_table` and `factor_table` read it again.

    A number that names a class stays one beside names of digits. An empty table is an empty list, as it has
    always been: the keys of what was generated before depend on it.
    """
    words = {key if isinstance(key, str) else f"number:{key}": value for key, value in table.items()}
    return words or []


def _table(given: Any, what: _Value) -> dict[Key, Any]:
    name = opt(what.option)
    wanted = what.value if isinstance(given, Mapping) else what.entry
    found: dict[Key, Any] = {}
    for key, value, shown in _entries(given, what):
        number = what.read(value)
        if number is None:
            raise UsageError(f"{name}: expected {wanted}, not {shown}")
        if key in found:
            raise UsageError(f"{name}: names the class {key!r} twice; leave one out")
        found[key] = number
    return found


def _entries(given: Any, what: _Value) -> list[tuple[Any, Any, str]]:
    """Return (class, value, how a message shows the two) of each entry of a table, or of each text."""
    if isinstance(given, Mapping):
        return [(_key(key), value, f"{value!r} for class {key!r}") for key, value in given.items()]
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list | tuple) or not all(isinstance(text, str) for text in texts):
        raise UsageError(f"{opt(what.option)}: expected {what.table}, not {given!r}")
    parts = [(text.rpartition("="), repr(text)) for text in texts]
    return [(key.strip(), value if key.strip() else "", shown) for (key, _, value), shown in parts]


def _key(key: Any) -> Any:
    """Return a whole number of any type as an int, and anything else as it is."""
    number = None if isinstance(key, str) else _whole(key)
    return key if number is None else number


def _rows(value: Any) -> int | None:
    """Return a number of rows given as such or as digits; None for anything else."""
    if isinstance(value, str):
        value = value.strip()
        if value.isdecimal() and len(value) > MAX_DIGITS:
            raise UsageError(
                f"{opt('count')}: {len(value)} digits are more rows than there can be; ask for fewer"
            )
    rows = _whole(value)
    return None if rows is None or rows < 0 else rows


def _factor(value: Any) -> float | None:
    """Return a number above 0 given as such or as text; None for anything else."""
    try:
        factor = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        return None
    return factor if 0 < factor < math.inf else None


_FACTORS = _Value(
    "class_scale", "CLASS=FACTOR with a factor above 0, such as 7=1.5", "a factor above 0",
    "a table from class to factor, such as {7: 1.5}", _factor,
)  # fmt: skip
_ROWS = _Value(
    "count", "CLASS=ROWS, such as 7=500 or horse=500", "a whole number of rows",
    "a table from class to rows, such as {7: 500}", _rows,
)  # fmt: skip


def class_number(key: Any, num_classes: int, class_names: Sequence[str] | None, who: str) -> int:
    """Return the number of a class.

    Parameters
    ----------
    key
        A whole number, or a text: the class's name, its number, or one of the two said explicitly as
        ``name:NAME`` or ``number:NUMBER``.
    num_classes, class_names
        Classes C and their names, if they have any.
    who
        What names the class, for messages.

    Raises
    ------
    UsageError
        There is no such class, or a text is the name of one class and the number or the name of another.
    """
    names = list(class_names or ())
    kind, colon, rest = key.partition(":") if isinstance(key, str) else ("", "", "")
    explicit = kind if colon and kind in ("name", "number") else None
    text = (rest if explicit else key) if isinstance(key, str) else None
    number = None
    if explicit != "name":
        number = _whole(key if text is None else text)
        number = number if number is not None and 0 <= number < num_classes else None
    found = {at for at, name in enumerate(names) if name == text and explicit != "number"}
    found |= set() if number is None else {number}
    if not found:
        # A number that was saved comes back as number:N.
        word = rest if explicit == "number" and rest.isdecimal() else repr(key)
        by_name = names and text is not None and explicit != "number"
        known = nearest(str(text), names) if by_name else f"classes are 0 .. {num_classes - 1}"
        raise UsageError(f"{who} names the class {word}, which is not there; {known}")
    if len(found) > 1:
        first, second = sorted(found)[:2]
        raise UsageError(
            f"{who} names the class {key!r}, which may be class {first} or class {second}; write "
            f"number:{first} or number:{second}"
        )
    return found.pop()


def class_word(number: int, num_classes: int, class_names: Sequence[str] | None) -> str:
    """Return how to write a class for `class_number`: its name where that is clear."""
    if not class_names:
        return str(number)
    try:
        class_number(class_names[number], num_classes, class_names, "")
    except UsageError:
        return f"number:{number}"
    return class_names[number]


def _whole(value: Any) -> int | None:
    """Return a whole number given as such or as digits; None for anything else."""
    if isinstance(value, str):
        return int(value) if value.isdecimal() and len(value) <= MAX_DIGITS else None
    if isinstance(value, float) and value.is_integer():
        return int(value)
    try:
        return None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        return None
