"""Drawing: scales, and an SVG element with a title; colours come from the style sheet of the page.

Five kinds of marks are all that the charts need, so there is no plotting library behind them. Many points
of one kind are one path of round dots: about ten bytes a point.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from html import escape

Point = tuple[float, float]
_ids = itertools.count()


class Scale:
    """Maps values to positions, linearly or by logarithm.

    Parameters
    ----------
    low, high
        The values at both ends; equal ones are widened.
    start, stop
        Their positions.
    log
        Logarithmic; the values must be positive.
    """

    def __init__(self, low: float, high: float, start: float, stop: float, log: bool = False) -> None:
        if log:
            low = max(low, 1e-12)
        if not high > low:
            low, high = (low / 2, low * 2) if log else (low - 0.5, low + 0.5)
        self.low, self.high, self.start, self.stop, self.log = low, high, start, stop, log

    def __call__(self, value: float) -> float:
        """Return the position of a value."""
        if self.log:
            share = math.log(max(value, self.low) / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.stop - self.start)

    def ticks(self, count: int = 5) -> list[float]:
        """Return round values inside the scale, about `count` of them."""
        if self.log:
            first, last = math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9)
            factors = (1.0,) if last - first > 2 else (1.0, 2.0, 5.0)
            round_values = [
                10.0**power * factor for power in range(first - 1, last + 1) for factor in factors
            ]
            found = [value for value in round_values if self.low <= value <= self.high]
            if len(found) > 1:
                return found
        step = round_step((self.high - self.low) / max(count, 1))
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [step * number for number in range(first, last + 1)]


def round_step(rough: float) -> float:
    """Return 1, 2 or 5 times a power of ten, not below `rough`."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next(power * factor for factor in (1, 2, 5, 10) if rough <= power * factor * 1.0001)


def padded(values: Iterable[float], share: float = 0.06) -> tuple[float, float]:
    """Return the range of values, a little wider."""
    found = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
    low, high = min(found), max(found)
    more = share * (high - low) or 0.5
    return low - more, high + more


def short(value: float) -> str:
    """Return a number as an axis label: ``0.05``, ``20``, ``3k``, ``2M``."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"


def at(value: float) -> str:
    """Return a coordinate with one decimal at most."""
    return f"{value:.1f}".removesuffix(".0")


class Drawing:
    """An SVG element that grows.

    Parameters
    ----------
    width, height
        Size in its own units; on the page it is as wide as its column.
    title
        What a screen reader says.
    """

    def __init__(self, width: float, height: float, title: str) -> None:
        self.width, self.height, self.title = width, height, title
        self.parts: list[str] = []

    def line(self, a: Point, b: Point, kind: str = "grid") -> None:
        """Draw a line from a to b."""
        self.parts.append(f'<path class="{kind}" d="M{at(a[0])} {at(a[1])}L{at(b[0])} {at(b[1])}"/>')

    def polyline(self, points: Sequence[Point], kind: str) -> None:
        """Draw a line through points."""
        if points:
            self.parts.append(
                f'<path class="{kind}" d="M{"L".join(f"{at(x)} {at(y)}" for x, y in points)}"/>'
            )

    def segments(self, pairs: Iterable[tuple[Point, Point]], kind: str) -> None:
        """Draw many lines as one path."""
        path = "".join(f"M{at(a[0])} {at(a[1])}L{at(b[0])} {at(b[1])}" for a, b in pairs)
        if path:
            self.parts.append(f'<path class="{kind}" d="{path}"/>')

    def dots(self, points: Iterable[Point], kind: str) -> None:
        """Draw many small dots as one path; their size is the stroke width of `kind`."""
        path = "".join(f"M{at(x)} {at(y)}h0" for x, y in points)
        if path:
            self.parts.append(f'<path class="dot {kind}" d="{path}"/>')

    def circle(self, centre: Point, radius: float, kind: str, title: str = "") -> None:
        """Draw a circle; its title is what the pointer shows."""
        shape = f'<circle class="{kind}" cx="{at(centre[0])}" cy="{at(centre[1])}" r="{at(radius)}"'
        self.parts.append(f"{shape}><title>{escape(title)}</title></circle>" if title else f"{shape}/>")

    def bars(self, boxes: Iterable[tuple[float, float, float, float]], kind: str) -> None:
        """Draw boxes (x, y, width, height) as one path."""
        path = "".join(f"M{at(x)} {at(y)}h{at(w)}v{at(h)}h{at(-w)}z" for x, y, w, h in boxes)
        if path:
            self.parts.append(f'<path class="{kind}" d="{path}"/>')

    def text(self, place: Point, words: str, anchor: str = "start", kind: str = "") -> None:
        """Write words; the place is their base line."""
        more = f' class="{kind}"' if kind else ""
        self.parts.append(
            f'<text x="{at(place[0])}" y="{at(place[1])}" text-anchor="{anchor}"{more}>{escape(words)}</text>'
        )

    def x_axis(self, scale: Scale, y: float, top: float, label: str = "", count: int = 5) -> None:
        """Draw vertical grid lines from `top` to `y` with their values, and a label below."""
        for value in scale.ticks(count):
            self.line((scale(value), top), (scale(value), y))
            self.text((scale(value), y + 14), short(value), "middle", "tick")
        if label:
            self.text(((scale.start + scale.stop) / 2, y + 31), label, "middle", "label")

    def y_axis(self, scale: Scale, x: float, right: float, label: str = "", count: int = 5) -> None:
        """Draw horizontal grid lines from `x` to `right` with their values, and a label above."""
        for value in scale.ticks(count):
            self.line((x, scale(value)), (right, scale(value)))
            self.text((x - 6, scale(value) + 4), short(value), "end", "tick")
        if label:
            self.text((x - 6, min(scale.start, scale.stop) - 9), label, "start", "label")

    def render(self) -> str:
        """Return the element."""
        name = f"drawing-{next(_ids)}"
        return (
            f'<div class="drawing" tabindex="0" role="group" aria-label="{escape(self.title)}">'
            f'<svg viewBox="0 0 {at(self.width)} {at(self.height)}" role="img" aria-labelledby="{name}" '
            f'style="min-width:{at(0.72 * self.width)}px;max-width:{at(1.25 * self.width)}px">'
            f'<title id="{name}">{escape(self.title)}</title>{"".join(self.parts)}</svg></div>'
        )
