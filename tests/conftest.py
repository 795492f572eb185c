"""Fixtures that every test file may use."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from ldmlr import progress

# Examples are chosen by a fixed seed, so that a failure on one machine is a failure on all.
settings.register_profile(
    "ldmlr", deadline=None, derandomize=True, max_examples=40, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("ldmlr")


@dataclasses.dataclass
class Outcome:
    """What a command did: exit status, standard output and standard error."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def run_cli(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Run ``ldmlr ARGS`` in this process, through the same entry point as the installed command."""
    from ldmlr_cli.main import main

    def run(*args: object) -> Outcome:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([str(arg) for arg in args])
        progress.silence(False)
        out, err = capsys.readouterr()
        status = ended.value.code
        return Outcome(status if isinstance(status, int) else 0, out, err)

    return run


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Return the folder with the CIFAR-LT stores, or skip the test where it is absent."""
    root = Path(__file__).resolve().parent.parent
    folder = Path(os.environ.get("LDMLR_TEST_DATA", root.parent / "shared" / "data"))
    if not (folder / "cifar10-lt-if100-features.h5").is_file():
        pytest.skip("the CIFAR-LT stores are absent; set LDMLR_TEST_DATA to their folder")
    return folder
