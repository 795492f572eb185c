"""The long run over damaged files: ``python tests/fuzz/run.py --cases 10000 --out results.json``.

Prints a line a format: how many files were refused, read with the same contents, or with others (which is
a failure only where a checksum covers the contents), and every failure with its number, by which it is made
again: ``--format NAME --first NUMBER --cases 1 --keep FILE``.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fuzz.formats import FORMATS
from fuzz.harness import case_of, run


def main() -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=10_000, help="files of each format")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first file")
    parser.add_argument("--format", action="append", choices=list(FORMATS), help="one format; may repeat")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    parser.add_argument("--keep", type=Path, help="write the first file there, to look at")
    options = parser.parse_args()
    names = options.format or list(FORMATS)
    if options.keep is not None:
        form = FORMATS[names[0]]
        with tempfile.TemporaryDirectory() as folder:
            data = (Path(folder) / form.write(Path(folder))).read_bytes()
        options.keep.write_bytes(case_of(form, data, options.seed, options.first))
    rows, failed = [], 0
    for name in names:
        started = time.monotonic()
        report = run(FORMATS[name], options.cases, options.seed, options.first)
        seconds = round(time.monotonic() - started, 1)
        counts = dict(sorted(report.counts.items()))
        print(f"{name:26s} {seconds:8.1f} s  {counts}", flush=True)
        for number, what in sorted(report.failures.items()):
            print(f"    {number}: {what}", flush=True)
        failed += len(report.failures)
        rows.append(
            {
                "format": name,
                "cases": options.cases,
                "seconds": seconds,
                **counts,
                "failures": {str(number): what for number, what in report.failures.items()},
            }
        )
    if options.out is not None:
        document = {
            "rows": rows,
            "seed": options.seed,
            "python": platform.python_version(),
            "machine": platform.machine(),
        }
        options.out.write_text(json.dumps(document, indent=1) + "\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
