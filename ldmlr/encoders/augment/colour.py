"""Colour operations on a batch: ``[n, C, H, W]`` float in 0 .. 255, one strength per image.

They do what the operations of the same name in Pillow do, which AutoAugment and RandAugment
were searched with, without rounding in between (except where a histogram is taken).
"""

from __future__ import annotations

import torch
from torch.nn import functional as F


def _blend(images: torch.Tensor, other: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Return ``other + factor * (images - other)`` in 0 .. 255; factor ``[n]``, 1 is the identity."""
    return (other + factor.to(images).view(-1, 1, 1, 1) * (images - other)).clamp(0, 255)


def grey(images: torch.Tensor) -> torch.Tensor:
    """Return the luminance ``[n, 1, H, W]`` (ITU-R 601-2)."""
    if images.shape[1] != 3:
        return images.mean(1, keepdim=True)
    weights = images.new_tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    return (images * weights).sum(1, keepdim=True)


def brightness(images: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Blend with black."""
    return _blend(images, torch.zeros_like(images), factor)


def colour(images: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Blend with the grey image."""
    return _blend(images, grey(images).expand_as(images), factor)


def contrast(images: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Blend with the image's mean grey."""
    return _blend(images, grey(images).mean((2, 3), keepdim=True).expand_as(images), factor)


def sharpness(images: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Blend with a smoothed image (3x3, centre weight 5 of 13); the border stays as it is."""
    channels, height, width = images.shape[1:]
    if height < 3 or width < 3:
        return images
    kernel = images.new_full((3, 3), 1 / 13)
    kernel[1, 1] = 5 / 13
    smooth = images.clone()
    smooth[:, :, 1:-1, 1:-1] = F.conv2d(images, kernel.expand(channels, 1, 3, 3), groups=channels)
    return _blend(images, smooth, factor)


def posterize(images: torch.Tensor, bits: torch.Tensor) -> torch.Tensor:
    """Keep the highest `bits` bits of every value, ``[n]``."""
    step = torch.pow(2.0, 8 - bits.to(images)).view(-1, 1, 1, 1)
    return torch.where(step > 1, torch.floor(images / step) * step, images)


def solarize(images: torch.Tensor, threshold: torch.Tensor) -> torch.Tensor:
    """Invert values from the threshold ``[n]`` upwards."""
    return torch.where(images >= threshold.to(images).view(-1, 1, 1, 1), 255 - images, images)


def invert(images: torch.Tensor) -> torch.Tensor:
    """Invert every value."""
    return 255 - images


def autocontrast(images: torch.Tensor) -> torch.Tensor:
    """Stretch every channel to 0 .. 255; a channel of one value stays."""
    low, high = images.amin((2, 3), keepdim=True), images.amax((2, 3), keepdim=True)
    span = high - low
    return torch.where(span > 0, (images - low) * (255 / span.clamp_min(1e-6)), images).clamp(0, 255)


def equalize(images: torch.Tensor) -> torch.Tensor:
    """Make the histogram of every channel flat; a channel of one value stays."""
    count, channels, height, width = images.shape
    values = images.round().long().reshape(count * channels, height * width)
    histogram = torch.zeros(count * channels, 256, dtype=torch.long, device=images.device)
    histogram.scatter_add_(1, values, torch.ones_like(values))
    last = histogram.gather(1, values.amax(1, keepdim=True))
    step = (height * width - last) // 255
    below = histogram.cumsum(1) - histogram
    table = torch.where(
        step > 0, (below + step // 2) // step.clamp_min(1), torch.arange(256, device=images.device)
    )
    mapped = table.clamp(0, 255).gather(1, values)
    return mapped.view(count, channels, height, width).to(images.dtype)
