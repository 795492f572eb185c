"""Faults at random instants of every command that writes: the next start ends with the same bytes.

    python benchmarks/faults.py --instants 100 --out faults.json
    python benchmarks/faults.py --commands generate run --faults kill two-writers --instants 20

Each trial starts a command in a folder of its own, has a fault befall it, and then starts it again as its
user would. What is there in the end must be what an undisturbed command leaves: the same names, nothing
foreign, and the same bytes in every file whose bytes do not hold times.

===============  =============================================================================
``kill``         SIGKILL, at a random operation on files and at a random time by turns
``file-limit``   no file may grow beyond a random length (RLIMIT_FSIZE): an error of one line
``memory``       little memory is left (RLIMIT_AS): an error of one line, or the end by a signal,
                 as libraries below PyTorch end that get no memory
``two-writers``  a second start while the first is in the middle: refused in one line
``truncated``    the input is cut in two while it is read: no output that differs
``full-disk``    a small disk of its own that is full (as root alone): an error of one line
===============  =============================================================================

Commands run in forks of this process, which has loaded everything and computed nothing. Times are not
measured. Needs a quarter of an hour for a hundred instants of a fault and every command.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import h5py
import numpy as np
import torch  # noqa: F401 - loaded before the forks
from ldmlr_cli import augment, baseline, diffuse, encode, generate, run, store  # noqa: F401
from ldmlr_cli.main import main as command_line

from ldmlr import results
from ldmlr.encoders import baseline as training  # noqa: F401
from ldmlr.files import write_text
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


@dataclasses.dataclass
class Reference:
    """What an undisturbed command leaves, and which of it are the same bytes every time."""

    names: set[str]
    files: dict[str, bytes]
    ended: Ended

    def difference(self, folder: Path) -> str:
        """Return what differs in a folder, in words; empty where nothing does."""
        found = contents(folder)
        if set(found) != self.names:
            return f"other names: {sorted(set(found) ^ self.names)}"
        changed = [name for name, data in self.files.items() if found[name] != data]
        return f"other bytes: {changed}" if changed else ""


class Laboratory:
    """Trials of one command.

    Parameters
    ----------
    root
        A folder for folders.
    base
        The inputs.
    name
        Of the command.
    """

    def __init__(self, root: Path, base: Path, name: str) -> None:
        self.root, self.base, self.name, self.command = root, base, name, COMMANDS[name]
        self.number = 0
        self.reference = self._reference()

    @contextlib.contextmanager
    def folder(self) -> Iterator[Path]:
        """Yield a fresh folder with the inputs, where the commands that come before are done."""
        self.number += 1
        # The name has the same length every time, as paths stand in files.
        folder = self.root / f"{self.name}" / "w"
        shutil.copytree(self.base, folder)
        try:
            for arguments in self.command.before:
                ended = once(folder, arguments)
                if ended.status:
                    raise SystemExit(f"{' '.join(arguments)} failed: {ended.errors}")
            yield folder
        finally:
            shutil.rmtree(folder.parent)

    def _reference(self) -> Reference:
        found = []
        for _ in range(2):
            with self.folder() as folder:
                ended = once(folder, self.command.arguments)
                if ended.status:
                    raise SystemExit(f"{self.name} failed undisturbed: {ended.errors}")
                found.append(contents(folder))
        names = set(found[0])
        same = {name: data for name, data in found[0].items() if found[1].get(name) == data}
        stores = [name for name in names if name.endswith((".h5", ".safetensors"))]
        missing = [name for name in (*self.command.outputs, *stores) if name not in same]
        if set(found[1]) != names or missing:
            raise SystemExit(f"{self.name}: two undisturbed runs differ ({missing})")
        return Reference(names, same, ended)

    def again(self, folder: Path) -> str:
        """Start the command again; return what is wrong afterwards."""
        arguments = self.command.arguments
        ended = once(folder, arguments)
        # What is there already is refused, with the option that helps.
        if ended.status == 2 and self.command.again:
            ended = once(folder, [*arguments, *self.command.again])
        if ended.status:
            return f"the next start failed: {ended.errors.strip()}"
        return self.reference.difference(folder)


Trial = Callable[[Laboratory, random.Random, Path], str]


def one_line(ended: Ended) -> str:
    """Return what is wrong with the way a command refused; empty for a success or a line that says so."""
    lines = [line for line in ended.errors.splitlines() if line.startswith("Error: ")]
    if ended.status == 0 or (ended.status in (1, 2) and len(lines) == 1 and "Traceback" not in ended.errors):
        return ""
    return f"ended with {ended.status} and said {ended.errors.strip()[-400:]!r}"


def kill(lab: Laboratory, chance: random.Random, folder: Path) -> str:
    """SIGKILL at a random operation or time."""
    at = chance.randint(1, lab.reference.ended.operations)

    def hook(count: int) -> None:
        if count == at:
            os.kill(os.getpid(), signal.SIGKILL)

    if lab.number % 2:
        once(folder, lab.command.arguments, hook)
    else:
        began = time.monotonic()
        child = start(folder, lab.command.arguments)
        time.sleep(chance.uniform(0, lab.reference.ended.seconds))
        os.kill(child, signal.SIGKILL)
        wait(child, folder, began)
    return lab.again(folder)


def file_limit(lab: Laboratory, chance: random.Random, folder: Path) -> str:
    """No file may grow beyond a random length."""
    longest = max(len(lab.reference.files[name]) for name in lab.reference.files)
    length = chance.randint(0, longest)
    ended = once(
        folder, lab.command.arguments,
        limit=lambda _: resource.setrlimit(resource.RLIMIT_FSIZE, (length, length)),
    )  # fmt: skip
    return one_line(ended) or lab.again(folder)


def memory(lab: Laboratory, chance: random.Random, folder: Path) -> str:
    """Little memory is left."""

    def limit(_: int) -> None:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + chance.randint(0, 1 << 25),) * 2)

    ended = once(folder, lab.command.arguments, limit=limit)
    return ("" if ended.status < 0 else one_line(ended)) or lab.again(folder)


def two_writers(lab: Laboratory, chance: random.Random, folder: Path) -> str:
    """Start a second time, to overwrite, while the first is in the middle."""
    at = chance.randint(1, lab.reference.ended.operations)

    def hook(count: int) -> None:
        if count == at:
            os.kill(os.getpid(), signal.SIGSTOP)

    began = time.monotonic()
    first = start(folder, lab.command.arguments, hook)
    os.waitid(os.P_PID, first, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
    locked = any(name.endswith(".lock") for name in contents(folder))
    force = () if lab.name == "run" else ("--overwrite",)
    second = once(folder, (*lab.command.arguments, *force))
    with contextlib.suppress(ProcessLookupError):  # it may have ended before it came so far
        os.kill(first, signal.SIGCONT)
    ended = wait(first, folder, began)
    if locked and (second.status != 1 or "is writing this output" not in second.errors):
        return f"the second start ended with {second.status}: {second.errors.strip()}"
    wrong = one_line(second) or one_line(ended)
    return wrong or lab.again(folder)


def truncated(lab: Laboratory, chance: random.Random, folder: Path) -> str:
    """Cut the input in two while it is read; a process may end by that, an output may not differ."""
    at, victim = chance.randint(1, lab.reference.ended.operations), folder / lab.command.reads
    whole = victim.read_bytes()

    def hook(count: int) -> None:
        if count == at:
            os.truncate(victim, len(whole) // 2)

    once(folder, lab.command.arguments, hook)
    victim.write_bytes(whole)
    return lab.again(folder)


def full_disk(lab: Laboratory, chance: random.Random, folder: Path) -> str:
    """Run on a small disk of its own, that then grows."""
    used = sum(len(data) for data in contents(folder).values())
    kept = folder.with_name("kept")
    folder.rename(kept)
    folder.mkdir()
    size = (used >> 10) + 64 + chance.randint(0, max(1, sum(map(len, lab.reference.files.values())) >> 10))
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", str(folder)], check=True)
    try:
        shutil.copytree(kept, folder, dirs_exist_ok=True)
        wrong = one_line(once(folder, lab.command.arguments))
        subprocess.run(["mount", "-o", "remount,size=1g", str(folder)], check=True)
        return wrong or lab.again(folder)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


FAULTS: dict[str, Trial] = {
    "kill": kill, "file-limit": file_limit, "memory": memory, "two-writers": two_writers,
    "truncated": truncated, "full-disk": full_disk,
}  # fmt: skip


def mountable() -> bool:
    """Tell whether this process may mount a disk."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], capture_output=True, check=False
        )
        if done.returncode == 0:
            subprocess.run(["umount", folder], check=True)
        return done.returncode == 0


