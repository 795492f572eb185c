"""The generation plan: how many rows of which class, as data.

A plan is one number per class. It is made from the training rows per class by a strategy:
imbalanced-learn's words, a dictionary, or the paper's ratio. All rows of a class follow
each other in the order of classes, so the label of every row is a function of the plan.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ldmlr.errors import UsageError, nearest
from ldmlr.generation.config import PlanConfig
from ldmlr.groups import GROUPS, parse_groups
from ldmlr.tables import table

Counts = npt.NDArray[np.int64]
Strategy = str | float | Mapping[Any, int] | Callable[[Counts], Mapping[Any, int]]

BALANCING = ("balance", "auto", "not majority", "not minority", "minority", "all", *GROUPS)
STRATEGIES = (*BALANCING, "ratio")


def plan(
    counts: npt.ArrayLike,
    strategy: Strategy = "balance",
    *,
    target: int | None = None,
    ratio: float = 0.2,
    minimum: int = 1,
    only: Sequence[str] = (),
    groups: str = "100,20",
    class_names: Sequence[str] | None = None,
) -> Counts:
    """Return the rows to generate per class ``[C]``.

    Parameters
    ----------
    counts
        Training rows per class ``[C]``.
    strategy
        ``balance`` (the same as imbalanced-learn's ``auto``, ``not majority`` and ``all``) fills
        every class up to the largest; ``minority`` and ``not minority`` fill the smallest class, or
        all but it; ``many``, ``medium`` and ``few`` fill the classes of that group. ``ratio``
        adds a fraction of each class's own rows (the paper's). A number, for two classes: rows of the
        smaller class over rows of the larger one. A dictionary from class (number or name) to
        rows to generate, or a function from counts to such a dictionary.
    target
        Fill up to this many rows instead of the largest class.
    ratio, minimum
        Of the strategy ``ratio``: the fraction, and the fewest rows of a class that is filled.
    only
        Fill only the classes of these shot groups.
    groups
        Shot groups: thresholds ``MANY,FEW``, or ``paper``.
    class_names
        Names that a dictionary may use.

    Raises
    ------
    UsageError
        An unknown strategy, class or group, a target without a use, or a negative number.
    """
    rows = np.asarray(counts, np.int64)
    if callable(strategy):
        strategy = strategy(rows)
    if isinstance(strategy, str):
        strategy = _number(strategy)
    if target is not None and not (isinstance(strategy, str) and strategy in BALANCING):
        raise UsageError("--target: only strategies that fill up to a number of rows use it; leave it out")
    if isinstance(strategy, Mapping):
        wanted = by_class(strategy, len(rows), class_names)
    elif isinstance(strategy, str):
        wanted = _by_word(rows, strategy, target, ratio, minimum, groups)
    else:
        wanted = _binary(rows, float(strategy))
    if only:
        masks = parse_groups(groups).masks(rows)
        for name in only:
            if name not in GROUPS:
                raise UsageError(f"--only: unknown value {name!r}; {nearest(name, GROUPS)}")
        kept = np.any([masks[name] for name in only], axis=0)
        wanted = np.where(kept, wanted, 0)
    return wanted


def plan_from_config(
    counts: npt.ArrayLike, config: PlanConfig, class_names: Sequence[str] | None = None
) -> Counts:
    """Return the plan of a configuration; `PlanConfig.count` takes the place of the strategy.

    Raises
    ------
    UsageError
        As `plan`, and where a setting would have no effect.
    """
    default = PlanConfig()
    if config.count and config.strategy != default.strategy:
        raise UsageError(
            f"--count: takes the place of --strategy {config.strategy}; leave one of the two out"
        )
    for name in ("ratio", "minimum"):
        if config.strategy != "ratio" and getattr(config, name) != getattr(default, name):
            raise UsageError(f"--{name}: only --strategy ratio uses it; leave it out")
    strategy: Strategy = parse_count(config.count) if config.count else config.strategy
    return plan(
        counts, strategy, target=config.target, ratio=config.ratio, minimum=config.minimum,
        only=config.only, groups=config.groups, class_names=class_names,
    )  # fmt: skip


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
        if not equals or not name or not number.strip().isdigit():
            raise UsageError(f"--count: expected CLASS=ROWS, such as 7=500 or horse=500, not {entry!r}")
        if name in found:
            raise UsageError(f"--count: names the class {name!r} twice; leave one out")
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
    factors = np.full(num_classes, np.nan)
    for entry in entries:
        name, _, text = entry.rpartition("=")
        try:
            factor = float(text)
        except ValueError:
            factor = np.nan
        if not name or not 0 < factor < np.inf:
            raise UsageError(
                f"--class-scale: expected CLASS=FACTOR with a factor above 0, such as 7=1.5, not {entry!r}"
            )
        number = class_number(name.strip(), num_classes, class_names, "--class-scale")
        if not np.isnan(factors[number]):
            raise UsageError(f"--class-scale: names class {number} twice; leave one out")
        factors[number] = factor
    return np.where(np.isnan(factors), float(scale), factors)


def by_class(wanted: Mapping[Any, int], num_classes: int, class_names: Sequence[str] | None = None) -> Counts:
    """Return ``[C]`` numbers of a dictionary from class (number or name) to number."""
    numbers = np.full(num_classes, -1, np.int64)
    for key, value in wanted.items():
        number = class_number(key, num_classes, class_names, "the plan")
        if int(value) != value or value < 0:
            raise UsageError(f"the plan asks for {value!r} rows of class {key!r}; give a whole number from 0")
        if numbers[number] >= 0:
            raise UsageError(
                f"the plan names class {number} twice, the second time as {key!r}; leave one out"
            )
        numbers[number] = int(value)
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
        known = nearest(str(key), names) if names else f"classes are 0 .. {num_classes - 1}"
        raise UsageError(f"{who} names the class {key!r}, which is not there; {known}")
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
        return int(value) if value.isdecimal() else None
    try:
        return None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        return int(value) if isinstance(value, float) and value.is_integer() else None


def labels_of(plan: Counts, start: int, stop: int) -> npt.NDArray[np.int64]:
    """Return the classes of the generated rows ``start .. stop - 1``: all of class 0 first.

    Takes memory for these rows only.
    """
    ends = np.cumsum(plan)
    return np.searchsorted(ends, np.arange(start, stop), side="right").astype(np.int64)


def describe(
    plan: Counts, counts: npt.ArrayLike, groups: str, class_names: Sequence[str] | None = None
) -> list[dict[str, Any]]:
    """Return one row per class: class, name, group, rows, generated, total."""
    rows = np.asarray(counts, np.int64)
    masks = parse_groups(groups).masks(rows)
    return [
        {
            "class": number,
            "name": class_names[number] if class_names else str(number),
            "group": next(name for name in GROUPS if masks[name][number]),
            "rows": int(rows[number]),
            "generated": int(plan[number]),
            "total": int(rows[number] + plan[number]),
        }
        for number in range(len(rows))
    ]


def plan_table(entries: Sequence[Mapping[str, Any]]) -> str:
    """Return the plan as a text table, with the sums below."""
    columns = ("rows", "generated", "total")
    body = [
        [str(entry["name"]), str(entry["class"]), entry["group"], *(f"{entry[c]:,}" for c in columns)]
        for entry in entries
    ]
    sums = [f"{sum(entry[column] for entry in entries):,}" for column in columns]
    return table(["name", "class", "group", *columns], [*body, ["all", "", "", *sums]])


def _number(word: str) -> str | float:
    if word in STRATEGIES:
        return word
    try:
        return float(word)
    except ValueError:
        hint = nearest(word, STRATEGIES)
        raise UsageError(
            f"--strategy: unknown value {word!r}; {hint} (or a number, for two classes)"
        ) from None


def _by_word(
    rows: Counts, strategy: str, target: int | None, ratio: float, minimum: int, groups: str
) -> Counts:
    if strategy == "ratio":
        # Half a row is rounded up: 20 % of 3 rows is one row.
        added: Counts = np.floor(ratio * rows + 0.5).astype(np.int64)
        return np.maximum(added, minimum)
    goal = int(rows.max()) if target is None else target
    wanted = np.maximum(goal - rows, 0)
    smallest = np.arange(len(rows)) == int(rows.argmin())
    if strategy == "minority":
        return np.where(smallest, wanted, 0)
    if strategy == "not minority":
        return np.where(smallest, 0, wanted)
    if strategy in GROUPS:
        return np.where(parse_groups(groups).masks(rows)[strategy], wanted, 0)
    return wanted


def _binary(rows: Counts, share: float) -> Counts:
    if len(rows) != 2:
        raise UsageError(
            f"--strategy: a number ({share:g}) is for two classes, and these are {len(rows)}; "
            "use balance, ratio or a dictionary"
        )
    if not 0 < share <= 1:
        raise UsageError(f"--strategy: a number must be above 0 and at most 1, not {share:g}")
    small, large = int(rows.argmin()), 1 - int(rows.argmin())
    wanted = np.zeros(2, np.int64)
    wanted[small] = int(rows[large] * share) - rows[small]
    if wanted[small] < 0:
        raise UsageError(
            f"--strategy: class {small} already has {rows[small]} of the {rows[large] * share:g} rows that "
            f"{share:g} asks for; give a larger number"
        )
    return wanted
