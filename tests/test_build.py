"""The build (setup.py): its switches, compilers side by side, and what is said of a file that fails."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# Stands in for the compiler: waits until as many of its kind are at work as TOGETHER says, writes what it was
# told into the file that it should make, and fails for the source that FAILS names.
COMPILER = """#!/bin/sh
case "$*" in *" -c "*)
    mkdir -p "$MARKERS" && touch "$MARKERS/$$"
    tries=0
    while [ "$(ls "$MARKERS" | wc -l)" -lt "$TOGETHER" ]; do
        tries=$((tries + 1))
        [ $tries -lt 300 ] || { echo "alone for too long" >&2; exit 1; }
        sleep 0.1
    done ;;
esac
case "$*" in *"$FAILS"*)
    echo "an error of two lines:" >&2
    sleep 0.2
    echo "it ends here" >&2
    exit 1 ;;
esac
while [ "$1" != -o ]; do arguments="$arguments $1"; shift; done
echo "$arguments" > "$2"
"""


def build(folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the build with compilers that only look like one; its files come into a folder."""
    for name in ("c++", "nvcc"):
        path = folder / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(COMPILER)
        path.chmod(0o755)
    environment = {
        **os.environ, "CXX": str(folder / "bin" / "c++"), "CUDA_HOME": str(folder), "LDMLR_CUDA": "0",
        "MARKERS": str(folder / "markers"), "TOGETHER": "1", "FAILS": "no such file", **variables,
    }  # fmt: skip
    command = [
        sys.executable,
        "setup.py",
        "-q",
        "build_ext",
        "-b",
        str(folder),
        "-t",
        str(folder / "objects"),
    ]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def test_files_are_compiled_side_by_side_and_linked(tmp_path: Path) -> None:
    done = build(tmp_path, MAX_JOBS="3", TOGETHER="3")
    assert done.returncode == 0, done.stdout + done.stderr
    (library,) = (tmp_path / "ldmlr").glob("_native*")
    linked = {Path(word).name for word in library.read_text().split() if word.endswith(".o")}
    assert {"bindings.o", "dispatch.o", "denoise_baseline.o", "stub.o"} <= linked
    assert linked == {path.name for path in (tmp_path / "objects").rglob("*.o")}
    baseline = (tmp_path / "objects" / "csrc" / "cpu" / "denoise_baseline.o").read_text()
    assert "-ffp-contract=off" in baseline
    assert "-mavx2" not in baseline


def test_instruction_sets_have_flags_of_their_own(tmp_path: Path) -> None:
    assert build(tmp_path).returncode == 0
    objects = tmp_path / "objects" / "csrc" / "cpu"
    if not (objects / "denoise_avx2.o").exists():
        pytest.skip("the instruction sets are those of x86-64")
    assert "-mavx2" in (objects / "denoise_avx2.o").read_text()
    assert "-mavx512f" not in (objects / "denoise_avx2.o").read_text()
    assert "-mamx-tile" in (objects / "denoise_amx.o").read_text()


def test_a_file_that_does_not_compile_ends_the_build(tmp_path: Path) -> None:
    done = build(tmp_path, FAILS="pack.cpp", MAX_JOBS="4")
    assert done.returncode != 0
    assert "csrc/cpu/pack.cpp\nan error of two lines:\nit ends here\n" in done.stdout
    assert "csrc/cpu/pack.cpp: the compiler failed (see above)\n" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.glob("ldmlr/_native*"))


def test_a_cuda_file_that_does_not_compile_says_how_to_do_without(tmp_path: Path) -> None:
    done = build(tmp_path, FAILS="fused.cu", LDMLR_CUDA="1")
    assert done.returncode != 0
    assert "csrc/cuda/fused.cu: the compiler failed (see above); LDMLR_CUDA=0 leaves the CUDA" in done.stderr


def test_a_machine_without_a_compiler_is_told(tmp_path: Path) -> None:
    done = build(tmp_path, CXX=str(tmp_path / "missing" / "c++"))
    assert done.returncode != 0
    assert "missing/c++: No such file or directory; a C++17 compiler is needed" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"LDMLR_CUDA": "yes"}, "LDMLR_CUDA: unknown value 'yes'"),
        ({"LDMLR_CUDA": "1", "CUDA_HOME": "/nowhere"}, "LDMLR_CUDA=1: there is no nvcc in /nowhere/bin"),
        ({"LDMLR_CUDA_ARCHS": "90,90a"}, "LDMLR_CUDA_ARCHS: expected distinct numbers from 80 such as"),
        ({"LDMLR_CUDA_ARCHS": "75"}, "LDMLR_CUDA_ARCHS: expected distinct numbers from 80 such as"),
        ({"LDMLR_CUDA_ARCHS": "hopper"}, "LDMLR_CUDA_ARCHS: expected distinct numbers from 80 such as"),
        ({"MAX_JOBS": "0"}, "MAX_JOBS: expected a whole number from 1, not '0'"),
        ({"MAX_JOBS": "all"}, "MAX_JOBS: expected a whole number from 1, not 'all'"),
        ({"LDMLR_SANITIZE": "memory"}, "LDMLR_SANITIZE: unknown value 'memory'; choose address,"),
    ],
)
def test_build_switches_that_cannot_be_met_are_named(
    tmp_path: Path, variables: dict[str, str], message: str
) -> None:
    done = build(tmp_path, **{"LDMLR_CUDA": "auto", **variables})
    assert done.returncode != 0
    assert message in done.stderr
    assert not (tmp_path / "markers").exists(), "refused before a compiler is called"
