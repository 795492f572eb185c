"""The scripts of ``benchmarks/`` as modules, as they see each other when one is run."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace

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
        loaded = [name for name, module in sys.modules.items() if _file(module).parent == BENCHMARKS]
        for name in loaded:
            del sys.modules[name]


def _file(module: ModuleType) -> Path:
    return Path(getattr(module, "__file__", None) or "")


def script(path: Path) -> ModuleType:
    """Return a single script as a module of its own, of which nothing stays loaded."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path}: is no script")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
