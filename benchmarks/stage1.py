"""Stage 1: images per second of a training step, by arithmetic and memory layout, and of augmentations.

Trains the same network on the same random pixels in every variant, turn by turn in one process, and
prints medians: images per second, the ratio to float32 with the channels first (pair by pair), the
arithmetic rate beside that of a large matrix product of the same type, and the error of the features
against float32. Augmentations are timed on batches of the same size.

    python benchmarks/stage1.py
    python benchmarks/stage1.py --network resnet10 --size 112 --batch-size 64 --out stage1.json
"""

from __future__ import annotations

import argparse
import functools
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ldmlr import results
from ldmlr.config import plain
from ldmlr.data.images import ArraySplit
from ldmlr.device import resolve_device, set_threads
from ldmlr.encoders.augment.augmentation import Augmentation
from ldmlr.encoders.config import AUGMENTATIONS, BaselineConfig
from ldmlr.encoders.precision import DTYPES
from ldmlr.encoders.trainer import Draws, Trainer
from ldmlr.files import write_text
from ldmlr.text import table

CLASSES = 10


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """Return the time of one call."""
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def multiply_adds(network: nn.Module, images: torch.Tensor) -> int:
    """Return the multiply-adds of a forward pass for one image, counted on its convolutions."""
    total = 0

    def count(module: nn.Module, _: Any, output: torch.Tensor) -> None:
        nonlocal total
        assert isinstance(module, nn.Conv2d)
        total += output[0].numel() * module.weight[0].numel()

    hooks = [m.register_forward_hook(count) for m in network.modules() if isinstance(m, nn.Conv2d)]
    with torch.no_grad():
        network.eval()(images[:1])
    for hook in hooks:
        hook.remove()
    return total


def ceiling(dtype: torch.dtype, device: torch.device, largest: int = 2048) -> float:
    """Return GFLOP/s of a large matrix product, the best of ten.

    Where the processor has no instruction for the type a product takes hundreds of times as long: the size
    doubles only while a product takes less than 50 ms.
    """
    size = 128
    while True:
        one, two = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        multiply = functools.partial(torch.mm, one, two)
        multiply()
        took = seconds(multiply, device)
        if took > 0.05 or size >= largest:
            break
        size *= 2
    best = min(seconds(multiply, device) for _ in range(10))
    return 2 * size**3 / best / 1e9


class Variant:
    """A trainer of one precision and layout, and one batch to step on.

    Parameters
    ----------
    options
        The command line.
    precision, channels_last
        What is varied.
    split
        The images.
    """

    def __init__(
        self, options: argparse.Namespace, precision: str, channels_last: bool, split: ArraySplit
    ) -> None:
        self.precision, self.channels_last = precision, channels_last
        self.device = resolve_device(options.device)
        config = BaselineConfig(
            network=options.network, precision=precision, channels_last=channels_last,
            batch_size=options.batch_size, epochs=1000,
        )  # fmt: skip
        self.trainer = Trainer(config, split, 0, self.device)
        rows = np.arange(options.batch_size)
        self.rows, self.pixels = rows, self.trainer.batches.pixels.load(rows)
        self.draws = Draws.of(0, 0)
        self.times: list[float] = []

    @property
    def name(self) -> str:
        """Precision and layout."""
        return f"{self.precision}, channels {'last' if self.channels_last else 'first'}"

    def step(self) -> None:
        """Take one step: augmentation, forward, backward, update."""
        self.trainer.model.train()
        for images, targets in self.trainer.batches.draw([self.rows], 1, self.draws.augment):
            self.trainer._step(images, targets, 1e-4, self.draws, epoch=0)

    @torch.no_grad()
    def features(self) -> torch.Tensor:
        """Return features in evaluation mode, under this variant's arithmetic."""
        trainer = self.trainer
        trainer.model.eval()
        images = trainer.batches.augment.normalise(self.pixels.to(self.device))
        if not self.channels_last:
            images = images.contiguous()
        with torch.autocast(self.device.type, DTYPES[self.precision], enabled=self.precision != "float32"):
            features: torch.Tensor = trainer.network(images)
        return features.float().cpu()


