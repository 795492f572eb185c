"""Peak memory of `ldmlr generate` and `ldmlr diffuse`, few rows and very many, each in a process of its own.

    python benchmarks/memory.py --rows 10000 10000000 --train 12000x1280 100000x4096 --out memory.json

Rows are drawn by a model of ``--dim`` numbers, and need disk twice while they are made (5 GB for 10 million
of 64 numbers). Trained is on made-up features, 100 classes with a long tail; 100,000 x 4,096 take 1.6 GB of
disk.
"""

from __future__ import annotations

import argparse
import functools
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
from ldmlr.store.writer import StoreWriter

CLASSES, BLOCK = 100, 4096

# Peak resident memory of the whole process: imports, model and work. getrusage would count the process that
# started it, too.
CHILD = """
import sys
from ldmlr_cli.main import main
try:
    main()
finally:
    status = open("/proc/self/status").read()
    print(status.split("VmHWM:")[1].split()[0], file=sys.stderr)
"""


def measured(folder: Path, *options: str) -> tuple[dict[str, Any], float]:
    """Return the document of a command, and the peak memory of its process in MB."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD, *options, "--overwrite", "--json"],
        cwd=folder, capture_output=True, text=True, check=True,
    )  # fmt: skip
    found: dict[str, Any] = json.loads(done.stdout)
    return found, int(done.stderr.split()[-1]) / 1024


def generate(folder: Path, rows: int) -> dict[str, Any]:
    """Return the figures of a generation and its peak memory in MB."""
    found, peak = measured(
        folder, "generate", "model.safetensors", "--count", f"0={rows}", "--out", "rows.h5"
    )
    keys = ("rows", "backend", "kernels", "seconds", "draw_seconds")
    place = {"what": "generation to disk", "setting": f"{rows:,} rows"}
    return {**place, **{key: found[key] for key in keys}, "peak_mb": peak}


def train(folder: Path, rows: int, dim: int) -> dict[str, Any]:
    """Return the figures of a training on made-up features, and its peak memory in MB."""
    weights = 100 ** (-np.arange(CLASSES) / (CLASSES - 1))
    sizes = np.maximum(1, (rows * weights / weights.sum()).astype(int))
    sizes[0] += rows - sizes.sum()
    labels = np.repeat(np.arange(CLASSES), sizes)
    rng = np.random.default_rng(0)
    means = rng.standard_normal((CLASSES, dim), np.float32)
    # Directions of falling variance, as encoders have them; a rotation would change nothing here.
    spread = (1 + np.arange(dim, dtype=np.float32)) ** -0.5
    with StoreWriter(folder / "store.h5", dim=dim, num_classes=CLASSES, overwrite=True) as writer:
        split = writer.split("train", rows=rows)
        for first in range(0, rows, BLOCK):
            own = labels[first : first + BLOCK]
            noise = rng.standard_normal((len(own), dim), np.float32)
            split.write(first, 0.3 * means[own] + noise * spread, own)
    found, peak = measured(folder, "diffuse", "store.h5", "--out", "trained.safetensors")
    place = {"what": "training", "setting": f"{rows:,} rows of {dim:,} numbers"}
    figures = {"rows": rows, "dim": dim, "features_mb": rows * dim * 4 / 2**20, "seconds": found["seconds"]}
    return {**place, **figures, "peak_mb": peak}


def main() -> None:
    """Run, print and save the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="*", default=[10_000, 10_000_000])
    parser.add_argument("--train", nargs="*", default=["12000x1280", "100000x4096"], metavar="ROWSxDIM")
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
        jobs = [functools.partial(generate, Path(folder), rows) for rows in options.rows]
        sizes = [(int(rows), int(dim)) for rows, dim in (size.split("x") for size in options.train)]
        jobs += [functools.partial(train, Path(folder), rows, dim) for rows, dim in sizes]
        for job in jobs:
            entry = job()
            table.append(entry)
            peak = f"peak {entry['peak_mb']:,.0f} MB"
            print(f"{entry['what']}, {entry['setting']}: {peak}, {entry['seconds']:.1f} s")
    if options.out:
        config = {"dim": options.dim, "hidden": options.hidden}
        document = results.document("memory", config, rows=table)
        write_text(options.out, json.dumps(plain(document), indent=2) + "\n")


if __name__ == "__main__":
    main()
