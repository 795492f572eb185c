"""How long ``ldmlr run emb.npz`` takes on features of one's own that have no test split.

5,000 rows of 384 numbers in 50 long-tailed classes by default: rows around class means, each class with a
spread of its own. Everything is timed from the start of the command to its end: converting the file, every
fold, the head of all rows.

    python benchmarks/owndata.py --out owndata.json
    python benchmarks/owndata.py --seeds 1 --generator gaussian --out quick.json
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from ldmlr import results
from ldmlr.config import plain
from ldmlr.files import write_text


def features(rows: int, dim: int, classes: int, factor: float = 50.0, seed: int = 0) -> dict[str, np.ndarray]:
    """Return long-tailed rows: the largest class has `factor` times the rows of the smallest."""
    rng = np.random.default_rng(seed)
    share = factor ** -(np.arange(classes) / max(classes - 1, 1))
    counts = np.maximum(np.round(rows * share / share.sum()).astype(int), 2)
    labels = np.repeat(np.arange(classes), counts)
    means = rng.standard_normal((classes, dim)) / np.sqrt(dim) * 6
    spread = rng.uniform(0.5, 1.5, (classes, dim))
    values = means[labels] + spread[labels] * rng.standard_normal((len(labels), dim))
    return {"X": values.astype(np.float32), "y": labels}


def main() -> None:
    """Time the command and save what it said."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=5000)
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--classes", type=int, default=50)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=None, help="default: that of the command")
    parser.add_argument("--generator", default="diffusion")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "emb.npz")
        np.savez(source, **features(options.rows, options.dim, options.classes))
        command = [
            sys.executable, "-m", "ldmlr", "run", str(source), "--folds", str(options.folds),
            "--generator", options.generator, "--out", str(Path(folder, "run")), "--json",
        ]  # fmt: skip
        command += [] if options.seeds is None else ["--seeds", str(options.seeds)]
        command += [] if options.threads is None else ["--threads", str(options.threads)]
        start = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        seconds = time.perf_counter() - start
        if done.returncode:
            sys.exit(done.stderr)
    found = json.loads(done.stdout)
    steps = [{key: step[key] for key in ("stage", "seed", "seconds")} for step in found["steps"]]
    document = results.document(
        "benchmarks/owndata.py", vars(options), seconds=round(seconds, 2), rows=found["test_rows"],
        verdict=found["verdict"], best=found["best"], steps=steps, seeds=found["seeds"],
    )  # fmt: skip
    write_text(options.out, json.dumps(plain(document), indent=2) + "\n")
    print(f"ldmlr run: {seconds:.1f} s for {options.folds} folds and seeds {found['seeds']}")
    for step in steps:
        print(f"  seed {step['seed']}  {step['stage']:<9}{step['seconds']:8.1f} s")


if __name__ == "__main__":
    main()
