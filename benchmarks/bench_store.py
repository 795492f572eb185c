"""pytest-benchmark suite of the feature store: write, read, verify, iterate, and a copy of the file.

pytest benchmarks/bench_store.py
"""

from __future__ import annotations

from typing import Any

import pytest

from ldmlr.bench.store import Files

ROWS = 1 << 14
WORKS = ("write", "copy", "read", "bytes", "verify", "iterate", "shuffled")


@pytest.fixture(scope="module")
def files() -> Files:
    """A store in a folder of its own."""
    return Files(ROWS)


@pytest.mark.parametrize("name", WORKS)
def test_store(benchmark: Any, files: Files, name: str) -> None:
    assert benchmark(getattr(files, name)) == files.megabytes
    benchmark.extra_info["megabytes"] = files.megabytes