def steps(options: argparse.Namespace, split: ArraySplit) -> list[dict[str, Any]]:
    """Time the variants turn by turn; return one row each."""
    short = "bfloat16" if options.device == "cpu" or torch.cuda.is_bf16_supported() else "float16"
    variants = [
        Variant(options, precision, last, split) for precision in ("float32", short) for last in (False, True)
    ]
    reference = variants[0].features()
    errors = [float((v.features() - reference).abs().max() / reference.abs().max()) for v in variants]
    device = variants[0].device
    images = variants[0].trainer.batches.augment.normalise(variants[0].pixels.to(device))
    operations = 2 * 3 * multiply_adds(variants[0].trainer.network, images) * options.batch_size
    for _ in range(options.warmup):
        for variant in variants:
            variant.step()
    for _ in range(options.repeats):
        for variant in variants:
            variant.times.append(seconds(variant.step, device))
    rows = []
    for variant, error in zip(variants, errors, strict=True):
        limit = ceiling(DTYPES[variant.precision], device)
        middle = statistics.median(variant.times)
        pairs = [base / own for base, own in zip(variants[0].times, variant.times, strict=True)]
        rows.append(
            {
                "what": "training step", "setting": variant.name, "images_per_s": options.batch_size / middle,
                "ratio": statistics.median(pairs), "gflop_per_s": operations / middle / 1e9,
                "ceiling_gflop_per_s": limit, "fraction": operations / middle / 1e9 / limit, "error": error,
            }
        )  # fmt: skip
    return rows


def augmentations(options: argparse.Namespace, split: ArraySplit) -> list[dict[str, Any]]:
    """Time each augmentation, normalisation included."""
    batch = torch.from_numpy(split.load(np.arange(options.batch_size))).permute(0, 3, 1, 2)
    cpu, generator, rows = torch.device("cpu"), torch.Generator().manual_seed(0), []
    for name in ("none", *AUGMENTATIONS):
        augment = Augmentation(BaselineConfig(augment=(name,)), [120.0] * 3, [60.0] * 3)
        work = functools.partial(augment, batch, generator)
        for _ in range(options.warmup):
            work()
        middle = statistics.median(seconds(work, cpu) for _ in range(options.repeats))
        rows.append({"what": "augmentation", "setting": name, "images_per_s": options.batch_size / middle})
    return rows


def main() -> None:
    """Print the tables, and write them with ``--out``."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--network", default="resnet32")
    parser.add_argument("--size", type=int, default=32, help="height and width, pixels")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--warmup", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--out", type=Path, help="write the rows as JSON")
    options = parser.parse_args()
    threads = set_threads(options.threads)
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (options.batch_size, options.size, options.size, 3), np.uint8)
    labels = np.arange(options.batch_size) % CLASSES
    split = ArraySplit(pixels, labels, CLASSES)
    stepped, augmented = steps(options, split), augmentations(options, split)
    header = ["training step", "images/s", "ratio", "GFLOP/s", "of ceiling", "error"]
    body = [
        [
            row["setting"], f"{row['images_per_s']:.0f}", f"{row['ratio']:.2f}", f"{row['gflop_per_s']:.0f}",
            f"{100 * row['fraction']:.0f} %", f"{row['error']:.1e}",
        ]
        for row in stepped
    ]  # fmt: skip
    print(f"{options.network}, {options.size} pixels, batch {options.batch_size}, {threads} threads\n")
    print(table(header, body), "\n")
    print(
        table(["augmentation", "images/s"], [[r["setting"], f"{r['images_per_s']:.0f}"] for r in augmented])
    )
    if options.out:
        config = {key: value for key, value in vars(options).items() if key != "out"}
        document = results.document("stage1", config, rows=[*stepped, *augmented])
        write_text(options.out, json.dumps(plain(document), indent=2) + "\n")


if __name__ == "__main__":
    main()
