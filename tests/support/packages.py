"""Modules that a test writes and imports."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def importable(name: str, source: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Write a module into a folder that is searched for imports, and forget it afterwards."""
    (folder / f"{name}.py").write_text(source)
    monkeypatch.syspath_prepend(str(folder))
    yield name
    sys.modules.pop(name, None)
