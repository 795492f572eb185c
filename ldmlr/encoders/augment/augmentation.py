"""The augmentation of a training batch, from uint8 pixels to the network's input."""

from __future__ import annotations

import torch

from ldmlr.encoders.augment.crop import crop_flip, cutout
from ldmlr.encoders.augment.geometry import resized_crop
from ldmlr.encoders.augment.policies import autoaugment, randaugment
from ldmlr.encoders.config import BaselineConfig


class Augmentation:
    """Augments and normalises batches as a configuration says.

    The order is crop (or resized crop), flip, AutoAugment, RandAugment, normalisation, cutout.

    Parameters
    ----------
    config
        Which augmentations, and their sizes.
    mean, std
        Per channel, of values 0 .. 255.
    """

    def __init__(self, config: BaselineConfig, mean: list[float], std: list[float]) -> None:
        self.config, self.names = config, config.augment
        self.mean = torch.tensor(mean)
        self.normalise = Normalise(mean, std)

    def __call__(self, pixels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Return float32 images ``[n, C, H, W]`` of uint8 pixels ``[n, C, H, W]``."""
        config, names = self.config, self.names
        if "resized-crop" in names:
            pixels = resized_crop(pixels.float(), generator)
        padding = config.crop_padding if "crop" in names else 0
        if padding or "flip" in names:
            pixels = crop_flip(pixels, generator, padding, flip="flip" in names)
        if "autoaugment" in names:
            pixels = autoaugment(pixels.float(), generator, self.mean)
        if "randaugment" in names:
            pixels = randaugment(
                pixels.float(), generator, self.mean, config.randaugment_ops, config.randaugment_magnitude
            )
        images = self.normalise(pixels)
        if "cutout" in names:
            images = cutout(images, generator, config.cutout_size)
        return images


class Normalise:
    """Maps pixels 0 .. 255 to zero mean and unit deviation per channel.

    Parameters
    ----------
    mean, std
        Per channel, of values 0 .. 255.
    """

    def __init__(self, mean: list[float], std: list[float]) -> None:
        self.scale = 1 / torch.tensor(std).view(1, -1, 1, 1)
        self.offset = -torch.tensor(mean).view(1, -1, 1, 1) * self.scale

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return float32 images of pixels of any type."""
        offset, scale = self.offset.to(pixels.device), self.scale.to(pixels.device)
        return torch.addcmul(offset, pixels.float(), scale)
