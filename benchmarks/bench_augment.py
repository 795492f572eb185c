"""pytest-benchmark suite of batch augmentation, end to end: one store, and several side by side.

pytest benchmarks/bench_augment.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ldmlr.bench.augment import Stores, augmented


@pytest.mark.parametrize("generator", ["diffusion", "gaussian", "smote"])
@pytest.mark.parametrize(("count", "threads"), [(1, 1), (1, 2), (4, 2)])
def test_augment(benchmark: Any, tmp_path: Path, generator: str, count: int, threads: int) -> None:
    stores = Stores(count)

    def fresh() -> tuple[tuple[Any, ...], dict[str, Any]]:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        return (stores.paths, folder, generator, threads), {}

    done = benchmark.pedantic(augmented, setup=fresh, rounds=3)
    assert len(done) == count