def main() -> None:
    """Run the trials, print and save how many ended well; fail if one did not."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--commands", nargs="+", choices=COMMANDS, default=list(COMMANDS))
    parser.add_argument("--faults", nargs="+", choices=FAULTS, default=list(FAULTS))
    parser.add_argument("--instants", type=int, default=100, help="trials of a command and a fault")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("faults.json"))
    given = parser.parse_args()
    faults = [name for name in given.faults if name != "full-disk" or mountable()]
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as root:
        base = Path(root) / "base"
        inputs(base)
        for name in given.commands:
            lab = Laboratory(Path(root), base, name)
            for fault in faults:
                chance = random.Random(f"{given.seed} {name} {fault}")
                wrong = []
                for _ in range(given.instants):
                    with lab.folder() as folder:
                        found = FAULTS[fault](lab, chance, folder)
                    if found:
                        wrong.append(found)
                rows.append({
                    "what": name, "fault": fault, "trials": given.instants,
                    "same": given.instants - len(wrong), "wrong": wrong[:5],
                })  # fmt: skip
                print(
                    f"{name:<10} {fault:<12} {rows[-1]['same']} of {given.instants} the same",
                    *wrong[:2],
                    flush=True,
                )
    document = results.document("faults", {"seed": given.seed, "instants": given.instants}, rows=rows)
    write_text(given.out, json.dumps(document, indent=2) + "\n")
    if any(row["wrong"] for row in rows):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
