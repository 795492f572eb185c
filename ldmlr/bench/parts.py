"""The parts of ``ldmlr bench``, and what every part is told; imports no torch.

A part is a module of this folder, of its name, with two functions: ``jobs(settings)``, measurements that give
one row of the table each, and ``text(rows)``, the table for people.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable
from typing import Any

Row = dict[str, Any]

# What each part measures.
PARTS = {
    "sample": "drawing rows, beside the ceilings of the machine and its peers",
    "train": "steps of stage 2, beside the ceilings of the machine and PyTorch",
    "store": "a feature store written, read, verified and iterated, beside a copy",
    "augment": "stores in, balanced stores out, from end to end",
}
ALL = "all"


@dataclasses.dataclass(frozen=True)
class Settings:
    """How much is measured, and on what.

    Attributes
    ----------
    threads
        CPU threads of what is measured and of its peers.
    repeats
        Runs per figure (pairs, where two are compared).
    compiled
        Compare with `torch.compile` too, which takes a minute or more to compile.
    quick
        Measure the most important figures alone, each for a shorter time: all parts take under half a minute.
    device
        ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
    """

    threads: int = 1
    repeats: int = 7
    compiled: bool = True
    quick: bool = False
    device: str = "auto"


def chosen(word: str) -> tuple[str, ...]:
    """Return the parts that a word stands for: itself, or every part for ``all``."""
    return tuple(PARTS) if word == ALL else (word,)


def jobs(part: str, settings: Settings) -> list[Callable[[], Row]]:
    """Return the measurements of a part; each gives one row, which names its ``part``."""
    found: list[Callable[[], Row]] = _module(part).jobs(settings)

    def named(job: Callable[[], Row]) -> Callable[[], Row]:
        return lambda: {"part": part, **job()}

    return [named(job) for job in found]


def text(rows: list[Row]) -> str:
    """Return the tables of some rows for people, part by part."""
    tables = []
    for part in dict.fromkeys(row["part"] for row in rows):
        table: str = _module(part).text([row for row in rows if row["part"] == part])
        tables.append(table)
    return "\n\n".join(tables)


def _module(part: str) -> Any:
    return importlib.import_module(f"ldmlr.bench.{part}")
