"""Reading mutated files in processes with limits, and what became of each.

A worker reads case after case; when it ends, computes too long or waits for ever, the case it was at is told
by what it has reported, and another worker goes on with the next. So a case costs little more than its
reading.
"""

from __future__ import annotations

import dataclasses
import json
import os
import resource
import select
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

from ldmlr import isolated
from ldmlr.errors import LdmlrError

from .form import Format

# What a case may take; each reads a file of some kilobytes.
SECONDS = 3.0
MEMORY = 2 << 30
REFUSED, SAME, OTHER = "refused", "same", "other"
FINE = (REFUSED, SAME, OTHER)


@dataclasses.dataclass
class Report:
    """What became of the cases of a format: how many of each kind, and the failures by number."""

    counts: Counter[str] = dataclasses.field(default_factory=Counter)
    failures: dict[int, str] = dataclasses.field(default_factory=dict)


def case_of(form: Format, original: bytes, seed: int, number: int) -> bytes:
    """Return the bytes of a case: a function of format, seed and number."""
    return form.mutate(Random(f"{form.name} {seed} {number}"), original)


def run(form: Format, cases: int, seed: int = 0, first: int = 0) -> Report:
    """Read mutated files of one format.

    Failures are tracebacks, messages that are no line or name no file, ends by a signal, hangs, and for
    formats with a checksum of all they hold, contents that differ in silence.
    """
    report = Report()
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as name:
        folder = Path(name)
        original = form.write(folder)
        data = (folder / original).read_bytes()
        number, stop = first, first + cases
        while number < stop:
            number = _worker(form, folder, original, data, seed, number, stop, report)
    return report


def _worker(
    form: Format, folder: Path, original: str, data: bytes, seed: int, number: int, stop: int, report: Report
) -> int:
    """Read cases in one worker and return the number of the first that is still to be read."""
    read_end, write_end = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    worker = os.fork()
    if not worker:
        try:
            os.close(read_end)
            _read_all(form, folder, original, data, seed, number, stop, write_end)
        finally:
            os._exit(0)
    os.close(write_end)
    pending, since, at_rest, how = b"", time.monotonic(), "", ""
    while True:
        ready, _, _ = select.select([read_end], [], [], max(0.0, since + 10 * SECONDS - time.monotonic()))
        if not ready:
            # On a busy machine a worker may get no time to compute in; one that waits is at rest twice.
            rested, at_rest, since = at_rest, resting(worker), time.monotonic()
            if at_rest and at_rest == rested:
                os.kill(worker, signal.SIGKILL)
                how = "hang"
                break
            continue
        block = os.read(read_end, 1 << 16)
        if not block:
            break
        pending += block
        *lines, pending = pending.split(b"\n")
        for line in lines:
            kind, detail = json.loads(line)
            report.counts[kind] += 1
            if kind not in FINE or (kind == OTHER and form.checksum):
                report.failures[number] = f"{kind}: {detail}"
            number, since = number + 1, time.monotonic()
    os.close(read_end)
    _, status = os.waitpid(worker, 0)
    if number < stop:
        how = how or (f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"exit {status}")
        report.counts["ended"] += 1
        report.failures[number] = how
        number += 1
    return number


def resting(process: int) -> str:
    """Return what a process that sleeps has computed so far, in ticks; empty while it computes."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return " ".join(fields[11:13]) if fields[0] == "S" else ""


def _read_all(
    form: Format, folder: Path, original: str, data: bytes, seed: int, number: int, stop: int, write_end: int
) -> None:
    isolated._inside = True
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    # Of the address space, that which the worker has already is no concern of the case.
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY + _data_size(), resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    path = folder / original
    path.write_bytes(data)  # where a worker before ended, the file that ended it is still there
    expected = form.read(folder, path)
    for case in range(number, stop):
        used = resource.getrusage(resource.RUSAGE_SELF)
        limit = int(used.ru_utime + used.ru_stime + SECONDS) + 1
        resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.RLIM_INFINITY))
        path.unlink(missing_ok=True)
        path.write_bytes(case_of(form, data, seed, case))
        os.write(write_end, json.dumps(_outcome(form, folder, path, expected)).encode() + b"\n")


def _outcome(form: Format, folder: Path, path: Path, expected: Any) -> tuple[str, str]:
    try:
        found = form.read(folder, path)
    except LdmlrError as error:
        line = error.on_command_line()
        if "\n" in line or not line.isprintable():
            return "lines", repr(line)
        return (REFUSED, "") if str(folder) in line else ("nameless", line)
    except BaseException:
        return "traceback", " / ".join(traceback.format_exc().strip().splitlines()[-5:])[-600:]
    return (SAME, "") if found == expected else (OTHER, "")


def _data_size() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmData:"):
            return int(line.split()[1]) << 10
    return 1 << 30
