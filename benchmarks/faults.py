"""Faults at random instants of every command that writes: the next start ends with the same bytes.

    python benchmarks/faults.py --instants 100 --out faults.json
    python benchmarks/faults.py --commands generate run --faults kill two-writers --instants 20

Each trial starts a command in a folder of its own, has a fault befall it, and then starts it again as its
user would. What is there in the end must be what an undisturbed command leaves: the same names, nothing
foreign, and the same bytes in every file whose bytes do not hold times.

===============  =============================================================================
``kill``         SIGKILL, at a random operation on files or at a random time
``file-limit``   no file may grow beyond a random length (RLIMIT_FSIZE): an error of one line
``memory``       little memory is left (RLIMIT_AS): an error of one line, or the end by a signal,
                 as libraries below PyTorch end that get no memory
``two-writers``  a second start while the first is in the middle: refused in one line
``truncated``    the input is cut in two while it is read: no output that differs
``full-disk``    a small disk of its own that is full (as root alone): an error of one line
===============  =============================================================================

Commands and faults take turns, and ``--out`` is written after every turn: what was done when the run ended
(``--minutes``, or a kill) counts, and the same command goes on from there. Times are not measured. A hundred
instants of a fault and every command need a quarter of an hour.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from faults_commands import COMMANDS, Ended, contents, inputs, once, start, wait

from ldmlr import results
from ldmlr.files import write_text

# Trials of a command and a fault before it is the turn of the next.
TURN = 10

# What computes for so many seconds where little memory is left does not end.
ENDLESS = 60

# How the names of documents end that hold times. Two of them may be the same bytes by chance, so that
# comparing two undisturbed runs does not tell.
TIMED = ("result.json", "step.json")


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
        self.reference = self._reference()

    @contextlib.contextmanager
    def folder(self) -> Iterator[Path]:
        """Yield a fresh folder with the inputs, where the commands that come before are done."""
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
        same = {
            name: data
            for name, data in found[0].items()
            if found[1].get(name) == data and not name.endswith(TIMED)
        }
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

    if chance.random() < 0.5:
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
        resource.setrlimit(resource.RLIMIT_CPU, (ENDLESS, ENDLESS + 1))

    ended = once(folder, lab.command.arguments, limit=limit)
    if ended.status == -signal.SIGXCPU:
        return f"computed for {ENDLESS} s without an end"
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


class Record:
    """What was found so far, in the form in which it is written.

    Parameters
    ----------
    path
        Where it is written after every turn, and read from by a run that goes on.
    seed, instants
        Of the run; a record of another seed is refused.
    """

    def __init__(self, path: Path, seed: int, instants: int) -> None:
        self.path, self.config = path, {"seed": seed, "instants": instants}
        self.rows: dict[tuple[str, str], dict[str, Any]] = {}
        if path.exists():
            found = json.loads(path.read_text(encoding="utf-8"))
            if found["config"]["seed"] != seed:
                raise SystemExit(f"{path}: is of seed {found['config']['seed']}; name another file")
            self.rows = {(row["what"], row["fault"]): row for row in found["rows"]}

    def row(self, name: str, fault: str) -> dict[str, Any]:
        """Return the row of a command and a fault."""
        empty = {"what": name, "fault": fault, "trials": 0, "same": 0, "wrong": {}}
        return self.rows.setdefault((name, fault), empty)

    def write(self) -> None:
        """Write everything."""
        document = results.document("faults", self.config, rows=list(self.rows.values()))
        write_text(self.path, json.dumps(document, indent=2) + "\n")


def turn(lab: Laboratory, fault: str, seed: int, row: dict[str, Any], number: int) -> None:
    """Do the next trials of a command and a fault: each is a function of the seed and its own number."""
    for trial in range(row["trials"], row["trials"] + number):
        chance = random.Random(f"{seed} {lab.name} {fault} {trial}")
        with lab.folder() as folder:
            wrong = FAULTS[fault](lab, chance, folder)
        row["trials"] += 1
        if wrong:
            row["wrong"][str(trial)] = wrong
        else:
            row["same"] += 1
    print(
        f"{lab.name:<10} {fault:<12} {row['same']} of {row['trials']} the same",
        *list(row["wrong"].values())[:2],
        flush=True,
    )


def main() -> None:
    """Run the trials, print and save how many ended well; fail if one did not."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--commands", nargs="+", choices=COMMANDS, default=list(COMMANDS))
    parser.add_argument("--faults", nargs="+", choices=FAULTS, default=list(FAULTS))
    parser.add_argument("--instants", type=int, default=100, help="trials of a command and a fault")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no turn after so long")
    parser.add_argument("--out", type=Path, default=Path("faults.json"))
    given = parser.parse_args()
    faults = [name for name in given.faults if name != "full-disk" or mountable()]
    record, stop = Record(given.out, given.seed, given.instants), time.monotonic() + 60 * given.minutes
    pairs = [(name, fault) for fault in faults for name in given.commands]
    with tempfile.TemporaryDirectory() as root:
        base = Path(root) / "base"
        inputs(base)
        laboratory = functools.cache(functools.partial(Laboratory, Path(root), base))
        for done in range(0, given.instants, TURN):
            for name, fault in pairs:
                row = record.row(name, fault)
                number = min(done + TURN, given.instants) - row["trials"]
                if number > 0 and time.monotonic() < stop:
                    turn(laboratory(name), fault, given.seed, row, number)
                    record.write()
    if any(record.row(*pair)["wrong"] for pair in pairs):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
