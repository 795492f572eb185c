"""The C++ programs of benchmarks/lab still compile against the kernels they vary."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from pathlib import Path

import pytest

LAB = Path(__file__).parent.parent / "benchmarks" / "lab"
COMPILER = shutil.which(os.environ.get("CXX", "c++"))
FLAGS = ["-mavx2", "-mfma", "-mf16c", "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx512vnni"]
FLAGS += ["-mavx512bf16", "-mamx-tile", "-mamx-bf16"]


@pytest.mark.skipif(not COMPILER, reason="no C++ compiler")
@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="the programs are for x86-64")
@pytest.mark.parametrize("source", sorted(LAB.glob("*.cpp")), ids=lambda path: path.name)
def test_it_compiles(source: Path) -> None:
    command = [str(COMPILER), "-std=c++17", "-fsyntax-only", *FLAGS, str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[:2000]
