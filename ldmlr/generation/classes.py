"""Classes named by a user: by name or number, each once, and what is wanted of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ldmlr.arguments import whole_number
from ldmlr.errors import UsageError, nearest, opt

Counts = npt.NDArray[np.int64]
# Longer numbers are no rows and no classes; from 4,300 digits on Python refuses to read them.
MAX_DIGITS = 100


def parse_count(entries: Sequence[str]) -> dict[str, int]:
    """Return the dictionary of ``CLASS=ROWS`` entries.

    Raises
    ------
    UsageError
        An entry of another form, or two for one class.
    """
    found: dict[str, int] = {}
    for entry in entries:
        name, equals, number = entry.rpartition("=")
        name = name.strip()
        if not equals or not name or not number.strip().isdecimal():
            raise UsageError(
                f"{opt('count')}: expected CLASS=ROWS, such as 7=500 or horse=500, not {entry!r}"
            )
        if len(number) > MAX_DIGITS:
            raise UsageError(
                f"{opt('count')}: {len(number)} digits are more rows than there can be; ask for fewer"
            )
        if name in found:
            raise UsageError(f"{opt('count')}: names the class {name!r} twice; leave one out")
        found[name] = int(number)
    return found


def class_scales(
    entries: Sequence[str], scale: float, num_classes: int, class_names: Sequence[str] | None = None
) -> npt.NDArray[np.float64] | None:
    """Return the widening of every class ``[C]`` of ``CLASS=FACTOR`` entries, or None without entries.

    Classes without an entry have `scale`.

    Raises
    ------
    UsageError
        An entry of another form, a factor that is not above 0, or a class that is not there, is not clear
        or has two entries.
    """
    if not entries:
        return None
    factors = np.full(num_classes, float(scale))
    for number, factor in class_factors(entries, num_classes, class_names).items():
        factors[number] = factor
    return factors


def class_factors(
    given: Mapping[Any, float] | Sequence[str] | str,
    num_classes: int,
    class_names: Sequence[str] | None = None,
    who: str = opt("class_scale"),
) -> dict[int, float]:
    """Return the widening of the classes that are given one, by number.

    Parameters
    ----------
    given
        A table from class (number or name) to factor, or ``CLASS=FACTOR`` entries.
    num_classes, class_names
        Classes C and their names, if they have any.
    who
        What the user or the caller knows it as, for messages.

    Raises
    ------
    UsageError
        As `class_scales`.
    """
    pairs: list[tuple[Any, Any, str]]
    if isinstance(given, Mapping):
        pairs = [(key, value, f"{value!r} for class {key!r}") for key, value in given.items()]
        wanted = "a factor above 0"
    else:
        entries = [given] if isinstance(given, str) else given
        if not isinstance(entries, list | tuple) or not all(isinstance(entry, str) for entry in entries):
            raise UsageError(
                f"{who}: expected a table from class to factor, such as {{7: 1.5}}, not {given!r}"
            )
        split = [(entry.rpartition("="), repr(entry)) for entry in entries]
        pairs = [(name.strip(), text if name else "", shown) for (name, _, text), shown in split]
        wanted = "CLASS=FACTOR with a factor above 0, such as 7=1.5"
    found: dict[int, float] = {}
    for key, value, shown in pairs:
        factor = _factor(value)
        if factor is None:
            raise UsageError(f"{who}: expected {wanted}, not {shown}")
        number = class_number(key, num_classes, class_names, who)
        if number in found:
            raise UsageError(f"{who}: names class {number} twice; leave one out")
        found[number] = factor
    return found


def _factor(value: Any) -> float | None:
    """Return a number above 0 given as such or as text; None for anything else."""
    try:
        factor = float(value)
    except (TypeError, ValueError):
        return None
    return factor if 0 < factor < np.inf else None


def by_class(wanted: Mapping[Any, int], num_classes: int, class_names: Sequence[str] | None = None) -> Counts:
    """Return ``[C]`` numbers of a dictionary from class (number or name) to number."""
    numbers = np.full(num_classes, -1, np.int64)
    for key, value in wanted.items():
        number = class_number(key, num_classes, class_names, "the plan")
        if value != value or int(min(value, 2**62)) != min(value, 2**62) or value < 0:
            raise UsageError(f"the plan asks for {value!r} rows of class {key!r}; give a whole number from 0")
        if numbers[number] >= 0:
            raise UsageError(
                f"the plan names class {number} twice, the second time as {key!r}; leave one out"
            )
        numbers[number] = int(min(value, 2**62))  # of what is too much, the plan speaks
    return np.maximum(numbers, 0)


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
        # A number given as such may have come here as number:N.
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
    return whole_number(value)
