"""The charts of the page: each takes figures and returns a drawing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ldmlr.report.svg import Drawing, Scale, padded, short

WIDTH = 860.0
# Up to so many classes are named on an axis.
NAMED = 24


def row_name(row: Mapping[str, Any]) -> str:
    """Return the name of a row of an accuracy table."""
    head = str(row.get("head", ""))
    # A measured head has a name, in older documents its file's; in other tables, `head` is the kind of head.
    measured = head == "stored" or head.endswith(".safetensors")
    own = row.get("name") or (Path(head).stem if measured else None)
    # The rows of an ablation differ by their setting.
    name = str(own or row.get("setting") or row.get("method") or head)
    if row.get("adjustment", "none") != "none":
        name += f" + {str(row['adjustment']).replace('-', ' ')}"
    return name


def kind_of(row: Mapping[str, Any]) -> str:
    """Return the colour class of a row: baseline or LDMLR, plain or with label shift, or another."""
    method = {"baseline": "base", "ldmlr": "made"}.get(str(row.get("method")), "other")
    return method + ("-shift" if row.get("adjustment") == "label-shift" and method != "other" else "")


def group_dots(rows: Sequence[Mapping[str, Any]], groups: Sequence[str]) -> Drawing:
    """Return accuracy by shot group: a panel per group, a row per method, mean and standard deviation."""
    names = [_cut(row_name(row), 30) for row in rows]
    left = 16 + 6.6 * max(map(len, names))
    step, top = 24.0 if len(rows) <= 8 else 19.0, 26.0
    bottom = top + step * len(rows) + 4
    drawing = Drawing(WIDTH, bottom + 40, f"Top-1 accuracy in per cent of {len(rows)} rows by shot group")
    panel = (WIDTH - left) / len(groups)
    for place, name in enumerate(names):
        drawing.text((left - 12, top + step * (place + 0.5) + 4), name, "end")
    for number, group in enumerate(groups):
        start = left + panel * number
        found = [row[group] for row in rows]
        ends = [entry["mean"] + sign * entry["std"] for entry in found if entry for sign in (-1, 1)]
        scale = Scale(*padded(ends, 0.1), start + 6, start + panel - 16)
        drawing.text((start + 6, 14), group, kind="strong")
        drawing.x_axis(scale, bottom, top, "top-1 %", 4)
        for place, (row, entry) in enumerate(zip(rows, found, strict=True)):
            if entry is None:
                continue
            y, kind = top + step * (place + 0.5), kind_of(row)
            mean, std = entry["mean"], entry["std"]
            if std > 0:
                drawing.line((scale(mean - std), y), (scale(mean + std), y), f"bar {kind}")
            spread = f" ± {std:.2f}" if len(entry["values"]) > 1 else ""
            drawing.circle((scale(mean), y), 4.5, f"mark {kind}", f"{row_name(row)}: {mean:.2f}{spread}")
    return drawing


def class_pairs(
    points: Sequence[tuple[str, float, float | None, float | None]],
    *,
    title: str,
    label: str,
    kinds: tuple[str, str] = ("base open", "made"),
    log: bool = False,
) -> Drawing:
    """Return two figures of each class against its training rows, joined by a line.

    Parameters
    ----------
    points
        Name, training rows, first and second figure of each class.
    title, label
        Of the drawing and of its upright axis.
    kinds
        Colour classes of the two figures.
    log
        Logarithmic upright axis; figures of zero and below are left out.
    """
    left, top, bottom = 46.0, 30.0, 300.0
    drawing = Drawing(WIDTH, bottom + 42, title)
    values = [
        value for point in points for value in point[2:] if value is not None and (value > 0 or not log)
    ]
    x = Scale(
        0.85 * min(point[1] for point in points), 1.18 * max(point[1] for point in points),
        left, WIDTH - 14, log=True,
    )  # fmt: skip
    low, high = (0.8 * min(values), 1.25 * max(values)) if log else padded(values)
    y = Scale(low, high, bottom, top, log=log)
    drawing.y_axis(y, left, WIDTH - 14, label)
    drawing.x_axis(x, bottom, top, "training rows of the class (logarithmic)")
    shown = [
        (name, rows, [value if value is not None and (value > 0 or not log) else None for value in pair])
        for name, rows, *pair in points
    ]
    radius = 5.0 if len(points) <= 30 else 3.2 if len(points) <= 300 else 1.8
    if len(points) <= 300:
        drawing.segments(
            (((x(rows), y(a)), (x(rows), y(b))) for _, rows, (a, b) in shown
             if a is not None and b is not None),
            "link",
        )  # fmt: skip
    for number, kind in enumerate(kinds):
        if len(points) > 300:
            found = [(rows, pair[number]) for _, rows, pair in shown]
            dots = [(x(rows), y(value)) for rows, value in found if value is not None]
            drawing.dots(dots, f"{kind} small")
            continue
        for name, rows, pair in shown:
            value = pair[number]
            if value is not None:
                drawing.circle(
                    (x(rows), y(value)),
                    radius,
                    f"mark {kind}",
                    f"{name}, {rows:,.0f} training rows: {value:.4g}",
                )
    if len(points) <= NAMED:
        for name, rows, pair in shown:
            known = [y(value) for value in pair if value is not None]
            if known:
                drawing.text((x(rows), min(known) - 9), _cut(name, 12), "middle", "tick")
    return drawing


def plan_bars(classes: Sequence[Mapping[str, Any]]) -> Drawing:
    """Return natural and generated rows per class, sorted by natural rows, on a logarithmic axis."""
    left, top, bottom = 46.0, 30.0, 230.0
    ranked = sorted(classes, key=lambda entry: -entry["train_rows"])
    few = len(ranked) <= NAMED
    if len(ranked) > 400:
        ranked = [ranked[round(place * (len(ranked) - 1) / 399)] for place in range(400)]
    drawing = Drawing(
        WIDTH, bottom + (44 if few else 24),
        "Rows per class: natural, and with the generated ones, logarithmic",
    )  # fmt: skip
    totals = [entry["train_rows"] + entry["generated_rows"] for entry in ranked]
    y = Scale(0.5, 1.4 * max(totals), bottom, top, log=True)
    drawing.y_axis(y, left, WIDTH - 14, "rows (logarithmic)")
    width = (WIDTH - 14 - left) / len(ranked)
    body = width * (0.72 if width > 4 else 1.0)

    def box(place: int, rows: float, base: float = 0.0) -> tuple[float, float, float, float]:
        high, low = y(rows), bottom if base < 1 else y(base)
        return left + place * width + (width - body) / 2, high, body, max(low - high, 0.0)

    drawing.bars((box(place, entry["train_rows"]) for place, entry in enumerate(ranked)), "fill base")
    drawing.bars(
        (box(place, total, entry["train_rows"])
         for place, (entry, total) in enumerate(zip(ranked, totals, strict=True)) if entry["generated_rows"]),
        "fill made",
    )  # fmt: skip
    for place, entry in enumerate(ranked):
        if few:
            middle = left + (place + 0.5) * width
            drawing.text((middle, bottom + 15), _cut(entry["name"], max(3, int(width / 6))), "middle", "tick")
            for value, height, kind in (
                (entry["train_rows"], y(entry["train_rows"]) + 13, "inside"),
                (entry["generated_rows"], y(totals[place]) - 5, "tick"),
            ):
                if value and (kind == "tick" or bottom - y(entry["train_rows"]) > 18):
                    drawing.text((middle, height), short(value), "middle", kind)
    if few:
        drawing.text(((left + WIDTH) / 2, bottom + 36), "class, most training rows first", "middle", "label")
    else:
        drawing.text(
            ((left + WIDTH) / 2, bottom + 18), "classes, most training rows first", "middle", "label"
        )
    return drawing


def curves(panels: Sequence[tuple[str, str, Sequence[Sequence[tuple[float, float]]]]]) -> Drawing:
    """Return small line charts side by side.

    Parameters
    ----------
    panels
        Title, label of the x axis, and one line of (x, y) per seed.
    """
    top, bottom, gap = 44.0, 200.0, 58.0
    drawing = Drawing(WIDTH, bottom + 42, "Training loss: " + "; ".join(title for title, _, _ in panels))
    size = (WIDTH - gap * len(panels)) / max(len(panels), 2)
    for number, (title, label, lines) in enumerate(panels):
        left = gap - 12 + number * (size + gap)
        x = Scale(
            min(point[0] for line in lines for point in line),
            max(point[0] for line in lines for point in line), left, left + size,
        )  # fmt: skip
        y = Scale(*padded([point[1] for line in lines for point in line]), bottom, top)
        drawing.text((left - 6, 14), title, kind="strong")
        drawing.y_axis(y, left, left + size, "loss", 4)
        drawing.x_axis(x, bottom, top, label, 4)
        for line in lines:
            drawing.polyline([(x(a), y(b)) for a, b in line], "curve made")
            if len(line) == 1:
                drawing.circle((x(line[0][0]), y(line[0][1])), 3, "mark made")
    return drawing


def projection(found: Mapping[str, Any]) -> Drawing:
    """Return small multiples: encoded, generated and test rows of a class each, in one plane."""
    panels = found["classes"]
    columns = min(3, len(panels))
    gap, head = 14.0, 26.0
    size = (WIDTH - gap * (columns - 1)) / columns
    height = 0.72 * size
    lines = math.ceil(len(panels) / columns)
    drawing = Drawing(
        WIDTH, lines * (height + head + gap),
        f"Encoded, generated and test rows of {len(panels)} classes in the plane of two principal components",
    )  # fmt: skip
    kinds = ("generated", "test", "encoded")
    points = [point for panel in panels for kind in kinds for point in panel[kind]]
    ranges = [padded([point[axis] for point in points], 0.04) for axis in (0, 1)]
    for number, panel in enumerate(panels):
        left = (number % columns) * (size + gap)
        top = (number // columns) * (height + head + gap) + head
        x = Scale(*ranges[0], left, left + size)
        y = Scale(*ranges[1], top + height, top)
        drawing.bars([(left, top, size, height)], "frame")
        many = f"{panel['train_rows']:,} training, {panel['generated_rows']:,} generated rows"
        drawing.text((left, top - 8), _cut(panel["name"], 18), kind="strong")
        drawing.text((left + size, top - 8), many, "end", "tick")
        for kind in kinds:
            drawing.dots([(x(a), y(b)) for a, b in panel[kind]], f"row-{kind}")
    return drawing


def reliability(entries: Sequence[Mapping[str, Any]]) -> Drawing:
    """Return accuracy against confidence, a panel per row of the table, dots as large as their bins."""
    gap, top = 44.0, 30.0
    columns = 4
    size = (WIDTH - gap * columns) / columns
    bottom = top + size
    drawing = Drawing(
        WIDTH, bottom + 42, "Accuracy against confidence of " + ", ".join(map(row_name, entries))
    )
    for number, entry in enumerate(entries):
        left = 34 + number * (size + gap)
        x, y = Scale(0, 1, left, left + size), Scale(0, 1, bottom, top)
        drawing.text((left - 6, 14), row_name(entry), kind="strong")
        drawing.y_axis(y, left, left + size, "", 4)
        drawing.x_axis(x, bottom, top, "confidence", 4)
        drawing.line((x(0), y(0)), (x(1), y(1)), "link")
        bins = [found for found in entry["reliability"] if found["rows"]]
        total = sum(found["rows"] for found in bins)
        places = [(x(found["confidence"]), y(found["accuracy"])) for found in bins]
        drawing.polyline(places, f"curve {kind_of(entry)}")
        for place, found in zip(places, bins, strict=True):
            mean = f"confidence {found['confidence']:.2f}, accuracy {found['accuracy']:.2f}"
            words = f"{found['rows']:,} rows: {mean}"
            radius = 1.5 + 9 * math.sqrt(found["rows"] / total)
            drawing.circle(place, radius, f"mark faint {kind_of(entry)}", words)
    return drawing


def _cut(name: str, length: int) -> str:
    return name if len(name) <= length else name[: max(length - 1, 1)] + "…"
