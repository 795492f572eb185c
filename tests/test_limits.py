"""Limits of the system on a command: a small stack and little memory end in a line, never in a signal."""

from __future__ import annotations

import errno
import resource
import subprocess
import sys

import pytest
from ldmlr_cli import main as entry

from ldmlr.boundary import boundary, out_of_memory
from ldmlr.errors import InputError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the limits are those of Linux")

START = """
import resource, sys
kind, soft, hard = sys.argv[1:4]
hard = int(hard) if int(hard) >= 0 else resource.getrlimit(getattr(resource, kind))[1]
resource.setrlimit(getattr(resource, kind), (int(soft), hard))
import os
os.execv(sys.executable, [sys.executable, "-m", "ldmlr", *sys.argv[4:]])
"""


def command(kind: str, soft: int, hard: int, *args: str) -> subprocess.CompletedProcess[str]:
    """Run a command under limits; a hard limit of -1 stays what it is."""
    return subprocess.run(
        [sys.executable, "-c", START, kind, str(soft), str(hard), *args],
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_a_stack_that_is_too_small_is_refused():
    done = command("RLIMIT_STACK", 512 << 10, 512 << 10, "info")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == (
        "Error: the stack may have 512 kB, with which libraries crash; "
        "allow 1024 kB or more (ulimit -s 1024)\n"
    )


def test_a_stack_that_may_grow_is_made_larger_for_all_threads():
    done = command("RLIMIT_STACK", 512 << 10, -1, "--version")
    assert done.returncode == 0, done.stderr
    assert "ldmlr" in done.stdout


def test_no_room_for_the_libraries_is_a_line():
    done = command("RLIMIT_AS", 300 << 20, 300 << 20, "baseline", "digits-lt", "--out", "m.safetensors")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("Error: the memory is used up (")
    assert done.stderr.count("\n") == 1


def test_whatever_fails_at_the_limit_fails_for_lack_of_memory(run_cli, monkeypatch):
    from ldmlr import results

    def fail() -> dict[str, str]:
        raise AttributeError("'File' object has no attribute 'flush'")

    monkeypatch.setattr(results, "versions", fail)
    monkeypatch.setattr(entry, "SCARCE", 1 << 60)
    # Without a limit it is a fault of ours, and shows where.
    with pytest.raises(AttributeError):
        entry.main(["info"])
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (1 << 40, 1 << 40))
    done = run_cli("info")
    assert done.returncode == 1
    assert done.stderr.startswith("Error: the memory is used up ('File' object has no attribute 'flush'); ")


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        RuntimeError("can't start new thread"),
        RuntimeError("unable to mmap 8 bytes from file <a>: Cannot allocate memory (12)"),
        ImportError("libtorch_cpu.so: failed to map segment from shared object"),
    ],
)
def test_no_memory_is_not_called_damage(error):
    assert out_of_memory(error)
    with pytest.raises(InputError, match="need more memory than there is"), boundary("a.npz", "npz file"):
        raise error


@pytest.mark.parametrize(
    "error", [ValueError("memory"), OSError(errno.EIO, "Input/output error"), KeyError("a")]
)
def test_other_errors_are(error):
    assert not out_of_memory(error)
    with pytest.raises(InputError, match="is a damaged npz"), boundary("a.npz", "npz file"):
        raise error
