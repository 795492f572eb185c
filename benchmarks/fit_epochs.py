"""How many epochs of a recipe fit into a time on this machine: a few are trained, the best is the measure.

Steps on a GPU run by graphs only after the first of a shape, so a step by itself says little. Prints one
whole number: no more than twice the epochs of the recipe, whatever the time; 0 if not even one fits.

    python benchmarks/fit_epochs.py images.h5 cifar-glmc-maxnorm --until $(date -d '6 min' +%s)
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import torch

from ldmlr.config import read_toml
from ldmlr.data.images import ImageSplit
from ldmlr.data.open import open_image_set
from ldmlr.device import fastest_algorithms, resolve_device
from ldmlr.encoders.augment.shrink import side_share
from ldmlr.encoders.config import BaselineConfig
from ldmlr.encoders.precision import resolve_precision
from ldmlr.encoders.recipes import PRESETS, baseline_config
from ldmlr.encoders.trainer import Trainer

TRIED = 4
# Checkpoints, and a machine that others use too.
RESERVE = 0.07
# Seconds until the training that follows takes its first step.
START = 10.0
# What an epoch of the head alone costs, one forward pass of a view, in epochs of the network.
HEAD_ALONE = 1 / 3


def recipe(name: str) -> BaselineConfig:
    """Return the configuration of a preset's name, or of a TOML file as ``ldmlr run`` takes it."""
    if name in PRESETS:
        return baseline_config(name)
    document = read_toml(Path(name))
    return baseline_config(document["preset"], document.get("baseline", {}))


def seconds_per_epoch(config: BaselineConfig, images: ImageSplit, device: torch.device) -> float:
    """Return the time of an epoch on full images, the best of some after the first."""
    config = config.replace(epochs=TRIED, head_epochs=0, first_size=1.0)
    trainer = Trainer(config, images, 0, device)
    with fastest_algorithms(device):
        trainer.run(lambda: None)
    return min(entry["seconds"] for entry in trainer.history[1:])


def fitting_epochs(config: BaselineConfig, per_epoch: float, seconds: float) -> int:
    """Return how many epochs fit: those of the head alone come on top, early ones may be on smaller images.

    Parameters
    ----------
    config
        The recipe.
    per_epoch
        Time of an epoch on full images.
    seconds
        Time there is.
    """
    head = HEAD_ALONE * config.head_epochs
    left = seconds * (1 - RESERVE) / per_epoch - head
    # Steps cost as the square of the side; its mean over a training depends on its length next to nothing.
    share = sum(side_share(config.first_size, epoch, 1000) ** 2 for epoch in range(1000)) / 1000
    return max(0, min(int(left / share), 2 * config.epochs))


def main() -> None:
    """Print the number."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("images", help="an image set, long-tailed")
    parser.add_argument("recipe", help="a preset's name or a TOML file")
    parser.add_argument("--until", type=float, required=True, help="when to be done, seconds since 1970")
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    device = resolve_device(arguments.device)
    config = recipe(arguments.recipe)
    config = config.replace(precision=resolve_precision(config.precision, device))
    images = open_image_set(arguments.images)
    per_epoch = seconds_per_epoch(config, images.train, device)
    print(f"{per_epoch:.3f} s an epoch on {device}", file=sys.stderr)
    print(fitting_epochs(config, per_epoch, arguments.until - time.time() - START))


if __name__ == "__main__":
    main()
