"""The long run over damaged files: ``python tests/fuzz/run.py --cases 10000 --jobs 2 --out results.json``.

Prints a line a format: how many files were refused, read with the same contents, or with others (which is
a failure only where a checksum covers the contents), and every failure with its number, by which it is made
again: ``--format NAME --first NUMBER --cases 1 --keep FILE``.

The formats take turns, some hundred files each, and ``--out`` is written after every turn: what was done
when the run ended (``--minutes``, or a kill) counts, and the same command goes on from there. Ten thousand
files of every format need 40 minutes of computing.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import multiprocessing
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fuzz.formats import FORMATS
from fuzz.harness import Report, case_of, run
from ldmlr import results
from ldmlr.files import write_text

# Cases of a format in a turn: seconds of reading.
TURN = 100


class Progress:
    """What is done of a run, in the form in which it is written.

    Parameters
    ----------
    path
        Where it is written, or none.
    config
        Seed, first number and cases; a document of another run is not gone on with.
    names
        The formats.
    """

    def __init__(self, path: Path | None, config: dict[str, Any], names: list[str]) -> None:
        self.path, self.config = path, config
        self.rows: dict[str, dict[str, Any]] = {
            name: {"what": name, "cases": 0, "seconds": 0.0, "failures": {}} for name in names
        }
        if path is not None and path.exists():
            found = json.loads(path.read_text(encoding="utf-8"))
            same = {key: found["config"].get(key) for key in ("seed", "first")}
            if same != {key: config[key] for key in same}:
                raise SystemExit(f"{path}: is of another run ({same}); name another file")
            self.rows |= {row["what"]: row for row in found["rows"]}

    def next_turn(self, name: str, cases: int) -> tuple[int, int]:
        """Return the number of a format's next case, and how many to read from it on."""
        done = int(self.rows[name]["cases"])
        return int(self.config["first"]) + done, min(TURN, cases - done)

    def add(self, name: str, report: Report, cases: int, seconds: float) -> None:
        """Take what a turn found, and write everything."""
        row = self.rows[name]
        row["cases"] += cases
        row["seconds"] = round(row["seconds"] + seconds, 1)
        for kind, count in report.counts.items():
            row[kind] = row.get(kind, 0) + count
        row["failures"] |= {str(number): what for number, what in report.failures.items()}
        if self.path is not None:
            rows = list(self.rows.values())
            write_text(
                self.path, json.dumps(results.document("fuzz", self.config, rows=rows), indent=1) + "\n"
            )


def _turn(name: str, cases: int, seed: int, first: int) -> tuple[Report, float]:
    started = time.monotonic()
    return run(FORMATS[name], cases, seed, first), time.monotonic() - started


def read_all(progress: Progress, names: list[str], cases: int, jobs: int, minutes: float) -> None:
    """Let the formats take turns in processes of their own, until all is read or the time is over."""
    seed, stop = int(progress.config["seed"]), time.monotonic() + 60 * minutes
    waiting = [name for name in names if progress.rows[name]["cases"] < cases]
    running: dict[concurrent.futures.Future[tuple[Report, float]], tuple[str, int]] = {}
    # Forks of a process of one thread: each has the formats loaded, and forks its readers in turn.
    with concurrent.futures.ProcessPoolExecutor(jobs, multiprocessing.get_context("fork")) as pool:
        while running or (waiting and time.monotonic() < stop):
            while waiting and len(running) < jobs and time.monotonic() < stop:
                name = waiting.pop(0)
                first, number = progress.next_turn(name, cases)
                running[pool.submit(_turn, name, number, seed, first)] = name, number
            done, _ = concurrent.futures.wait(running, return_when=concurrent.futures.FIRST_COMPLETED)
            for future in done:
                name, number = running.pop(future)
                report, seconds = future.result()
                progress.add(name, report, number, seconds)
                if progress.rows[name]["cases"] < cases:
                    waiting.append(name)


def main() -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", type=int, default=10_000, help="files of each format")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first file")
    parser.add_argument("--format", action="append", choices=list(FORMATS), help="one format; may repeat")
    parser.add_argument("--jobs", type=int, default=1, help="formats that are read at once")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no turn after so long")
    parser.add_argument("--out", type=Path, help="write the figures as JSON, and go on from what is there")
    parser.add_argument("--keep", type=Path, help="write the first file there, to look at")
    options = parser.parse_args()
    names = options.format or list(FORMATS)
    if options.keep is not None:
        form = FORMATS[names[0]]
        with tempfile.TemporaryDirectory() as folder:
            data = (Path(folder) / form.write(Path(folder))).read_bytes()
        options.keep.write_bytes(case_of(form, data, options.seed, options.first))
    config = {"cases": options.cases, "seed": options.seed, "first": options.first}
    progress = Progress(options.out, config, names)
    read_all(progress, names, options.cases, options.jobs, options.minutes)
    failed = 0
    for name in names:
        row = progress.rows[name]
        counts = {
            kind: row[kind] for kind in sorted(row) if kind not in ("what", "cases", "seconds", "failures")
        }
        print(f"{name:26s} {row['cases']:6d} {row['seconds']:8.1f} s  {counts}")
        for number, what in row["failures"].items():
            print(f"    {number}: {what}")
        failed += len(row["failures"])
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
