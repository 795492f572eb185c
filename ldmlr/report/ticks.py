"""Numbers and names on a drawing: ranges, round ticks, and words that fit."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence


def plain(words: object, length: int) -> str:
    """Return words for a drawing: one line, nothing unprintable, and not too long."""
    text = "".join(letter if letter.isprintable() else "\ufffd" for letter in str(words))
    return text if len(text) <= length else f"{text[: max(length - 1, 1)]}…"


def padded(values: Iterable[float], share: float = 0.06) -> tuple[float, float]:
    """Return the range of values, a little wider."""
    found = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
    low, high = min(found), max(found)
    more = share * (high - low) or 0.5
    return low - more, high + more


def round_ticks(
    low: float, high: float, *, log: bool = False, count: int = 5, whole: bool = False
) -> list[float]:
    """Return round values inside a range.

    Parameters
    ----------
    low, high
        The range.
    log
        Powers of ten, or 1, 2 and 5 times them on a short range.
    count
        About so many, where the axis is linear.
    whole
        Whole numbers only.
    """
    from matplotlib.ticker import LogLocator, MaxNLocator

    if log:
        factors = (1.0,) if math.log10(high / low) > 2.5 else (1.0, 2.0, 5.0)
        found = LogLocator(subs=factors, numticks=15).tick_values(low, high)
        if len(inside := [float(value) for value in found if low <= value <= high]) > 1:
            return inside
    found = MaxNLocator(count, steps=[1, 2, 5, 10], integer=whole).tick_values(low, high)
    return [float(value) for value in found if low <= value <= high]


def tick_names(ticks: Sequence[float], log: bool = False) -> list[str]:
    """Return ticks as short as they can be told apart: ``0.05``, ``99.5``, ``30k``, ``2M``."""
    if log:
        return [short(tick) for tick in ticks]
    size, letter = _unit(max(map(abs, ticks), default=0.0) / 10)
    # Adding nothing makes 0 of -0.
    return [f"{tick / size + 0.0:.6g}{letter if tick else ''}" for tick in ticks]


def short(value: float) -> str:
    """Return a number as a label of three digits: ``0.05``, ``20``, ``3k``, ``2M``."""
    size, letter = _unit(abs(value))
    return f"{value / size:.3g}{letter}"


def _unit(value: float) -> tuple[float, str]:
    units = ((1e9, "G"), (1e6, "M"), (1e3, "k"))
    return next((unit for unit in units if value >= unit[0]), (1.0, ""))
