"""Progress on standard error for anything that takes longer than two seconds.

Silent when standard error is not a terminal, or after `silence` (the command line's
``--json``), so that output meant for programs stays clean.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from tqdm import tqdm

T = TypeVar("T")
_silent = False
_said: set[str] = set()


class _Bar(tqdm):  # type: ignore[type-arg]
    """A bar without tqdm's watching thread: a process that forks must have no other thread."""

    monitor_interval = 0


def silence(silent: bool = True) -> None:
    """Switch all progress bars off (or on again)."""
    global _silent
    _silent = silent


def say_once(message: str) -> None:
    """Print a line on standard error, the first time only that this process has it to say."""
    if message not in _said:
        _said.add(message)
        print(message, file=sys.stderr, flush=True)


def bar(total: int, label: str, unit: str = "it", initial: int = 0) -> tqdm[Any]:
    """Return a progress bar: a context manager with ``update(n)`` and ``set_postfix(loss=...)``."""
    return _Bar(
        total=total, initial=initial, desc=label, unit=unit, delay=2, leave=False,
        disable=_silent or not sys.stderr.isatty(), dynamic_ncols=True, file=sys.stderr,
        unit_scale=unit in ("B", "rows"),
    )  # fmt: skip


def track(items: Iterable[T], label: str, total: int | None = None, unit: str = "it") -> Iterator[T]:
    """Yield the items while a bar counts them."""
    count = total if total is not None else len(items)  # type: ignore[arg-type]
    with bar(count, label, unit) as progress:
        for item in items:
            yield item
            progress.update(1)
