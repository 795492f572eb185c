"""Peak memory of `ldmlr generate`, for few and for very many rows, each in a process of its own.

    python benchmarks/memory.py --rows 10000 10000000 --out memory.json

Needs disk for the rows twice while they are made (5 GB for 10 million of 64 dimensions).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from ldmlr import results
from ldmlr.config import plain
from ldmlr.files import write_text
from ldmlr.generation.latent import LatentDiffusion

# Peak resident memory is a figure of the whole process: imports, model and sampling.
CHILD = """
import resource, sys
from ldmlr_cli.main import main
try:
    main()
finally:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)
"""


def generate(folder: Path, rows: int) -> dict[str, Any]:
    """Return the figures of a generation and its peak memory in MB."""
    options = [
        "generate",
        "model.safetensors",
        "--count",
        f"0={rows}",
        "--out",
        "rows.h5",
        "--overwrite",
        "--json",
    ]
    done = subprocess.run(
        [sys.executable, "-c", CHILD, *options], cwd=folder, capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout)
    keys = ("rows", "backend", "kernels", "seconds", "draw_seconds")
    place = {"what": "generation to disk", "setting": f"{rows:,} rows"}
    return {**place, **{key: found[key] for key in keys}, "peak_mb": int(done.stderr.split()[-1]) / 1024}


def main() -> None:
    """Run, print and save the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 10_000_000])
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--out", type=Path, help="save the result document here (JSON)")
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    features = rng.random((200, options.dim), np.float32)
    model = LatentDiffusion(hidden=options.hidden, iterations=10, seed=0).fit(features, np.arange(200) % 2)
    table = []
    with tempfile.TemporaryDirectory(dir=".") as folder:
        model.save(Path(folder) / "model.safetensors")
        for rows in options.rows:
            table.append(generate(Path(folder), rows))
            entry = table[-1]
            print(
                f"{rows:>12,} rows: peak {entry['peak_mb']:.0f} MB, {entry['seconds']:.1f} s, "
                f"{entry['kernels']}"
            )
    if options.out:
        config = {"dim": options.dim, "hidden": options.hidden}
        document = results.document("memory", config, rows=table)
        write_text(options.out, json.dumps(plain(document), indent=2) + "\n")


if __name__ == "__main__":
    main()
