"""The commands that ``faults.py`` disturbs: small ones of every kind that writes, and how they are started.

A command runs in a fork of this process, which has loaded everything and computed nothing: it starts in
milliseconds, and its operations on files are counted and may be interfered with.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import h5py
import numpy as np
import torch._dynamo  # noqa: F401 - loaded before the forks, which the first optimiser would load
from ldmlr_cli import augment, baseline, diffuse, encode, generate, run, store  # noqa: F401
from ldmlr_cli.main import main as command_line

from ldmlr.encoders import baseline as training  # noqa: F401
from ldmlr.generation import latent, parts  # noqa: F401

# Parts as small as this, so that a small generation has several.
parts.PART_BYTES, parts.ROW_MULTIPLE = 1, 50

SMALL = ("--hidden", "16", "--layers", "1", "--iterations", "30", "--batch-size", "64")
NET = (
    "--network",
    "small",
    "--epochs",
    "3",
    "--batch-size",
    "8",
    "--precision",
    "float32",
    "--augment",
    "none",
)
OPERATIONS = ("open", "os.rename", "os.link", "os.remove", "os.mkdir", "os.rmdir", "os.truncate")


@dataclasses.dataclass(frozen=True)
class Command:
    """A command that writes.

    Attributes
    ----------
    arguments
        Its command line.
    again
        What the next start adds: ``--resume`` where a command has it, else ``--overwrite``.
    outputs
        Files whose bytes must be the same.
    reads
        The input that may be cut while it is read.
    before
        Commands that are done first.
    """

    arguments: tuple[str, ...]
    again: tuple[str, ...]
    outputs: tuple[str, ...]
    reads: str
    before: tuple[tuple[str, ...], ...] = ()


_SHARD = ("generate", "model.safetensors", "--out", "out.h5", "--shard")
COMMANDS = {
    "generate": Command(
        ("generate", "model.safetensors", "--out", "out.h5"), ("--resume",), ("out.h5",), "model.safetensors"
    ),
    "shard": Command(
        (*_SHARD, "1/2"), ("--resume",), ("out-00000-of-00002.h5", "out-00001-of-00002.h5"),
        "model.safetensors", ((*_SHARD, "0/2"),),
    ),
    "resumed": Command(
        ("generate", "model.safetensors", "--out", "out.h5", "--resume"), (), ("out.h5",),
        "model.safetensors",
    ),
    "diffuse": Command(
        ("diffuse", "features.h5", *SMALL, "--out", "out.safetensors"), ("--resume",), ("out.safetensors",),
        "features.h5",
    ),
    "baseline": Command(
        ("baseline", "images.h5", *NET, "--out", "out"), ("--resume",), ("out/model.safetensors",),
        "images.h5",
    ),
    "encode": Command(
        ("encode", "base", "images.h5", "--views", "2", "--out", "out.h5"), ("--overwrite",), ("out.h5",),
        "images.h5",
    ),
    "augment": Command(
        ("augment", "features.h5", *SMALL, "--out-dir", "out"), ("--resume",),
        ("out/features.h5", "out/features.model.safetensors"), "features.h5",
    ),
    "import": Command(
        ("store", "import", "rows.npz", "--out", "out.h5"), ("--overwrite",), ("out.h5",), "rows.npz"
    ),
    "merge": Command(
        ("store", "merge", "features.h5", "more.h5", "--out", "out.h5"), ("--overwrite",), ("out.h5",),
        "more.h5",
    ),
    "run": Command(
        ("run", "features.h5", "--seeds", "1", "--out", "out", "--set", "diffuse.hidden=16",
         "--set", "diffuse.layers=1", "--set", "diffuse.iterations=30", "--set", "finetune.epochs=2"),
        (), (), "features.h5",
    ),
}  # fmt: skip


@dataclasses.dataclass
class Ended:
    """How a command ended: its exit status (negative: a signal), what it said, its operations and time."""

    status: int
    errors: str
    operations: int
    seconds: float


Hook = Callable[[int], None]


def start(folder: Path, arguments: Sequence[str], hook: Hook | None = None, limit: Hook | None = None) -> int:
    """Fork a process that runs a command in a folder; return its number.

    Parameters
    ----------
    folder, arguments
        Where and what; what it prints goes to files beside the folder, named after the process.
    hook
        Called with the number of every operation on a file of the folder, from 1.
    limit
        Called once, before the command.
    """
    child = os.fork()
    if child:
        return child
    status = 70
    try:
        log = folder.parent / f"{folder.name}.{os.getpid()}"
        with open(f"{log}.err", "w") as errors, open(os.devnull, "w") as nothing:
            os.dup2(errors.fileno(), 2)
            os.dup2(nothing.fileno(), 1)
            sys.stderr, sys.stdout = open(2, "w", closefd=False), open(1, "w", closefd=False)  # noqa: SIM115
            os.chdir(folder)
            count = 0

            def audit(event: str, details: tuple[Any, ...]) -> None:
                nonlocal count
                if event not in OPERATIONS or not details or not isinstance(details[0], str | os.PathLike):
                    return
                name = os.path.abspath(os.fspath(details[0]))
                if name.startswith(f"{folder}/"):
                    count += 1
                    if hook is not None:
                        hook(count)

            sys.addaudithook(audit)
            if limit is not None:
                limit(0)
            try:
                command_line(list(arguments))
            except SystemExit as ended:
                status = ended.code if isinstance(ended.code, int) else 0
            Path(f"{log}.count").write_text(str(count))
    except BaseException as error:
        print(repr(error), file=sys.stderr)
    finally:
        with contextlib.suppress(Exception):
            sys.stderr.flush()
        os._exit(status)


def wait(child: int, folder: Path, began: float) -> Ended:
    """Wait for a process and return how it ended."""
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    log = folder.parent / f"{folder.name}.{child}"
    errors = Path(f"{log}.err").read_text() if Path(f"{log}.err").exists() else ""
    counted = Path(f"{log}.count")
    operations = int(counted.read_text()) if counted.exists() else 0
    return Ended(status, errors, operations, time.monotonic() - began)


def once(
    folder: Path, arguments: Sequence[str], hook: Hook | None = None, limit: Hook | None = None
) -> Ended:
    """Run a command to its end."""
    began = time.monotonic()
    return wait(start(folder, arguments, hook, limit), folder, began)


def inputs(folder: Path) -> None:
    """Write what the commands read."""
    folder.mkdir()
    random_numbers = np.random.default_rng(0)
    counts = (150, 60, 20)
    labels = np.repeat(np.arange(3), counts)
    rows = random_numbers.standard_normal((len(labels), 4)).astype(np.float32) + 5 * np.eye(3, 4)[labels]
    np.savez(folder / "rows.npz", features=rows.astype(np.float32), labels=labels)
    with h5py.File(folder / "images.h5", "w") as file:
        for split, number in (("train", 40), ("test", 20)):
            of = np.arange(number) % 2
            pixels = random_numbers.integers(0, 60, (number, 8, 8, 3)) + 120 * of[:, None, None, None]
            file[f"{split}/images"], file[f"{split}/labels"] = pixels.astype(np.uint8), of
    for arguments in (
        ("store", "import", "rows.npz", "--test", "rows.npz", "--out", "features.h5"),
        ("store", "import", "rows.npz", "--test", "rows.npz", "--out", "more.h5"),
        ("diffuse", "features.h5", *SMALL, "--out", "model.safetensors"),
        ("baseline", "images.h5", *NET, "--out", "base"),
    ):
        ended = once(folder, arguments)
        if ended.status:
            raise SystemExit(f"{' '.join(arguments)} failed: {ended.errors}")
    for name in folder.glob("*result.json"):
        name.unlink()


def contents(folder: Path) -> dict[str, bytes]:
    """Return the files of a folder with their bytes."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
