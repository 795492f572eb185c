"""The comparison as a text table and as CSV."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ldmlr.experiments.catalogue import BASELINE, METHODS
from ldmlr.results import GROUP_COLUMNS
from ldmlr.text import accuracy_cell, accuracy_csv, row_name, table


def comparison_text(figures: Mapping[str, Any]) -> str:
    """Return table, rule of label shift, remarks and verdict for the terminal."""
    rows = figures["rows"]
    body = [
        [row_label(row), row["family"], *(accuracy_cell(row[column]) for column in GROUP_COLUMNS),
         f"{row['seconds']['mean']:.2f}"]
        for row in rows
    ]  # fmt: skip
    heads = figures["head"]
    lines = [
        table(["top-1 %", "family", *GROUP_COLUMNS, "s/seed"], body),
        "",
        f"Baseline head: {heads['baseline']}, {figures['baseline_head']}; trained heads: {heads['trained']}. "
        f"Selection: {figures['selection']}.",
        f"One rule, {figures['label_shift']}.",
    ]
    if figures["left_out"]:
        lines.append(f"Left out, as the store has no views: {', '.join(figures['left_out'])}.")
    lines += [f"Note, {note}." for note in figures["notes"]]
    found = figures["verdict"]
    said = [found["headline"]] if "headline" in found else []
    lines += ["", "Verdict", *(f"  {line}" for line in (*said, *found["lines"])), found["rule"]]
    return "\n".join(lines)


def comparison_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the rows as CSV: one line per method and adjustment, empty cells for empty groups."""
    lines = [
        (
            [row["method"], row["adjustment"], row["family"], row["tau"]],
            row,
            [f"{row['seconds']['mean']:.3f}", METHODS[row["method"]].what],
        )
        for row in rows
    ]
    return accuracy_csv(["method", "adjustment", "family", "tau"], lines, ["seconds", "what"])


def row_label(row: Mapping[str, Any]) -> str:
    """Return the name of a row; a baseline whose head is not linear says which it is."""
    kind = {"wcdas": "WCDAS", "cosine": "cosine"}.get(row["head"])
    if row["family"] != BASELINE or kind is None:
        return row_name(row)
    return row_name({**row, "method": f"{row['method']} ({kind})"})
