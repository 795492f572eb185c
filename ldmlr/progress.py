"""Progress on standard error: a bar on a terminal, and a line a minute in a log.

A bar appears for what takes longer than two seconds, not with the command line's ``--json``. Where standard
error is no terminal, as in the log of a batch system, the first line comes after ten seconds, the next
ones every minute: stage, step of steps, what was measured, rate and the time that is left. ``--quiet``
switches both off.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from tqdm import tqdm

T = TypeVar("T")
# Seconds until the first line of a log, and between two lines.
FIRST_LINE, LINE_EVERY = 10.0, 60.0

_silent = _quiet = False
_said: set[str] = set()


class _Bar(tqdm):  # type: ignore[type-arg]
    """A bar without tqdm's watching thread: a process that forks must have no other thread."""

    monitor_interval = 0


class _Log(_Bar):
    """What prints whole lines, for a file; nothing of a bar is left but its interface."""

    def __init__(self, total: int, label: str, unit: str, initial: int) -> None:
        super().__init__(total=total, disable=True)
        self.label, self.units = label, unit if unit.endswith("s") or unit == "B" else f"{unit}s"
        self.n: float = initial
        self.first, self.whole = initial, total
        self.began = time.monotonic()
        self.next = self.began + FIRST_LINE
        self.said = ""

    def update(self, n: float | None = 1) -> bool:
        """Count, and print a line if it is time."""
        self.n += n or 0
        now = time.monotonic()
        if now < self.next:
            return False
        self.next = now + LINE_EVERY
        print(self.line(now - self.began), file=sys.stderr, flush=True)
        return True

    def line(self, seconds: float) -> str:
        """Return the state in words: ``diffuse: 500 of 4,000 steps, loss=0.52, 90 a second, 00:38 left``."""
        rate = (self.n - self.first) / seconds
        parts = [f"{self.n:,} of {self.whole:,} {self.units}"]
        if self.said:
            parts.append(self.said)
        parts.append(f"{rate:,.3g} a second" if rate < 1000 else f"{rate:,.0f} a second")
        if rate > 0:
            parts.append(f"{self.format_interval((self.whole - self.n) / rate)} left")
        return f"{self.label}: {', '.join(parts)}"

    def set_postfix(self, ordered_dict: Any = None, refresh: bool | None = True, **values: Any) -> None:
        """Note what was measured, for the next line."""
        self.said = ", ".join(f"{key}={value}" for key, value in {**(ordered_dict or {}), **values}.items())

    def set_postfix_str(self, s: str = "", refresh: bool = True) -> None:
        """Note a word, for the next line."""
        self.said = s


def silence(silent: bool = True) -> None:
    """Switch bars off (or on again), for output that programs read."""
    global _silent
    _silent = silent


def quiet(quiet: bool = True) -> None:
    """Switch bars and the lines of a log off (or on again)."""
    global _quiet
    _quiet = quiet


@contextmanager
def hushed(hush: bool = True) -> Iterator[None]:
    """Switch bars and the lines of a log off for a block."""
    global _quiet
    before, _quiet = _quiet, _quiet or hush
    try:
        yield
    finally:
        _quiet = before


def say_once(message: str) -> None:
    """Print a line on standard error, the first time only that this process has it to say."""
    if message not in _said:
        _said.add(message)
        print(message, file=sys.stderr, flush=True)


def bar(total: int, label: str, unit: str = "it", initial: int = 0) -> tqdm[Any]:
    """Return a progress bar: a context manager with ``update(n)`` and ``set_postfix(loss=...)``."""
    if not (sys.stderr.isatty() or _quiet):
        return _Log(total, label, unit, initial)
    return _Bar(
        total=total, initial=initial, desc=label, unit=unit, delay=2, leave=False,
        disable=_silent or _quiet, dynamic_ncols=True, file=sys.stderr, unit_scale=unit in ("B", "rows"),
    )  # fmt: skip


def track(items: Iterable[T], label: str, total: int | None = None, unit: str = "it") -> Iterator[T]:
    """Yield the items while a bar counts them."""
    count = total if total is not None else len(items)  # type: ignore[arg-type]
    with bar(count, label, unit) as progress:
        for item in items:
            yield item
            progress.update(1)
