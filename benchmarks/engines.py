"""What an engine costs: two workers of Ray on this machine beside two threads of one process.

    python benchmarks/engines.py --rows 1000000 --out engines.json

Measured, in turn and as medians: the efficiency, which is the time of one process with two threads over that
of two workers with one thread each, for twice ``--rows`` rows; seconds until Ray has done its first task, and
until it has ended; and what a shard costs beyond its rows, from ``--shards`` shards of 100 rows each, through
Ray and in a loop of one process. The rows of both are compared to the bit.

Needs ``ldmlr[ray]``, two cores that do nothing else, and disk for the rows four times over.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ldmlr import progress, results
from ldmlr.config import plain
from ldmlr.device import Machine
from ldmlr.diffusion.config import DiffusionConfig
from ldmlr.engines.ray import all_results, cluster, task_outcomes
from ldmlr.engines.shards import draw_shard, generate_on_ray
from ldmlr.files import write_text
from ldmlr.generation.config import GenerateConfig
from ldmlr.generation.generate import generate
from ldmlr.generation.latent import LatentDiffusion
from ldmlr.generation.prepare import Work
from ldmlr.store import FeatureStore

WORKERS, TINY = 2, 100


def seconds_of(work: Callable[[], Any]) -> float:
    """Return how long something takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def work_of(model: Path, rows: int, threads: int) -> Work:
    """Return a generation of so many rows on the CPU."""
    config = GenerateConfig(count={"0": rows})
    return Work(model, "diffusion", None, config, DiffusionConfig(), None, 0, Machine("cpu", threads))


def in_one_process(model: Path, rows: int, out: Path, threads: int) -> None:
    """Draw all rows into one file."""
    generate(work_of(model, rows, threads).prepared(), out, overwrite=True)


def by_workers(model: Path, rows: int, out: Path, shards: int) -> None:
    """Draw all rows in shards, by workers with a thread each."""
    work = work_of(model, rows, 1)
    generate_on_ray(work, work.prepared(), out, shards=shards, overwrite=True)


def shard_by_shard(model: Path, rows: int, out: Path, shards: int) -> None:
    """Draw the same shards one after the other, in this process."""
    for index in range(shards):
        draw_shard(work_of(model, rows, 1), out.absolute(), index, shards, False, True)


def same_rows(one: Path, other: Path) -> bool:
    """Tell whether two stores have the same rows, to the bit."""
    with FeatureStore.open(one) as first, FeatureStore.open(other) as second:
        pairs = zip(first.train.batches(2**18), second.train.batches(2**18), strict=True)
        return all(np.array_equal(a[0], b[0]) and np.array_equal(a[1], b[1]) for a, b in pairs)


def start_up() -> tuple[float, float]:
    """Return seconds until a Ray that is started here has done its first task, and until it has ended."""
    began = time.perf_counter()
    with cluster(None) as ray:
        list(all_results(task_outcomes(ray, os.getpid, [()], threads=1, on_gpu=False)))
        first = time.perf_counter() - began
    return first, time.perf_counter() - began


def measure(
    folder: Path, rows: int, shards: int, repeats: int, sizes: dict[str, int]
) -> list[dict[str, Any]]:
    """Return the rows of the result."""
    rng = np.random.default_rng(0)
    features = rng.random((200, sizes["dim"]), np.float32)
    model = folder / "model.safetensors"
    LatentDiffusion(hidden=sizes["hidden"], iterations=10, seed=0).fit(features, np.arange(200) % 2).save(
        model
    )
    begin, end = start_up()
    total = WORKERS * rows
    one, many, tiny = folder / "one.h5", folder / "many.h5", folder / "tiny.h5"
    times: dict[str, list[float]] = {"process": [], "workers": [], "tiny, workers": [], "tiny, process": []}
    count = shards * TINY
    with cluster(None):
        by_workers(model, TINY * WORKERS, tiny, WORKERS)  # workers are there, and have their libraries
        for _ in range(repeats):
            times["process"].append(seconds_of(lambda: in_one_process(model, total, one, WORKERS)))
            times["workers"].append(seconds_of(lambda: by_workers(model, total, many, WORKERS)))
            times["tiny, workers"].append(seconds_of(lambda: by_workers(model, count, tiny, shards)))
            times["tiny, process"].append(seconds_of(lambda: shard_by_shard(model, count, tiny, shards)))
    if not same_rows(one, many.with_suffix(".json")):
        raise SystemExit("Error: the shards are other rows than the file of one process")
    median = {name: statistics.median(found) for name, found in times.items()}
    large = f"{WORKERS} shards of {rows:,} rows"
    small = f"{shards} shards of {TINY} rows"
    return [
        {"what": "two threads of one process", "setting": large, "seconds": median["process"],
         "rows_per_s": total / median["process"]},
        {"what": "two workers of Ray", "setting": large, "seconds": median["workers"],
         "rows_per_s": total / median["workers"], "fraction": median["process"] / median["workers"]},
        {"what": "Ray, until its first task is done", "setting": "start", "seconds": begin},
        {"what": "Ray, until it has ended again", "setting": "start", "seconds": end},
        {"what": "a shard through Ray", "setting": small,
         "milliseconds": 1000 * median["tiny, workers"] / shards},
        {"what": "a shard in one process", "setting": small,
         "milliseconds": 1000 * median["tiny, process"] / shards},
    ]  # fmt: skip


def main(args: Sequence[str] | None = None) -> int:
    """Measure, print and save; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of a large shard")
    parser.add_argument("--shards", type=int, default=100, help="small shards")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--out", type=Path, help="save the result document here (JSON)")
    options = parser.parse_args(args)
    progress.silence()
    progress.quiet()
    sizes = {"dim": options.dim, "hidden": options.hidden}
    with tempfile.TemporaryDirectory(dir=".") as folder:
        table = measure(Path(folder), options.rows, options.shards, options.repeats, sizes)
    for row in table:
        figures = ", ".join(f"{name} {value:,.4g}" for name, value in row.items() if isinstance(value, float))
        print(f"{row['what']} ({row['setting']}): {figures}")
    if options.out:
        config = {**sizes, "rows": options.rows, "shards": options.shards, "repeats": options.repeats}
        document = results.document("engines", config, rows=table)
        write_text(options.out, json.dumps(plain(document), indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
