"""What is published: one version everywhere, an archive of sources that is complete, kernels for Arm."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_one_version():
    version = PROJECT["version"]
    assert re.search(rf"^version: {re.escape(version)}$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    assert f"## {version}" in (ROOT / "CHANGELOG.md").read_text()


def test_the_archive_of_sources_has_all_that_the_build_reads(tmp_path):
    # A copy: the build leaves folders beside the sources.
    sources = tmp_path / "sources"
    shutil.copytree(
        ROOT, sources, ignore=shutil.ignore_patterns("build", "*.so", "*.egg-info", ".*", "results", "runs")
    )
    subprocess.run(
        [sys.executable, "setup.py", "-q", "sdist", "--dist-dir", tmp_path],
        cwd=sources, check=True, capture_output=True,
    )  # fmt: skip
    with tarfile.open(next(tmp_path.glob("*.tar.gz"))) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    needed = [
        path for path in (ROOT / "csrc").rglob("*") if path.suffix in (".cpp", ".h", ".inc", ".cu", ".cuh")
    ]
    needed += [
        *(ROOT / "ldmlr").rglob("*.py"),
        *(ROOT / "cli").glob("*.py"),
        ROOT / "setup.py",
        ROOT / "LICENSE",
    ]
    needed += [*(ROOT / "ldmlr" / "report").glob("*.j2"), *(ROOT / "ldmlr" / "report").glob("*.css")]
    missing = {str(path.relative_to(ROOT)) for path in needed} - names
    assert not missing


@pytest.mark.skipif(
    not (shutil.which("aarch64-linux-gnu-g++") and shutil.which("qemu-aarch64")),
    reason="needs g++-aarch64-linux-gnu and qemu-user",
)
def test_the_portable_kernels_run_on_arm():
    done = subprocess.run(
        [ROOT / "csrc" / "tests" / "run.sh", "aarch64"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr
    assert "baseline ok" in done.stdout
