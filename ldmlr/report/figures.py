"""The drawings of the page: each takes figures, a theme and a width, and returns a sheet.

On a narrow sheet panels stand below each other, and names that do not fit are left out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ldmlr.report.canvas import LETTER, SMALL, SMALL_LETTER, WORDS, Point, Sheet
from ldmlr.report.labels import name_marks
from ldmlr.report.theme import Theme
from ldmlr.report.ticks import padded, plain, short
from ldmlr.report.words import kind_of, row_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Up to so many classes are named; of more than so many, so many are drawn, evenly by training rows.
NAMED, DRAWN = 24, 400
# Longest name of a class, in letters.
NAME = 14
# A sheet below this width is narrow.
PHONE = 600
# Of training rows, generated rows and test rows in the plane: colour, diameter and opacity.
ROWS = {"generated": ("made", 2.9, 0.6), "test": ("base-shift", 2.6, 0.8), "encoded": ("ink", 3.5, 1.0)}


def group_dots(rows: Sequence[Mapping[str, Any]], groups: Sequence[str], theme: Theme, width: int) -> Sheet:
    """Return accuracy by shot group: a panel per group, a line per row, mean and standard deviation.

    Parameters
    ----------
    rows
        Of an accuracy table.
    groups
        Its columns.
    theme, width
        Of the sheet.
    """
    across = 1 if width < PHONE else len(groups)
    pitch = 24 if len(rows) <= 8 else 19
    down = math.ceil(len(groups) / across)
    sheet = Sheet(theme, width, down * (pitch * len(rows) + 66))
    panels = sheet.panels(down, across, len(groups))
    for place, (axes, group) in enumerate(zip(panels, groups, strict=True)):
        ends = [
            row[group]["mean"] + side * row[group]["std"] for row in rows if row[group] for side in (-1, 1)
        ]
        sheet.title(axes, group, 20)
        sheet.scale(axes, "x", *padded(ends, 0.12), "top-1 %", count=4)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        names = [plain(row_name(row), 36) for row in rows]
        axes.set_yticks(range(len(rows)), names, fontsize=SMALL if across == 1 else WORDS)
        axes.tick_params(axis="y", labelcolor=theme.ink, labelleft=place % across == 0)
        axes.grid(False, axis="y")
        for line, row in enumerate(rows):
            entry = row[group]
            if entry and entry["std"]:
                colour = sheet.colour(kind_of(row))
                axes.plot([entry["mean"] - entry["std"], entry["mean"] + entry["std"]], [line, line],
                          color=colour, linewidth=2, alpha=0.6, solid_capstyle="butt")  # fmt: skip
    sheet.settle()
    for axes, group in zip(panels, groups, strict=True):
        for line, row in enumerate(rows):
            if entry := row[group]:
                sheet.dots(axes, [(entry["mean"], line)], kind_of(row))
    return sheet


def class_pairs(
    points: Sequence[tuple[str, float, float | None, float | None]],
    legend: Sequence[tuple[str, str]],
    label: str,
    log: bool,
    theme: Theme,
    width: int,
) -> Sheet:
    """Return two figures of each class against its training rows, joined by a line.

    Parameters
    ----------
    points
        Name, training rows, first and second figure of each class.
    legend
        Colour and words of both figures.
    label
        Of the upright axis.
    log
        Logarithmic upright axis; figures of zero and below are left out.
    theme, width
        Of the sheet.
    """
    shown: list[tuple[str, list[Point | None]]] = [
        (name, [(rows, value) if value is not None and (value > 0 or not log) else None for value in pair])
        for name, rows, *pair in thinned(sorted(points, key=lambda point: point[1]))
        if rows > 0
    ]
    ends = [[mark for mark in pair if mark] for _, pair in shown]
    rows, values = zip(*(mark for pair in ends for mark in pair), strict=True)
    small = width < PHONE
    sheet = Sheet(theme, width, 330 if small else 350)
    (axes,) = sheet.panels()
    sheet.legend(legend)
    words = f"training rows of the class{'' if small else ' (logarithmic)'}"
    sheet.scale(axes, "x", 0.85 * min(rows), 1.18 * max(rows), words, log=True)
    low, high = (0.8 * min(values), 1.25 * max(values)) if log else padded(values, 0.09)
    sheet.scale(axes, "y", low, high, label, log=log)
    sheet.settle()
    size = 8.0 if len(shown) <= 30 else 5.0 if len(shown) <= 150 else 3.0
    size -= 1.0 if small and len(shown) > 30 else 0.0
    sheet.segments(axes, [(pair[0], pair[1]) for pair in ends if len(pair) == 2])
    for number, (kind, _) in enumerate(legend):
        # The hole of a small ring cannot be seen.
        drawn = kind if size > 3.5 else kind.removesuffix(" open")
        sheet.dots(axes, [mark for _, pair in shown if (mark := pair[number])], drawn, size)
    if len(shown) <= NAMED:
        names = [name for name, _ in shown]
        name_marks(sheet, axes, list(zip(names, ends, strict=True)), size / 2)
    return sheet


def thinned(classes: Sequence[Any]) -> list[Any]:
    """Return all classes, or `DRAWN` of them, evenly in their order."""
    if len(classes) <= DRAWN:
        return list(classes)
    return [classes[round(place * (len(classes) - 1) / (DRAWN - 1))] for place in range(DRAWN)]


def plan_bars(classes: Sequence[Mapping[str, Any]], theme: Theme, width: int) -> Sheet:
    """Return natural and generated rows per class, sorted by natural rows, on a logarithmic axis.

    Parameters
    ----------
    classes
        ``name``, ``train_rows`` and ``generated_rows``.
    theme, width
        Of the sheet.
    """
    ranked = thinned(sorted(classes, key=lambda entry: -entry["train_rows"]))
    natural = [entry["train_rows"] for entry in ranked]
    totals = [entry["train_rows"] + entry["generated_rows"] for entry in ranked]
    named = len(ranked) <= NAMED
    sheet = Sheet(theme, width, 280)
    (axes,) = sheet.panels()
    sheet.legend([("base", "natural rows"), ("made", "generated rows")])
    sheet.scale(axes, "y", 0.5, 1.6 * max(totals), "rows (logarithmic)", log=True)
    axes.set_xlim(-0.5, len(ranked) - 0.5)
    axes.set_xlabel(f"class{'' if named else 'es'}, most training rows first", color=theme.soft)
    axes.set_xticks([])
    floor = [max(rows, 0.5) for rows in natural]
    places = range(len(ranked))
    if named:
        axes.bar(places, [rows - 0.5 for rows in floor], 0.72, 0.5, color=theme.base)
        grown = [place for place in places if totals[place] > floor[place]]
        heights = [totals[place] - floor[place] for place in grown]
        axes.bar(grown, heights, 0.72, [floor[place] for place in grown], color=theme.made)
        pitch = (width - 60) / len(ranked)
        names = [plain(entry["name"], NAME) for entry in ranked]
        upright = SMALL_LETTER * max(map(len, names)) > pitch
        axes.set_xticks(places, names, rotation=90 if upright else 0)
        axes.grid(False, axis="x")
        sheet.settle()
        _bar_counts(sheet, axes, ranked, floor, totals)
        return sheet
    # Bars that touch are one shape, and a tenth of the bytes.
    edges = [place - 0.5 for place in range(len(ranked) + 1)]
    axes.stairs(floor, edges, baseline=0.5, fill=True, color=theme.base)
    tops = [max(total, rows) for total, rows in zip(totals, floor, strict=True)]
    axes.stairs(tops, edges, baseline=floor, fill=True, color=theme.made)
    sheet.settle()
    return sheet


def _bar_counts(
    sheet: Sheet, axes: Axes, ranked: Sequence[Mapping[str, Any]], floor: Sequence[float],
    totals: Sequence[float],
) -> None:  # fmt: skip
    """Write the rows of each class into its bar and above it, where they fit."""
    counts = [(entry["train_rows"], entry["generated_rows"]) for entry in ranked]
    widest = max(sheet.extent(short(count))[0] for pair in counts for count in pair)
    ends = sheet.places(axes, [(0, 0.5), (1, 0.5)])
    if widest + 2 > ends[1][0] - ends[0][0]:
        return
    for place, (natural, made) in enumerate(counts):
        heights = (0.5, floor[place], totals[place])
        bottom, middle, top = sheet.places(axes, [(place, height) for height in heights])
        if natural and middle[1] - bottom[1] > 14:
            sheet.write(axes, short(natural), (middle[0], middle[1] - 7), "paper")
        if made:
            sheet.write(axes, short(made), (top[0], top[1] + 6))


def curves(panels: Sequence[tuple[str, str, Sequence[Sequence[Point]]]], theme: Theme, width: int) -> Sheet:
    """Return small line charts, side by side or below each other.

    Parameters
    ----------
    panels
        Title, label of the x axis, and one line of (x, y) per seed.
    theme, width
        Of the sheet.
    """
    across = 1 if width < PHONE else max(len(panels), 2)
    down = math.ceil(len(panels) / across)
    sheet = Sheet(theme, width, 230 * down)
    for axes, (title, label, lines) in zip(sheet.panels(down, across, len(panels)), panels, strict=True):
        x = [point[0] for line in lines for point in line]
        sheet.title(axes, title, 34)
        sheet.scale(axes, "x", min(x), max(x), label, count=4, whole=True)
        sheet.scale(axes, "y", *padded([point[1] for line in lines for point in line]), "loss", count=4)
        axes.margins(x=0)
        for line in lines:
            axes.plot(*zip(*line, strict=True), color=theme.made, linewidth=1.2, alpha=0.85,
                      marker="o" if len(line) == 1 else None, markersize=4)  # fmt: skip
    sheet.settle()
    return sheet


def projection(panels: Sequence[Mapping[str, Any]], theme: Theme, width: int) -> Sheet:
    """Return small multiples: encoded, generated and test rows of a class each, in one plane.

    Parameters
    ----------
    panels
        Per class ``name``, ``train_rows``, ``generated_rows`` and points of each kind.
    theme, width
        Of the sheet.
    """
    across = min(2 if width < PHONE else 3, len(panels))
    down = math.ceil(len(panels) / across)
    sheet = Sheet(theme, width, 30 + down * (0.72 * width / across + 40))
    points = [point for panel in panels for kind in ROWS for point in panel[kind]]
    ranges = [padded([point[axis] for point in points], 0.04) for axis in (0, 1)]
    sheet.legend([("ink", "encoded training rows"), ("made", "generated"), ("base-shift", "test")])
    room = width / across
    shown = sheet.panels(down, across, len(panels))
    for axes, panel in zip(shown, panels, strict=True):
        counts = f"{panel['train_rows']:,} training, {panel['generated_rows']:,} generated"
        if SMALL_LETTER * len(counts) > room:
            counts = f"{short(panel['train_rows'])} + {short(panel['generated_rows'])} generated"
        sheet.title(axes, panel["name"], int(room / LETTER) - 2, counts)
        axes.set(xticks=[], yticks=[], xlim=ranges[0], ylim=ranges[1])
        axes.spines[:].set(visible=True, color=theme.rule)
    sheet.settle()
    for axes, panel in zip(shown, panels, strict=True):
        for kind, (colour, size, alpha) in ROWS.items():
            sheet.dots(axes, panel[kind], colour, size, alpha)
    return sheet


def reliability(entries: Sequence[Mapping[str, Any]], theme: Theme, width: int) -> Sheet:
    """Return accuracy against confidence, a panel per row of the table, dots as large as their bins.

    Parameters
    ----------
    entries
        Rows with ``reliability``: per bin ``rows``, ``confidence`` and ``accuracy``.
    theme, width
        Of the sheet.
    """
    across = 2 if width < PHONE else 4
    down = math.ceil(len(entries) / across)
    room = width / across
    sheet = Sheet(theme, width, down * (room + 38))
    panels = sheet.panels(down, across, len(entries))
    for place, entry in enumerate(entries):
        axes = panels[place]
        sheet.title(axes, row_name(entry), int(room / LETTER) - 4)
        sheet.scale(axes, "x", -0.06, 1.06, "confidence", count=4)
        sheet.scale(axes, "y", -0.06, 1.06, "" if place % across else "accuracy", count=4)
        axes.set_box_aspect(1)
        axes.plot([0, 1], [0, 1], color=theme.soft, linewidth=0.75, alpha=0.55)
        colour = sheet.colour(kind_of(entry))
        axes.plot(*zip(*_bins(entry), strict=True), color=colour, linewidth=1.2, alpha=0.85)
    sheet.settle()
    for axes, entry in zip(panels, entries, strict=True):
        bins = _bins(entry)
        total = sum(bins.values())
        for mean, many in bins.items():
            sheet.dots(axes, [mean], kind_of(entry), 2.3 + 13.5 * math.sqrt(many / total), 0.45)
    return sheet


def _bins(entry: Mapping[str, Any]) -> dict[Point, int]:
    """Return (confidence, accuracy) -> rows of the bins that have rows."""
    found = [part for part in entry["reliability"] if part["rows"]]
    return {(part["confidence"], part["accuracy"]): part["rows"] for part in found}
