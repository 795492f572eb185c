"""Comparisons and ablations for the terminal and as CSV."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ldmlr.diffusion.learned import in_words
from ldmlr.experiments.catalogue import BASELINE, METHODS
from ldmlr.metrics.familiar import KEY, Familiar
from ldmlr.results import accuracy_columns, judged_by
from ldmlr.text import accuracy_cell, accuracy_csv, row_name, table

# Characters of the plot of an ablation.
WIDTH = 48


def comparison_text(figures: Mapping[str, Any]) -> str:
    """Return table, rule of label shift, remarks and verdict for the terminal."""
    rows = figures["rows"]
    columns = accuracy_columns(rows)
    body = [
        [row_label(row), row["family"], *(accuracy_cell(row[column]) for column in columns),
         f"{row['seconds']['mean']:.2f}"]
        for row in rows
    ]  # fmt: skip
    heads = figures["head"]
    lines = [
        table(["top-1 %", "family", *columns, "s/seed"], body),
        "",
        f"Baseline head: {heads['baseline']}, {figures['baseline_head']}; trained heads: {heads['trained']}. "
        f"Selection: {figures['selection']}.",
        f"One rule, {figures['label_shift']}.",
    ]
    lines.append(Familiar(figures["features"][KEY], figures["features"]["why"]).words())
    if figures["left_out"]:
        lines.append(f"Left out, as the store has no views: {', '.join(figures['left_out'])}.")
    held_out = figures["held_out"]
    if held_out is not None and held_out["loss_over_gaussian"] is not None:
        lines.append(f"Diffusion: {in_words(held_out)}.")
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


def ablation_text(figures: Mapping[str, Any]) -> str:
    """Return table, plot and remarks for the terminal."""
    heads, columns = figures["head"], accuracy_columns(figures["rows"])
    body = [
        [_setting(row), *(accuracy_cell(row[column]) for column in columns),
         *((f"{row['generated']:,}", f"{row['seconds']['mean']:.2f}") if "generated" in row else ("", ""))]
        for row in figures["rows"]
    ]  # fmt: skip
    lines = [table([figures["ablation"], *columns, "rows", "s/seed"], body), ""]
    lines += [dot_plot(figures["rows"], adjustment) for adjustment in ("none", "label-shift")]
    lines += [
        "",
        f"Varied: {figures['what']}. Seeds: {len(figures['seeds'])}. Selection: {figures['selection']}.",
        f"Baseline head: {heads['baseline']}, {figures['baseline_head']}; trained heads: {heads['trained']}; "
        f"{figures['label_shift']}.",
    ]
    if figures["left_out"]:
        names = ", ".join(figures["left_out"])
        lines.append(f"Left out, as a group has no classes here, so that they repeat others: {names}.")
    return "\n".join(lines)


def dot_plot(rows: Sequence[Mapping[str, Any]], adjustment: str) -> str:
    """Return the accuracy of each setting as a dot on a line, with one standard deviation to each side.

    It is the accuracy that rows are judged by.

    Parameters
    ----------
    rows
        Rows of the result document.
    adjustment
        Which rows: ``none`` or ``label-shift``.
    """
    shown, column = [row for row in rows if row["adjustment"] == adjustment], judged_by(rows)
    ends = [row[column]["mean"] + side * row[column]["std"] for row in shown for side in (-1, 1)]
    low, high = float(min(ends)), float(max(ends))
    room = (high - low) or 1.0

    def place(value: float) -> int:
        return round((value - low) / room * (WIDTH - 1))

    width = max(len(_setting(row)) for row in shown)
    lines = [f"{'':<{width}}  {low:<{WIDTH // 2}.2f}{high:>{WIDTH - WIDTH // 2}.2f}"]
    for row in shown:
        mean, std = row[column]["mean"], row[column]["std"]
        first, last = place(mean - std), place(mean + std)
        cells = ["-" if first <= at <= last else "." for at in range(WIDTH)]
        cells[place(mean)] = "o"
        lines.append(f"{_setting(row):<{width}}  {''.join(cells)}")
    return "\n".join(lines)


def ablation_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the rows as CSV; empty cells for empty groups and for what the baseline does not have."""
    lines = [
        (
            [row["method"], row["setting"] or "", row["adjustment"]],
            row,
            [row["generated"], f"{row['seconds']['mean']:.3f}"] if "generated" in row else ["", ""],
        )
        for row in rows
    ]
    return accuracy_csv(["method", "setting", "adjustment"], lines, ["generated", "seconds"])


def _setting(row: Mapping[str, Any]) -> str:
    return row_name({**row, "method": row["setting"] or row["method"]})
