"""The batches of an epoch: images drawn, augmented and on the device.

On a GPU an operation on a batch of small images costs its launch, not its arithmetic, and AutoAugment alone
is a hundred of them. So there the images stay on the device, and those of many batches are augmented at
once. Every image is drawn for by itself either way; which draws it gets differs from the CPU's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from ldmlr.encoders.augment.augmentation import Augmentation
from ldmlr.encoders.pixels import Pixels, Rows

# What is augmented at once on a GPU, bytes of float32 pixels: all batches that fit, one at least.
AT_ONCE = 64 << 20

Batch = tuple[list[torch.Tensor], torch.Tensor]


class Batches:
    """Draws, augments and moves batches.

    Parameters
    ----------
    pixels
        The images.
    labels
        Class of each image, ``[N]``.
    num_classes
        Classes K.
    augment
        The augmentation.
    device
        Where to.
    at_once
        Augment as many batches at once as fit in so many bytes of float32 pixels; by default 64 MiB on a
        GPU, one batch on a CPU.
    """

    def __init__(
        self,
        pixels: Pixels,
        labels: npt.NDArray[np.int64],
        num_classes: int,
        augment: Augmentation,
        device: torch.device,
        at_once: int | None = None,
    ) -> None:
        self.pixels, self.augment, self.device = pixels, augment, device
        self.at_once = (AT_ONCE if device.type == "cuda" else 0) if at_once is None else at_once
        self.labels, self.num_classes = torch.from_numpy(labels).to(device), num_classes
        pixels.keep_on(device)

    def draw(self, plan: Sequence[Rows], views: int, generator: torch.Generator) -> Iterator[Batch]:
        """Yield the augmented views, ``[n, C, H, W]`` float32 each, and the targets ``[n, K]`` of each batch.

        Parameters
        ----------
        plan
            Rows of each batch.
        views
            Augmented versions of each image.
        generator
            Source of the augmentation's draws.
        """
        groups = self._groups(plan)
        merged = [np.concatenate(group) for group in groups]
        for group, (rows, pixels) in zip(groups, self.pixels.batches(merged), strict=True):
            pixels = pixels.to(self.device, non_blocking=True)
            labels = self.labels[torch.from_numpy(rows).to(self.device)]
            targets = F.one_hot(labels, self.num_classes).float()
            augmented = [self.augment(pixels, generator) for _ in range(views)]
            first = 0
            for batch in group:
                part = slice(first, first + len(batch))
                yield [images[part] for images in augmented], targets[part]
                first += len(batch)

    def _groups(self, plan: Sequence[Rows]) -> list[list[Rows]]:
        """Return the batches that are augmented together."""
        height, width, channels = self.pixels.shape
        largest = max(len(rows) for rows in plan) * height * width * channels * 4
        count = max(1, self.at_once // largest)
        return [list(plan[first : first + count]) for first in range(0, len(plan), count)]
