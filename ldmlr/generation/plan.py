"""The generation plan: how many rows of which class, as data.

A plan is one number per class. It is made from the training rows per class by a strategy:
imbalanced-learn's words, a dictionary, or the paper's ratio. All rows of a class follow
each other in the order of classes, so the label of every row is a function of the plan.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ldmlr.arguments import MAX_ROWS
from ldmlr.classes import class_number
from ldmlr.errors import UsageError, counted, nearest, opt
from ldmlr.generation.config import BALANCING, PlanConfig, strategy_of
from ldmlr.groups import GROUPS, parse_groups
from ldmlr.text import table

Counts = npt.NDArray[np.int64]
Strategy = str | float | Mapping[Any, int] | Callable[[Counts], Mapping[Any, int]]


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
        Names that a dictionary may use and that messages have.

    Raises
    ------
    UsageError
        An unknown strategy, class or group, a target without a use, a negative number, or more rows than
        can be numbered.
    """
    rows = np.asarray(counts, np.int64)
    if callable(strategy):
        strategy = strategy(rows)
    if isinstance(strategy, str):
        strategy = strategy_of(strategy)
    if target is not None and not (isinstance(strategy, str) and strategy in BALANCING):
        raise UsageError(
            f"{opt('target')}: only strategies that fill up to a number of rows use it; leave it out"
        )
    if isinstance(strategy, Mapping):
        wanted = _by_class(strategy, len(rows), class_names)
    elif isinstance(strategy, str):
        wanted = _by_word(rows, strategy, target, ratio, minimum, groups)
    else:
        wanted = _binary(rows, float(strategy), class_names)
    total = sum(wanted.tolist())
    if total > MAX_ROWS:
        raise UsageError(f"the plan asks for {counted(total, 'row')}, more than {MAX_ROWS:,}; ask for fewer")
    if only:
        masks = parse_groups(groups).masks(rows)
        for name in only:
            if name not in GROUPS:
                raise UsageError(f"{opt('only')}: unknown value {name!r}; {nearest(name, GROUPS)}")
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
            f"{opt('count')}: takes the place of {opt('strategy')} {config.strategy}; leave one of the "
            "two out"
        )
    for name in ("ratio", "minimum"):
        if config.strategy != "ratio" and getattr(config, name) != getattr(default, name):
            raise UsageError(f"{opt(name)}: only {opt('strategy', 'ratio')} uses it; leave it out")
    strategy: Strategy = config.count or config.strategy
    return plan(
        counts, strategy, target=config.target, ratio=config.ratio, minimum=config.minimum,
        only=config.only, groups=config.groups, class_names=class_names,
    )  # fmt: skip


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


def _by_class(wanted: Mapping[Any, int], num_classes: int, class_names: Sequence[str] | None) -> Counts:
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


def _by_word(
    rows: Counts, strategy: str, target: int | None, ratio: float, minimum: int, groups: str
) -> Counts:
    if strategy == "ratio":
        # Half a row is rounded up: 20 % of 3 rows is one row.
        added: Counts = np.minimum(np.floor(ratio * rows + 0.5), MAX_ROWS + 1).astype(np.int64)
        return np.asarray(np.maximum(added, min(minimum, MAX_ROWS + 1)))
    goal = int(rows.max()) if target is None else min(target, MAX_ROWS + int(rows.max()) + 1)
    wanted = np.maximum(goal - rows, 0)
    smallest = np.arange(len(rows)) == int(rows.argmin())
    if strategy == "minority":
        return np.where(smallest, wanted, 0)
    if strategy == "not minority":
        return np.where(smallest, 0, wanted)
    if strategy in GROUPS:
        return np.where(parse_groups(groups).masks(rows)[strategy], wanted, 0)
    return wanted


def _binary(rows: Counts, share: float, class_names: Sequence[str] | None) -> Counts:
    if len(rows) != 2:
        raise UsageError(
            f"{opt('strategy')}: a number ({share:g}) is for two classes, and these are {len(rows)}; "
            "use balance, ratio or a dictionary"
        )
    if not 0 < share <= 1:
        raise UsageError(f"{opt('strategy')}: a number must be above 0 and at most 1, not {share:g}")
    small, large = int(rows.argmin()), 1 - int(rows.argmin())
    wanted = np.zeros(2, np.int64)
    wanted[small] = int(rows[large] * share) - rows[small]
    if wanted[small] < 0:
        name = class_names[small] if class_names else small
        raise UsageError(
            f"{opt('strategy')}: class {name} already has {rows[small]} of the {rows[large] * share:g} "
            "rows that "
            f"{share:g} asks for; give a larger number"
        )
    return wanted
