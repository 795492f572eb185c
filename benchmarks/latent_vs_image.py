"""Latent against image space: the cost of one sampling step and the bytes of a row.

The latent side is the recipe's network (D 64, H 128, two blocks). The image side is a plain
class-conditional U-Net on 32 x 32 x 3 pixels, written for this measurement: channels 64, 128, 128, two
residual blocks a resolution, 4.5 million parameters, no attention. It is small beside published ones for
CIFAR-10 (36 million in DDPM), so the ratio is a lower bound. Both have random weights: the time does not
depend on them. One step is one evaluation for the class alone, no guidance, plus the solver's update.

    python benchmarks/latent_vs_image.py --out latent-vs-image.json

Speeds are taken in pairs in one process, eager float32 PyTorch on both sides, and the native sampler
beside them.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from ldmlr import results
from ldmlr.bench.models import operations_per_row, random_labels, random_spec
from ldmlr.bench.timing import pair
from ldmlr.bench.torch_sampler import TorchSampler
from ldmlr.config import plain
from ldmlr.device import Machine
from ldmlr.files import write_text
from ldmlr.sampler.backends import prepare
from ldmlr.sampler.solve import solve
from ldmlr.text import table

CHANNELS = (64, 128, 128)
STEPS = 10
IMAGE = (3, 32, 32)


class Block(nn.Module):
    """A residual block of two convolutions, conditioned by an added vector."""

    def __init__(self, before: int, after: int, condition: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.GroupNorm(8, before), nn.SiLU(), nn.Conv2d(before, after, 3, padding=1))
        self.second = nn.Sequential(nn.GroupNorm(8, after), nn.SiLU(), nn.Conv2d(after, after, 3, padding=1))
        self.condition = nn.Linear(condition, after)
        self.skip = nn.Conv2d(before, after, 1) if before != after else nn.Identity()

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Return ``[n, after, h, w]`` of ``[n, before, h, w]`` and conditions ``[n, c]``."""
        h = self.first(x) + self.condition(condition)[:, :, None, None]
        out: Tensor = self.skip(x) + self.second(h)
        return out


