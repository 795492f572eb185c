"""The command as a whole: start-up, help and wrong use."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
import torch
from ldmlr_cli.main import COMMANDS, GOES_ON, cli

# As PyTorch says it on the CPU, where it has no class of its own.
TORCH_MEMORY = RuntimeError(
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to "
    "allocate 400000000000000 bytes. Error code 12 (Cannot allocate memory)\nC++ frames"
)


def test_help_lists_every_command_and_needs_no_torch():
    code = (
        "import sys; from ldmlr_cli.main import cli\n"
        "try: cli.main(['--help'], prog_name='ldmlr')\n"
        "except SystemExit: pass\n"
        "assert 'torch' not in sys.modules and 'h5py' not in sys.modules, 'heavy import'"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Stage 1" in done.stdout
    assert "Stage 3" in done.stdout


def test_the_package_runs_as_the_command():
    done = subprocess.run([sys.executable, "-m", "ldmlr", "--help"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Usage: ldmlr [OPTIONS] COMMAND")
    done = subprocess.run([sys.executable, "-m", "ldmlr", "difuse"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "did you mean 'diffuse'?" in done.stderr


def test_unknown_command_names_the_nearest(run_cli):
    outcome = run_cli("difuse")
    assert outcome.returncode == 2
    assert "did you mean 'diffuse'?" in outcome.stderr
    assert "Traceback" not in outcome.stderr


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (MemoryError(), 1, "Error: the memory is used up; take fewer rows"),
        (
            MemoryError("Unable to allocate 9 TiB"),
            1,
            "Error: the memory is used up (Unable to allocate 9 TiB)",
        ),
        (
            TORCH_MEMORY,
            1,
            "Error: the memory is used up (err == 0. DefaultCPUAllocator: can't allocate memory",
        ),
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried 9 GiB"),
            1,
            "Error: the memory is used up (CUDA out",
        ),
        (
            RuntimeError("Storage size calculation overflowed with sizes=[3, 9]"),
            1,
            "Error: the memory is used up (Storage",
        ),
        (OSError(28, "No space left on device", "a.h5"), 1, "Error: a.h5: the disk is full; free some"),
        (KeyboardInterrupt(), 130, "Interrupted"),
    ],
)
def test_what_goes_wrong_anywhere_ends_in_one_line(run_cli, monkeypatch, error, status, message):
    from ldmlr import results

    def fail() -> dict[str, str]:
        raise error

    monkeypatch.setattr(results, "versions", fail)
    outcome = run_cli("info")
    assert outcome.returncode == status
    text = outcome.stderr.strip()
    assert text.startswith(message)
    assert "\n" not in text


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("run", "The same command goes on where it stopped."),
        ("diffuse", "The same command with --resume goes on where it stopped."),
        ("compare", "The same command begins anew."),
    ],
)
def test_an_interrupt_promises_what_the_command_keeps(run_cli, monkeypatch, command, words):
    def stop(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli.get_command(None, command), "callback", stop)
    outcome = run_cli(command, "digits-lt", "--out", "x")
    assert outcome.returncode == 130
    assert outcome.stderr.strip() == f"Interrupted; nothing is half-written. {words}"


def test_what_is_promised_is_what_the_commands_have():
    for name in COMMANDS:
        flags = [flag for param in cli.get_command(None, name).params for flag in param.opts]
        assert ("--resume" in flags) == ("--resume" in GOES_ON.get(name, "")), name


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (("store", "verfy"), "no such command 'verfy'; did you mean 'verify'? See `ldmlr store --help`"),
        (
            ("run", "x", "--generator", "veiws"),
            "--generator: unknown value 'veiws'; did you mean 'views'? See `ldmlr run --help`",
        ),
        (
            ("export", "runs/a", "--out", "h.npz"),
            "missing option '--format', one of onnx, torch, sklearn, npz; see `ldmlr export --help`",
        ),
        (
            ("run", "my", "photos"),
            "got unexpected extra argument (photos); a name with spaces needs quotes around it; see "
            "`ldmlr run --help`",
        ),
        (("compare",), "missing argument 'STORE'; see `ldmlr compare --help`"),
        (
            ("generate", "x.h5", "--generater", "views"),
            "no such option '--generater'; did you mean '--generator'? See `ldmlr generate --help`",
        ),
        (
            ("run", "x", "--hidden", "3"),
            "no such option '--hidden'; an option of a stage is given as --set STAGE.KEY=VALUE; see "
            "`ldmlr run --help`",
        ),
    ],
)
def test_wrong_words_are_answered_with_the_nearest(run_cli, args, line):
    outcome = run_cli(*args)
    assert outcome.returncode == 2
    assert outcome.stderr.strip() == f"Error: {line}"


def test_a_scheduler_ends_it_as_ctrl_c_does(run_cli, monkeypatch):
    from ldmlr import results

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(results, "versions", lambda: os.kill(os.getpid(), signal.SIGTERM))
    outcome = run_cli("info")
    assert outcome.returncode == 128 + signal.SIGTERM
    assert outcome.stderr.strip().startswith("Terminated; nothing is half-written.")
    assert outcome.stderr.strip().count("\n") == 0
    assert signal.getsignal(signal.SIGTERM) == before
