"""An ablation as an SVG file: a dot with its standard deviation for each setting, the baseline as a line.

Written by hand, as five kinds of marks are all it needs. The colours are two of Okabe and Ito's, which people
with any kind of colour vision tell apart; the marks differ as well.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from ldmlr.report.svg import round_step

SIZE = (720, 400)
LEFT, RIGHT, TOP, BOTTOM = 62, 16, 46, 62
SERIES = (("none", "as it is", "#0072b2"), ("label-shift", "with label shift", "#d55e00"))


def ablation_svg(rows: Sequence[Mapping[str, Any]], title: str) -> str:
    """Return the plot: settings along x in their order, accuracy of all classes in per cent along y.

    Parameters
    ----------
    rows
        Rows of the result document.
    title
        Written above the plot.
    """
    width, height = SIZE
    names = [row["setting"] for row in rows if row["setting"] is not None and row["adjustment"] == "none"]
    ends = [row["all"]["mean"] + side * row["all"]["std"] for row in rows for side in (-1, 1)]
    low, high, step = _axis(min(ends), max(ends))
    span = width - LEFT - RIGHT

    def across(at: float) -> float:
        return LEFT + span * (at + 0.5) / len(names)

    def up(value: float) -> float:
        return height - BOTTOM - (value - low) / (high - low) * (height - TOP - BOTTOM)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" '
        f'font-size="12" role="img" aria-label="{escape(title)}">',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        _text(LEFT, 18, title, "start", 'font-size="14"'),
        _text(16, (height - BOTTOM + TOP) / 2, "top-1 %", "middle",
              f'transform="rotate(-90 16 {_n((height - BOTTOM + TOP) / 2)})"'),
    ]  # fmt: skip
    for number in range(round((high - low) / step) + 1):
        value = low + number * step
        parts.append(_line(LEFT, up(value), width - RIGHT, up(value), "#e4e4e4"))
        parts.append(_text(LEFT - 6, up(value) + 4, f"{value:.{_decimals(step)}f}", "end"))
    slant = len(names) * max(map(len, names)) * 7 > span
    for at, name in enumerate(names):
        x, y = across(at), height - BOTTOM + 18
        turn = f'transform="rotate(-25 {_n(x)} {_n(y)})"' if slant else ""
        parts.append(_text(x, y, name, "end" if slant else "middle", turn))
    for number, (adjustment, words, colour) in enumerate(SERIES):
        chosen = [row for row in rows if row["adjustment"] == adjustment]
        parts.append(_mark(number, LEFT + 6 + 150 * number, 34, colour))
        parts.append(_text(LEFT + 16 + 150 * number, 38, words))
        points = [row for row in chosen if row["setting"] is not None]
        for row in chosen:
            if row["setting"] is None:
                level = up(row["all"]["mean"])
                parts.append(_line(LEFT, level, width - RIGHT, level, colour, 'stroke-dasharray="5 4"'))
        for at, row in enumerate(points):
            # The two series stand side by side, so that none hides the other.
            middle = across(at) + 6 * (2 * number - 1)
            mean, std = row["all"]["mean"], row["all"]["std"]
            hint = f"{row['setting']}, {words}: {mean:.2f} ± {std:.2f}"
            bar = _line(middle, up(mean - std), middle, up(mean + std), colour, 'stroke-width="2"')
            parts.append(
                f"<g><title>{escape(hint)}</title>{bar}{_mark(number, middle, up(mean), colour)}</g>"
            )
    parts.append(_text(LEFT + 320, 38, "dashed: the baseline's head"))
    parts.append("</svg>")
    return "\n".join(parts) + "\n"


def _axis(low: float, high: float) -> tuple[float, float, float]:
    """Return round ends around a range, and the step between grid lines."""
    step = round_step(max(high - low, 0.1) / 5)
    return math.floor(low / step) * step, math.ceil(high / step + 1e-9) * step, step


def _decimals(step: float) -> int:
    return max(0, -math.floor(math.log10(step) + 1e-9))


def _n(value: float) -> str:
    return f"{value:.1f}"


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, more: str = "") -> str:
    ends = f'x1="{_n(x1)}" y1="{_n(y1)}" x2="{_n(x2)}" y2="{_n(y2)}"'
    return f'<line {ends} stroke="{colour}"{" " + more if more else ""}/>'


def _text(x: float, y: float, words: str, anchor: str = "start", more: str = "") -> str:
    place = f'x="{_n(x)}" y="{_n(y)}" text-anchor="{anchor}"'
    return f"<text {place}{' ' + more if more else ''}>{escape(words)}</text>"


def _mark(number: int, x: float, y: float, colour: str) -> str:
    """Return a disc for the first series, a square for the second."""
    if number == 0:
        return f'<circle cx="{_n(x)}" cy="{_n(y)}" r="4.5" fill="{colour}"/>'
    return f'<rect x="{_n(x - 4)}" y="{_n(y - 4)}" width="8" height="8" fill="{colour}"/>'
