"""In the folder of the source, without the extension: what is imported there says what to do."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a clone in which nothing was built: the package is installed elsewhere."""
    folder = tmp_path_factory.mktemp("clone").resolve()
    shutil.copytree(ROOT / "ldmlr", folder / "ldmlr", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    shutil.copy(ROOT / "setup.py", folder)
    (folder / "tests").mkdir()
    (folder / "tests" / "conftest.py").write_text("import ldmlr.errors\n")
    return folder


def run(source: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "arguments",
    [
        ("-c", "import ldmlr"),
        ("-c", "from ldmlr.store import FeatureStore"),
        ("-m", "ldmlr", "--version"),
        ("-m", "pytest", "tests"),
    ],
)
def test_it_says_what_hides_the_package_and_what_to_do(source: Path, arguments: tuple[str, ...]) -> None:
    done = run(source, *arguments)
    assert done.returncode != 0
    said = done.stdout + done.stderr
    assert f"{source} is the source of ldmlr, without its compiled extension, and hides" in said
    assert "change to another folder, or build the extension here with `pip install -e .`" in said
    assert "_native" not in said.splitlines()[-1]


def test_the_command_and_tests_by_pytest_find_the_installed_package_there(source: Path) -> None:
    """A script is looked up beside other scripts: the current folder plays no part (-P)."""
    done = run(source, "-P", "-c", "from ldmlr_cli.main import main; main(['--version'])")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("ldmlr, version ")
    done = run(source, "-P", "-m", "pytest", "-q", "--import-mode=importlib", "tests")
    assert "no tests ran" in done.stdout, done.stderr
