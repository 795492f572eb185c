"""Faults in the middle of commands: a short part of ``benchmarks/faults.py``, always the same instants."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "faults.py"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the script reads /proc")
def test_the_next_start_ends_as_if_nothing_had_happened(tmp_path):
    commands = ("generate", "shard", "diffuse", "baseline", "augment", "import", "run")
    faults = ("kill", "two-writers", "file-limit")
    options = ["--commands", *commands, "--faults", *faults, "--instants", "1"]
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *options, "--out", "out.json"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
        env={**os.environ, "OMP_WAIT_POLICY": "passive"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert {(row["what"], row["fault"]) for row in rows} == {(c, f) for c in commands for f in faults}
    assert all(row["same"] == row["trials"] == 1 for row in rows)
