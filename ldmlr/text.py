"""Plain text tables for the terminal."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from ldmlr.results import BALANCED, GROUP_COLUMNS, accuracy_columns, judged_by


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return an aligned text table: the first column to the left, the others to the right."""
    cells = [list(header), *[list(row) for row in rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]

    def line(row: Sequence[str]) -> str:
        first, *others = zip(row, widths, strict=True)
        return "  ".join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)])

    return "\n".join([line(cells[0]), "  ".join("-" * width for width in widths), *map(line, cells[1:])])


def accuracy_table(rows: Sequence[dict[str, Any]]) -> str:
    """Return the accuracy table of a result document, in per cent, mean and standard deviation."""
    columns = accuracy_columns(rows)
    body = [[row_name(row), *(accuracy_cell(row[column]) for column in columns)] for row in rows]
    return table(["top-1 %", *columns], body)


def row_name(row: Mapping[str, Any]) -> str:
    """Return the method of an accuracy row, with its adjustment if it has one."""
    method = str(row["method"])
    return method if row["adjustment"] == "none" else f"{method} + {row['adjustment']}"


def accuracy_csv(
    before: Sequence[str],
    rows: Sequence[tuple[Sequence[Any], Mapping[str, Any], Sequence[Any]]],
    after: Sequence[str],
) -> str:
    """Return an accuracy table as CSV: mean and deviation of every group, and how many seeds.

    Parameters
    ----------
    before, after
        Names of the columns to the left and to the right.
    rows
        Per line the cells to the left, the accuracy row and the cells to the right; a group without
        classes has empty cells. Where rows are judged by it, there is ``balanced`` after the groups.
    """
    more = (BALANCED,) if judged_by([row for _, row, _ in rows]) == BALANCED else ()
    parts = [(column, part) for column in (*GROUP_COLUMNS, *more) for part in ("mean", "std")]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*before, *(f"{column}_{part}" for column, part in parts), "seeds", *after])
    for left, row, right in rows:
        figures = ["" if row[column] is None else f"{row[column][part]:.4f}" for column, part in parts]
        writer.writerow([*left, *figures, len(row["all"]["values"]), *right])
    return out.getvalue()


def accuracy_cell(entry: Mapping[str, Any] | None) -> str:
    """Return mean and standard deviation of a figure, ``-`` for a group without classes."""
    if entry is None:
        return "-"
    if len(entry["values"]) < 2:
        return f"{entry['mean']:.2f}"
    return f"{entry['mean']:.2f} ± {entry['std']:.2f}"
