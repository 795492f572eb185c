"""Measure the native sampler: shares of the ceilings, PyTorch baselines, scaling, latency.

    python benchmarks/sampler.py --out sampler.json

The same as ``ldmlr bench sample``, saved as one file. Wants a machine that does nothing else; ten
minutes with ``torch.compile``, three without.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from ldmlr import results
from ldmlr.bench import cpu
from ldmlr.config import plain
from ldmlr.files import write_text
from ldmlr.sampler.cpu import sampler as native


def main() -> None:
    """Measure, print and save the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, help="save the result document here (JSON)")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--repeats", type=int, default=7, help="pairs per figure")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    options = parser.parse_args()
    rows = []
    for job in cpu.jobs(options.threads, options.repeats, not options.no_compile):
        rows.append(job())
        print(cpu.text(rows[-1:]).splitlines()[1], file=sys.stderr, flush=True)
    print(cpu.text(rows))
    if options.out:
        config = {"threads": options.threads, "repeats": options.repeats}
        document = results.document("bench", config, rows=rows, extension=native.build_info())
        write_text(options.out, json.dumps(plain(document), indent=2) + "\n")


if __name__ == "__main__":
    main()
