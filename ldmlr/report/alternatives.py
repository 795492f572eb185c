"""What each picture shows, in words, for those who cannot see it: the kind of drawing, then what it says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ldmlr.errors import counted
from ldmlr.report.words import row_name, spread
from ldmlr.results import BALANCED, judged_by

# So many rows or classes are told one by one.
TOLD = 8
Point = tuple[float, float]


def accuracy(rows: Sequence[Mapping[str, Any]], groups: Sequence[str]) -> str:
    """Describe `figures.group_dots`."""
    column = judged_by(rows)
    told = [row for row in rows if row[column]]
    told = sorted(told, key=lambda row: -float(row[column]["mean"]))
    first = "; ".join(f"{row_name(row)} {spread(row[column])}" for row in told[:TOLD])
    what = "All classes alike" if column == BALANCED else "All classes"
    best = f"{what}, best first" if len(told) > 1 else what
    more = f"; and {len(told) - TOLD} more" if len(told) > TOLD else ""
    words = f" {best}: {first}{more}." if told else ""
    return f"Dots with error bars: top-1 accuracy in per cent by shot group ({', '.join(groups)}).{words}"


def pairs(points: Sequence[tuple[Any, ...]], title: str, names: Sequence[str]) -> str:
    """Describe `figures.class_pairs`."""
    both = [(a, b) for _, _, a, b in points if a is not None and b is not None]
    first, second = names
    above = sum(b > a for a, b in both)
    below = sum(b < a for a, b in both)
    rows = [point[1] for point in points]
    many = f"{len(points):,} class{'es' if len(points) != 1 else ''}"
    return (
        f"Two dots for each of {many} with {min(rows):,} to {max(rows):,} training rows. {title}: {second} "
        f"above {first} in {above:,}, below in {below:,}, equal in {len(both) - above - below:,}."
    )


def plan(classes: Sequence[Mapping[str, Any]]) -> str:
    """Describe `figures.plan_bars`."""
    most = max(classes, key=lambda entry: entry["train_rows"])
    least = min(classes, key=lambda entry: entry["train_rows"])
    ends = " to ".join(
        f"{entry['train_rows']:,} + {entry['generated_rows']:,} ({entry['name']})" for entry in (most, least)
    )
    return (
        "Stacked bars on a logarithmic axis: natural and generated rows of "
        f"{counted(len(classes), 'class')}, from {ends}."
    )


def training(panels: Sequence[tuple[str, str, Sequence[Sequence[Point]]]]) -> str:
    """Describe `figures.curves`."""
    told = []
    for title, label, lines in panels:
        first, last = (sum(line[end][1] for line in lines) / len(lines) for end in (0, -1))
        told.append(f"{title}, from {first:.3g} to {last:.3g} at {label} {lines[0][-1][0]:g}")
    return f"Lines of the training loss, one per seed. {'; '.join(told)}."


def plane(panels: Sequence[Mapping[str, Any]]) -> str:
    """Describe `figures.projection`."""
    names = ", ".join(str(panel["name"]) for panel in panels)
    return (
        f"Small panels of dots for {counted(len(panels), 'class')} ({names}): encoded, generated and test "
        "rows in the plane of two principal components."
    )


def reliability(entries: Sequence[Mapping[str, Any]]) -> str:
    """Describe `figures.reliability`."""
    told = []
    for entry in entries:
        bins = [found for found in entry["reliability"] if found["rows"]]
        total = sum(found["rows"] for found in bins)
        confidence, right = (
            sum(found["rows"] * found[name] for found in bins) / total for name in ("confidence", "accuracy")
        )
        told.append(f"{row_name(entry)}, mean confidence {confidence:.2f} and accuracy {right:.2f}")
    return f"Dots of accuracy against confidence, a panel for each of: {'; '.join(told)}."


def ablation(rows: Sequence[Mapping[str, Any]], title: str) -> str:
    """Describe `ablation.ablation_picture`."""
    column = judged_by(rows)
    told = [
        f"{row['setting'] or 'baseline'}, {'as it is' if row['adjustment'] == 'none' else 'with label shift'}"
        f": {row[column]['mean']:.2f} ± {row[column]['std']:.2f}"
        for row in rows
    ]
    words = "balanced top-1" if column == BALANCED else "top-1"
    return f"{title}. Dots with error bars: {words} accuracy in per cent by setting. {'; '.join(told)}."
