"""Mixup and CutMix: batches whose images are blends of two, and targets that say so.

With one view per image a batch is mixed by mixup or by CutMix; where both are on, a coin decides for each
batch. With two views (consistency, contrast), the first is mixed by mixup and the second by CutMix, with
the same partners and the same share: both then show the same two images in the same proportion, once
blended everywhere and once side by side.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from ldmlr.encoders.config import BaselineConfig

Mixed = tuple[torch.Tensor, torch.Tensor]


def mixup(images: torch.Tensor, targets: torch.Tensor, weight: float, partner: torch.Tensor) -> Mixed:
    """Blend every image and its target with its partner's (Zhang et al., ICLR 2018).

    Parameters
    ----------
    images
        ``[n, C, H, W]`` float.
    targets
        Class weights ``[n, K]`` that sum to one.
    weight
        Share of the image itself.
    partner
        Row of each image's partner, ``[n]``.
    """
    return images.lerp(images[partner], 1 - weight), targets.lerp(targets[partner], 1 - weight)


def cutmix(
    images: torch.Tensor,
    targets: torch.Tensor,
    weight: float,
    partner: torch.Tensor,
    centre: tuple[int, int],
) -> Mixed:
    """Paste a box of each image's partner over it (Yun et al., ICCV 2019).

    The targets are mixed in the proportion of the pixels, also where the border cuts the box.

    Parameters
    ----------
    images, targets, partner
        As for `mixup`; the images are not changed.
    weight
        Share of the image itself before the border cuts the box.
    centre
        Row and column of the box's centre, the same for the whole batch.
    """
    height, width = images.shape[2:]
    top, bottom, left, right = box(height, width, weight, centre)
    pasted = images.clone()
    pasted[:, :, top:bottom, left:right] = images[partner, :, top:bottom, left:right]
    share = (bottom - top) * (right - left) / (height * width)
    return pasted, targets.lerp(targets[partner], share)


def box(height: int, width: int, weight: float, centre: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return top, bottom, left and right of the box that CutMix pastes (ends exclusive).

    Its sides are ``sqrt(1 - weight)`` of the image's, so that the pasted share is ``1 - weight`` where it
    lies inside.
    """
    side = math.sqrt(1 - weight)
    edges = []
    for length, middle in ((height, centre[0]), (width, centre[1])):
        size = round(side * length)
        first = middle - size // 2
        edges += [max(first, 0), min(first + size, length)]
    return edges[0], edges[1], edges[2], edges[3]


class Mixing:
    """Mixes the views of a batch as a configuration says.

    Parameters
    ----------
    config
        The alphas of mixup and CutMix (0 is off).
    """

    def __init__(self, config: BaselineConfig) -> None:
        self.mixup, self.cutmix = config.mixup, config.cutmix
        self.share = config.cutmix_share

    def __call__(
        self,
        views: Sequence[torch.Tensor],
        targets: torch.Tensor,
        draw: np.random.Generator,
        pairing: torch.Generator,
    ) -> list[Mixed]:
        """Return the mixed images and targets of each view.

        Parameters
        ----------
        views
            One or two augmented versions of the same images, ``[n, C, H, W]`` float.
        targets
            Class weights ``[n, K]`` that sum to one.
        draw
            Source of the shares, boxes and coins.
        pairing
            Source of the partners.
        """
        if not (self.mixup or self.cutmix):
            return [(images, targets) for images in views]
        if len(views) == 1:
            return [self._mix(views[0], targets, self._choose(draw), draw, pairing)]
        alpha = self.mixup or self.cutmix
        weight = draw.beta(alpha, alpha)
        partner = _partners(views[0], pairing)
        first: Mixed = (views[0], targets)
        second: Mixed = (views[1], targets)
        if self.mixup:
            first = mixup(views[0], targets, weight, partner)
        if self.cutmix:
            second = cutmix(views[1], targets, weight, partner, _centre(views[1], draw))
        return [first, second]

    def _choose(self, draw: np.random.Generator) -> bool:
        """Return whether CutMix is to mix this batch."""
        if self.mixup and self.cutmix:
            return bool(draw.random() < self.share)
        return self.cutmix > 0

    def _mix(
        self,
        images: torch.Tensor,
        targets: torch.Tensor,
        cut: bool,
        draw: np.random.Generator,
        pairing: torch.Generator,
    ) -> Mixed:
        alpha = self.cutmix if cut else self.mixup
        weight = draw.beta(alpha, alpha)
        partner = _partners(images, pairing)
        if cut:
            return cutmix(images, targets, weight, partner, _centre(images, draw))
        return mixup(images, targets, weight, partner)


def _partners(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    # Without waiting: the order is on its way before the copy returns, and the GPU need not have caught up.
    return torch.randperm(len(images), generator=generator).to(images.device, non_blocking=True)


def _centre(images: torch.Tensor, draw: np.random.Generator) -> tuple[int, int]:
    return int(draw.integers(images.shape[2])), int(draw.integers(images.shape[3]))