class ImageUNet(nn.Module):
    """A plain U-Net: two blocks down and two up at each of three resolutions, two in the middle."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        first, width = CHANNELS[0], 4 * CHANNELS[0]
        self.time = nn.Sequential(nn.Linear(first, width), nn.SiLU(), nn.Linear(width, width))
        self.label = nn.Embedding(classes + 1, width)
        self.enter = nn.Conv2d(IMAGE[0], first, 3, padding=1)
        skips, at = [first], first
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        for channels in CHANNELS:
            for _ in range(2):
                self.down.append(Block(at, channels, width))
                at = channels
                skips.append(at)
        self.middle = nn.ModuleList(Block(at, at, width) for _ in range(2))
        for channels in reversed(CHANNELS):
            for _ in range(2):
                self.up.append(Block(at + skips.pop(), channels, width))
                at = channels
        self.leave = nn.Sequential(nn.GroupNorm(8, at), nn.SiLU(), nn.Conv2d(at, IMAGE[0], 3, padding=1))

    def forward(self, x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        """Return the prediction ``[n, 3, 32, 32]`` for noisy images, times ``[n]`` in 0 .. 1 and classes."""
        half = CHANNELS[0] // 2
        frequency = torch.exp(-torch.arange(half) * (9.2 / half))
        angle = 1000 * t[:, None] * frequency
        condition = self.time(torch.cat([angle.sin(), angle.cos()], 1)) + self.label(labels)
        h = self.enter(x)
        kept = []
        for number, block in enumerate(self.down):
            if number in (2, 4):
                h = functional.avg_pool2d(h, 2)
            h = block(h, condition)
            kept.append(h)
        for block in self.middle:
            h = block(h, condition)
        for number, block in enumerate(self.up):
            if number in (2, 4):
                h = functional.interpolate(h, scale_factor=2.0)
            h = block(torch.cat([h, kept.pop()], 1), condition)
        out: Tensor = self.leave(h)
        return out


class ImageSampler:
    """Draws images by the U-Net with the step rows that the latent side uses."""

    def __init__(self, network: ImageUNet) -> None:
        self.network = network.eval()
        self.rows = random_spec(64, 128, steps=STEPS, guidance=1.0).rows

    @torch.no_grad()
    def __call__(self, labels: Tensor) -> float:
        """Draw one image per label and return their number."""
        noise = torch.randn(len(labels), *IMAGE)

        def predict(x: Tensor, step: int) -> Tensor:
            t = torch.full((len(labels),), 1 - step / len(self.rows))
            out: Tensor = self.network(x, t, labels)
            return out

        solve(self.rows, noise, predict, lambda step: torch.randn_like(noise))
        return float(len(labels))


def operations(network: ImageUNet) -> int:
    """Return the operations of one evaluation for one image, a multiply-add counted as two."""
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        network(torch.randn(1, *IMAGE), torch.ones(1), torch.zeros(1, dtype=torch.long))
    return int(counter.get_total_flops())


def measure(latent_rows: int, images: int, repeats: int, threads: int) -> dict[str, Any]:
    """Return operations, bytes and microseconds of a row and step on both sides."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    spec = random_spec(64, 128, steps=STEPS, guidance=1.0)
    network = ImageUNet(spec.num_classes)
    eager, drawn = TorchSampler(spec), prepare(spec, Machine(threads=threads, backend="native"))
    image = ImageSampler(network)
    labels = random_labels(spec, latent_rows)
    few = torch.from_numpy(random_labels(spec, images))

    def native() -> float:
        drawn(labels)
        return float(len(labels))

    against_eager = pair(lambda: eager(labels), lambda: image(few), repeats)
    against_native = pair(native, lambda: image(few), repeats)
    evaluations = len(spec.rows)

    def each(rate: float) -> float:
        return 1e6 / (rate * evaluations)

    image_operations = operations(network)
    per_step = operations_per_row(spec) // evaluations
    parameters = sum(entry.numel() for entry in network.parameters())
    size = IMAGE[0] * IMAGE[1] * IMAGE[2]
    rows = [
        {"what": "latent, 64-d, native sampler", "kernels": drawn.kernels, "operations": per_step,
         "bytes": 256, "microseconds": each(against_native.first)},
        {"what": "latent, 64-d, PyTorch eager", "kernels": "float32", "operations": per_step,
         "bytes": 256, "microseconds": each(against_eager.first)},
        {"what": "image, 32 x 32 x 3, PyTorch eager", "kernels": "float32", "operations": image_operations,
         "bytes": 4 * size, "microseconds": each(against_eager.second)},
    ]  # fmt: skip
    return {
        "rows": rows,
        "parameters": {"image": parameters, "latent": _parameters(spec)},
        "bytes_as_stored": {"latent, float32": 256, "image, uint8": size},
        "ratios": {
            "operations": image_operations / per_step,
            "eager": against_eager.ratio,
            "native": against_native.ratio,
        },
        "evaluations": evaluations,
    }


def _parameters(spec: Any) -> int:
    """Return the numbers of the latent network that do not depend on the solver's steps."""
    tables = spec.tables
    return sum(
        getattr(tables, name).size for name in tables.__dataclass_fields__ if name not in ("bias_step",)
    )


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, default=32768, help="latent rows of a run")
    parser.add_argument("--images", type=int, default=32, help="images of a run")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--note", default="", help="a remark kept with the figures, such as: busy machine")
    parser.add_argument("--out", type=Path, help="save the result document here (JSON)")
    options = parser.parse_args()
    figures = measure(options.rows, options.images, options.repeats, options.threads)
    body = [
        [
            str(row["what"]),
            f"{row['operations'] / 1e6:,.3f}",
            f"{row['bytes']:,}",
            f"{row['microseconds']:,.3f}",
        ]
        for row in figures["rows"]
    ]
    print(table(["one step of one row", "MFLOP", "bytes (float32)", "microseconds"], body))
    ratios = figures["ratios"]
    print(
        f"\nimage / latent: {ratios['operations']:,.0f} x the operations, {ratios['eager']:,.0f} x the time "
        f"in eager PyTorch, {ratios['native']:,.0f} x beside the native sampler; {options.threads} threads"
    )
    if options.out:
        config = {name: getattr(options, name) for name in ("rows", "images", "repeats", "threads", "note")}
        document = results.document("latent-vs-image", config, **figures)
        write_text(options.out, json.dumps(plain(document), indent=2) + "\n")


if __name__ == "__main__":
    main()
