"""Tables of markdown from the lines of ``summary.csv``: rows and columns that are said by what they select.

A row and a column each give fields of the summary, such as ``{"method": "smote"}``; a cell shows the one
figure that has all of them. A field that is no column of the summary is a name that the others may use:
``{"set": "cifar10"}`` with ``{"experiment": "run-{set}"}``. What has no figure is left out: cells are empty,
rows and columns without any figure do not appear.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from summarise import COLUMNS, Row

Fields = Mapping[str, str]
Format = Callable[[Row], str]


def accuracy(row: Row) -> str:
    """Return mean and deviation; a single run, or a method without chance, has no deviation."""
    spread = float(row["std"] or 0)
    return f"{float(row['mean']):.2f}" + (f" ± {spread:.2f}" if spread >= 0.005 else "")


def rate(row: Row) -> str:
    """Return a number of three digits, with commas."""
    value = float(f"{float(row['mean']):.3g}")
    return f"{value:,.0f}" if value >= 100 else f"{value:g}"


def count(row: Row) -> str:
    """Return a whole number, with commas."""
    return f"{float(row['mean']):,.0f}"


def percent(row: Row) -> str:
    """Return a share as per cent."""
    return f"{float(row['mean']):.0%}".replace("%", " %")


def times(row: Row) -> str:
    """Return a ratio."""
    return f"{float(row['mean']):.1f} x"


def error(row: Row) -> str:
    """Return a deviation with two digits."""
    digits, power = f"{float(row['mean']):.1e}".split("e")
    return f"{digits}e{int(power)}"


@dataclass(frozen=True)
class Line:
    """A row of a table: its leading cells, and the fields of its figures."""

    labels: tuple[str, ...]
    fields: Fields


@dataclass(frozen=True)
class Column:
    """A column of a table: its head, the fields of its figures, and how they are written."""

    head: str
    fields: Fields
    written: Format = accuracy


@dataclass(frozen=True)
class Table:
    """What a table shows: heads of the leading columns, rows, columns, and fields that all cells share."""

    heads: tuple[str, ...]
    lines: Sequence[Line]
    columns: Sequence[Column]
    fields: Fields = field(default_factory=dict)


class Summary:
    """The lines of the summary, found by their fields."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self.by_experiment: dict[str, list[Row]] = defaultdict(list)
        for row in rows:
            self.by_experiment[row["experiment"]].append(row)

    def all(self, fields: Fields) -> list[Row]:
        """Return the lines that have all fields; those that only name something are put in."""
        wanted = {name: text for name, text in fields.items() if name in COLUMNS}
        wanted = {name: text.format_map(fields) for name, text in wanted.items()}
        rows = self.by_experiment.get(wanted["experiment"], [])
        return [row for row in rows if all(row[name] == text for name, text in wanted.items())]

    def one(self, fields: Fields) -> Row | None:
        """Return the line that has all fields, or None.

        Raises
        ------
        ValueError
            Several lines have them.
        """
        found = self.all(fields)
        if len(found) > 1:
            raise ValueError(f"{len(found)} figures have {dict(fields)}; say more")
        return found[0] if found else None

    def settings(self, *experiments: str) -> list[str]:
        """Return what was varied in experiments, in the order of the first that has it."""
        rows = (row for name in experiments for row in self.by_experiment.get(name, []))
        return list(dict.fromkeys(row["setting"] for row in rows if row["setting"]))


def markdown(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Return a table as markdown."""
    rule = "|" + "---|" * len(heads)
    return "\n".join([_line(heads), rule, *map(_line, lines)])


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def rendered(table: Table, summary: Summary) -> str:
    """Return a table as markdown, without rows and columns that have no figure.

    Raises
    ------
    ValueError
        A cell has several figures, or the table none.
    """
    cells = []
    for line in table.lines:
        found = [summary.one({**table.fields, **column.fields, **line.fields}) for column in table.columns]
        cells.append(
            [column.written(row) if row else "" for column, row in zip(table.columns, found, strict=True)]
        )
    shown = [place for place in range(len(table.columns)) if any(row[place] for row in cells)]
    if not shown:
        raise ValueError("the table has no figures")
    heads = [*table.heads, *(table.columns[place].head for place in shown)]
    lines, before = [], ""
    for line, row in zip(table.lines, cells, strict=True):
        if any(row):
            # Of several leading cells the first is said once, where it begins.
            repeated = len(line.labels) > 1 and line.labels[0] == before
            first, before = "" if repeated else line.labels[0], line.labels[0]
            lines.append([first, *line.labels[1:], *(row[place] for place in shown)])
    return markdown(heads, lines)
