"""The scripts under benchmarks/ that nothing else runs: they work, on the smallest input; never how fast."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def run(folder: Path, script: str, *options: object) -> dict[str, Any]:
    """Run a script in `folder` and return the document it saves."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
    command = [sys.executable, str(BENCHMARKS / script), *map(str, options), "--out", "out.json"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads((folder / "out.json").read_text())
    return found


def test_stage1(tmp_path: Path) -> None:
    found = run(
        tmp_path, "stage1.py", "--network", "small", "--size", 8, "--batch-size", 4, "--repeats", 1,
        "--warmup", 1, "--threads", 1,
    )  # fmt: skip
    assert all(row["images_per_s"] > 0 for row in found["rows"])


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peak memory is in bytes elsewhere")
def test_memory(tmp_path: Path) -> None:
    found = run(tmp_path, "memory.py", "--rows", 100, 3000, "--dim", 4, "--hidden", 8)
    assert [row["rows"] for row in found["rows"]] == [100, 3000]
    assert all(50 < row["peak_mb"] < 2000 for row in found["rows"])
