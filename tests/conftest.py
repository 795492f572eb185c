"""Fixtures that every test file may use."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
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
def run_cli(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Outcome]:
    """Run ``ldmlr ARGS`` in this process, through the same entry point as the installed command."""
    from ldmlr_cli import main as module

    def run(*args: object) -> Outcome:
        import click

        @click.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
        @click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
        def entry(arguments: tuple[str, ...]) -> None:
            module.main(list(arguments))

        result = CliRunner().invoke(entry, ["--", *map(str, args)])
        progress.silence(False)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Outcome(result.exit_code, result.stdout, result.stderr)

    return run


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Return the folder with the CIFAR-LT stores, or skip the test where it is absent."""
    root = Path(__file__).resolve().parent.parent
    folder = Path(os.environ.get("LDMLR_TEST_DATA", root.parent / "shared" / "data"))
    if not (folder / "cifar10-lt-if100-features.h5").is_file():
        pytest.skip("the CIFAR-LT stores are absent; set LDMLR_TEST_DATA to their folder")
    return folder
