"""How long a batch of small stores takes to augment, from the command line's start to its end.

    python benchmarks/augment.py --stores 100 --threads 2 --out augment.json

Writes stores of 1,000 rows (D 64, ten classes; as ``ldmlr bench augment``), runs ``ldmlr augment`` on all of
them with the recipe's settings, side by side and, with ``--in-turn``, one after the other too. Wants a
machine that does nothing else.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from ldmlr import results
from ldmlr.bench.augment import ROWS, Stores
from ldmlr.config import plain
from ldmlr.files import write_text


def run(stores: Stores, threads: int, options: list[str]) -> dict[str, object]:
    """Augment the stores in one command and return its figures."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "ldmlr", "augment", *map(str, stores.paths), "--out-dir", folder]
        began = time.perf_counter()
        done = subprocess.run(
            [*command, "--threads", str(threads), "--json", *options], check=True, stdout=subprocess.PIPE
        )
        seconds = time.perf_counter() - began
        figures = json.loads(done.stdout)["stores"]
    return {
        "stores": len(figures), "rows": ROWS, "threads": threads, "seconds": seconds,
        "stores_per_s": len(figures) / seconds,
        "train_seconds": sum(entry["train_seconds"] for entry in figures),
        "generate_seconds": sum(entry["generate_seconds"] for entry in figures),
    }  # fmt: skip


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, help="save the result document here (JSON)")
    parser.add_argument("--stores", type=int, default=100)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--in-turn", action="store_true", help="one thread too, which does them in turn")
    parser.add_argument("options", nargs="*", help="options of ldmlr augment, after --")
    given = parser.parse_args()
    stores = Stores(given.stores)
    rows = [run(stores, given.threads, given.options)]
    if given.in_turn:
        rows.append(run(stores, 1, given.options))
    for row in rows:
        print(
            "{stores} stores, {threads} threads: {seconds:.1f} s, {stores_per_s:.2f} stores/s".format(**row)
        )
    if given.out:
        config = {"stores": given.stores, "threads": given.threads, "options": given.options}
        document = results.document("bench", config, rows=rows)
        write_text(given.out, json.dumps(plain(document), indent=2) + "\n")


if __name__ == "__main__":
    main()
