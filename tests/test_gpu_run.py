"""benchmarks/gpu_run.sh, the script for a machine with a GPU, on one without: parts and failures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize(("arguments", "word"), [((), "PART"), (("{out}", "speed"), "unknown part 'speed'")])
def test_the_script_for_a_gpu_machine_explains_itself(tmp_path: Path, arguments: tuple, word: str) -> None:
    command = [str(ROOT / "benchmarks" / "gpu_run.sh"), *(a.format(out=tmp_path) for a in arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert word in done.stderr


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_part_that_fails_is_reported_and_the_next_one_runs(tmp_path: Path) -> None:
    command = [str(ROOT / "benchmarks" / "gpu_run.sh"), str(tmp_path), "smoke", "sample"]
    environment = {**os.environ, "PYTHON": sys.executable}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    found = json.loads((tmp_path / "summary.json").read_text())
    assert [part["part"] for part in found["parts"]] == ["smoke", "sample"]
    assert all(part["state"].startswith("failed") for part in found["parts"])
    assert "Error: " in done.stdout
    lines = (tmp_path / "smoke.log").read_text().splitlines()
    assert sum(line.startswith("== ") for line in lines) == 6  # five tiers and the trainer
    with tarfile.open(tmp_path / "results.tgz") as archive:
        assert {"./smoke.log", "./sample.log", "./summary.json"} <= set(archive.getnames())


def test_encoders_are_trained_and_go_through_the_run(tmp_path: Path) -> None:
    command = [str(ROOT / "benchmarks" / "gpu_run.sh"), str(tmp_path), "encoders"]
    environment = {
        **os.environ, "PYTHON": sys.executable, "LDMLR_GPU_DEVICE": "cpu", "LDMLR_GPU_SEEDS": "1",
        "LDMLR_GPU_IMAGES": "digits-lt", "LDMLR_GPU_PRESETS": "digits",
    }  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert "encoders   ok" in done.stdout
    result = json.loads((tmp_path / "digits" / "run.json").read_text())
    assert [row["method"] for row in result["rows"]] == ["baseline", "baseline", "ldmlr", "ldmlr"]
    assert (tmp_path / "digits" / "result.json").exists()
