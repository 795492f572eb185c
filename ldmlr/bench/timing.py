"""Timing in pairs: what is compared runs turn by turn in one process, so that both see the same machine."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable

Work = Callable[[], float]


@dataclasses.dataclass(frozen=True)
class Pair:
    """Rates of two pieces of work, in units per second, and the ratio of the first to the second.

    Attributes
    ----------
    first, second
        Medians over the repeats.
    ratio
        Median of the ratios of neighbours, which drift of the machine does not touch.
    """

    first: float
    second: float
    ratio: float


def rate(work: Work) -> float:
    """Return units per second of `work`, which returns the units it did."""
    start = time.perf_counter()
    units = work()
    return units / (time.perf_counter() - start)


def pair(first: Work, second: Work, repeats: int = 7) -> Pair:
    """Measure two pieces of work in turn, after a warm-up of each."""
    first()
    second()
    rates = [(rate(first), rate(second)) for _ in range(repeats)]
    return Pair(
        statistics.median(a for a, _ in rates),
        statistics.median(b for _, b in rates),
        statistics.median(a / b for a, b in rates),
    )


def shortest(work: Callable[[], object], repeats: int = 300) -> float:
    """Return the shortest time of a short call, in seconds."""
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
    return best
