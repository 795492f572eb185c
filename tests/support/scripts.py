"""The scripts of ``benchmarks/`` as modules, as they see each other when one is run."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

BENCHMARKS = Path(__file__).resolve().parent.parent.parent / "benchmarks"
MODULES = (
    "experiments",
    "record",
    "summarise",
    "pivot",
    "tables_speed",
    "tables_diffusion",
    "tables",
    "render",
)


@contextmanager
def benchmark_scripts() -> Iterator[SimpleNamespace]:
    """Give the modules by their names, and forget them afterwards."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        yield SimpleNamespace(**{name: importlib.import_module(name) for name in MODULES})
    finally:
        sys.path.remove(str(BENCHMARKS))
        for name in MODULES:
            sys.modules.pop(name, None)
