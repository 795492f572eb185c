"""Measure the CUDA kernels; `gpu_run.sh` runs all parts of it.

    python benchmarks/gpu.py sample --out gpu-sample.json

sample      ceilings, every tier at every size, latency
slabs       the kernels in layers with slabs of several sizes
baselines   the same network in eager PyTorch and under torch.compile
train       the trainer of stage 2: as the CPU's, graphs as single launches, how long it takes
disk        10 million rows to a store, with the share of time the GPU waits
images      writes an image set of the size of CIFAR-10-LT (noise), for timing stage 1
features    writes a feature store of the size of CIFAR-10-LT (noise), for timing stage 2
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from ldmlr import cuda_device as devices
from ldmlr import results
from ldmlr.bench import cuda as bench
from ldmlr.bench import cuda_train
from ldmlr.bench.models import random_spec
from ldmlr.config import plain
from ldmlr.errors import LdmlrError
from ldmlr.files import write_text
from ldmlr.sampler.cuda import tiers

# CIFAR-10-LT at imbalance factor 100.
COUNTS = (5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50)
Row = dict[str, Any]


def sample(device: torch.device) -> Iterator[Row]:
    """Yield ceilings, the tiers by size, and latencies."""
    ceiling = bench.product_rate(device)
    yield {
        "what": "torch bfloat16 product",
        "dim": bench.PRODUCT,
        "hidden": bench.PRODUCT,
        "gflop_per_s": ceiling,
    }
    yield {"what": "copy in device memory", "dim": 0, "hidden": 0, "gbyte_per_s": bench.copy_rate(device)}
    # Those that there are targets for come first: a time limit should cost the others.
    for dim, hidden, target in sorted(bench.SIZES, key=lambda size: size[2] is None):
        for tier in bench.runnable(random_spec(dim, hidden), device):
            yield {**bench.throughput(dim, hidden, tier, device, ceiling), "target": target}
    for rows in (1, 1024, 16384):
        for tier in bench.runnable(random_spec(*bench.RECIPE), device):
            yield bench.latency(rows, device, tier)


def slabs(device: torch.device) -> Iterator[Row]:
    """Yield the kernels in layers with slabs of several sizes."""
    ceiling = bench.product_rate(device)
    for dim, hidden in ((64, 512), (512, 1024), (512, 2048)):
        usable = set(bench.runnable(random_spec(dim, hidden), device))
        # By wgmma where there is wgmma.
        names = sorted(usable & set(tiers.BY_WGMMA) or usable & set(tiers.IN_LAYERS))
        for slab in (4096, 8192, 16384, 32768):
            for tier in names:
                yield bench.throughput(dim, hidden, tier, device, ceiling, slab)


def baselines(device: torch.device) -> Iterator[Row]:
    """Yield comparisons with PyTorch."""
    ceiling = bench.product_rate(device)
    for dim, hidden in (bench.RECIPE, bench.LARGE):
        own = max(
            bench.throughput(dim, hidden, tier, device, ceiling)["rows_per_s"]
            for tier in bench.runnable(random_spec(dim, hidden), device)
        )
        for compiled in (False, True):
            yield bench.against(dim, hidden, device, compiled, own)


def disk(device: torch.device, rows: int) -> Iterator[Row]:
    """Yield figures of a generation to a store in the folder for temporary files."""
    from ldmlr import LatentDiffusion
    from ldmlr.device import Machine
    from ldmlr.generation.config import GenerateConfig
    from ldmlr.generation.generate import generate
    from ldmlr.generation.prepare import prepare

    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(10), 300)
    model = LatentDiffusion(iterations=50).fit(rng.standard_normal((3000, 64), np.float32), labels)
    config = GenerateConfig(count=tuple(f"{c}={rows // 10}" for c in range(10)))
    generation = prepare(model, config, machine=Machine(str(device), backend="cuda"))
    with tempfile.TemporaryDirectory() as folder:
        free = shutil.disk_usage(folder).free
        figures = generate(generation, Path(folder, "rows.h5"))
    yield {
        "what": "rows to a store on disk", "dim": 64, "hidden": 128, "free_bytes": free,
        **{name: figures[name] for name in ("rows", "seconds", "draw_seconds", "rows_per_s", "device_wait")},
    }  # fmt: skip


def write_images(path: Path) -> None:
    """Write noise in the shape of CIFAR-10-LT."""
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        for split, counts in (("train", COUNTS), ("test", (200,) * 10)):
            file[f"{split}/images"] = rng.integers(0, 256, (sum(counts), 32, 32, 3), np.uint8)
            file[f"{split}/labels"] = np.repeat(np.arange(10), counts)


def write_features(path: Path) -> None:
    """Write noise around class means in the shape of the features of CIFAR-10-LT."""
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        for split, counts in (("train", COUNTS), ("test", (1000,) * 10)):
            labels = np.repeat(np.arange(10), counts)
            means = np.random.default_rng(1).standard_normal((10, 64))
            rows = np.abs(rng.standard_normal((len(labels), 64)) + means[labels])
            file[f"{split}/features"], file[f"{split}/labels"] = rows.astype(np.float32), labels


def main() -> None:
    """Run one part and write its rows as they come, so that a time limit loses only the rest."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "part", choices=["sample", "slabs", "baselines", "train", "disk", "images", "features"]
    )
    parser.add_argument(
        "--out", type=Path, required=True, help="JSON file, or the file of images or features"
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--rows", type=int, default=10_000_000, help="rows of part disk")
    options = parser.parse_args()
    if options.part in ("images", "features"):
        (write_images if options.part == "images" else write_features)(options.out)
        return
    device = torch.device(options.device)
    reason = devices.unavailable(device)
    if reason:
        sys.exit(f"Error: {reason}")
    device = devices.indexed(device)
    parts = {
        "sample": lambda: sample(device), "slabs": lambda: slabs(device),
        "baselines": lambda: baselines(device), "train": lambda: cuda_train.rows(device),
        "disk": lambda: disk(device, options.rows),
    }  # fmt: skip
    rows: list[Row] = []
    try:
        for row in parts[options.part]():
            rows.append(row)
            print(bench.text(row), flush=True)
            config = {"part": options.part, "device": str(device), "rows": options.rows}
            document = results.document(f"gpu {options.part}", config, rows=rows)
            write_text(options.out, json.dumps(plain(document), indent=2) + "\n")
    except LdmlrError as error:
        sys.exit(f"Error: {error}")


if __name__ == "__main__":
    main()
