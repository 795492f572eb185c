"""Flip, padded crop, cutout and mixup."""

from __future__ import annotations

import torch


def crop_flip(
    images: torch.Tensor, generator: torch.Generator, padding: int = 0, flip: bool = False
) -> torch.Tensor:
    """Shift every image by up to `padding` pixels in each direction, and mirror every other one.

    Both are one gather of pixels, so the values stay as they are. What a shift leaves empty is
    filled with zeros.

    Parameters
    ----------
    images
        ``[n, C, H, W]`` of any type.
    generator
        Source of the offsets and the coin of each image.
    padding
        Largest shift, pixels; 0 is no crop.
    flip
        Mirror left and right with probability one half.
    """
    count, _, height, width = images.shape
    device = images.device
    rows = torch.arange(height, device=device).expand(count, height)
    columns = torch.arange(width, device=device).expand(count, width)
    if padding:
        shift = torch.randint(-padding, padding + 1, (2, count, 1), generator=generator).to(device)
        rows, columns = rows + shift[0], columns + shift[1]
    if flip:
        mirrored = torch.rand(count, 1, generator=generator).to(device) < 0.5
        columns = torch.where(mirrored, columns.flip(1), columns)
    pixels = images.permute(0, 2, 3, 1)
    if padding:
        inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None]
        rows, columns = rows.clamp(0, height - 1), columns.clamp(0, width - 1)
    batch = torch.arange(count, device=device)[:, None, None]
    moved = pixels[batch, rows[:, :, None], columns[:, None, :]]
    if padding:
        moved = moved * inside[..., None].to(moved.dtype)
    return moved.permute(0, 3, 1, 2)


def cutout(images: torch.Tensor, generator: torch.Generator, size: int, fill: float = 0.0) -> torch.Tensor:
    """Blank one square per image, centred on any pixel (DeVries & Taylor, arXiv 1708.04552).

    Parameters
    ----------
    images
        ``[n, C, H, W]``; after normalisation the default fill is the mean colour.
    generator
        Source of the centres.
    size
        Side of the square, pixels. It may reach over the border.
    fill
        The value that blanks.
    """
    count, _, height, width = images.shape
    device = images.device
    top = torch.randint(0, height, (count, 1), generator=generator).to(device) - size // 2
    left = torch.randint(0, width, (count, 1), generator=generator).to(device) - size // 2
    y, x = torch.arange(height, device=device), torch.arange(width, device=device)
    rows = (y >= top) & (y < top + size)
    columns = (x >= left) & (x < left + size)
    return images.masked_fill((rows[:, :, None] & columns[:, None, :])[:, None], fill)


def mixup(
    images: torch.Tensor, targets: torch.Tensor, weight: float, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Blend every image and its target with another of the batch (Zhang et al., ICLR 2018).

    Parameters
    ----------
    images
        ``[n, C, H, W]`` float.
    targets
        Class weights ``[n, K]`` that sum to one.
    weight
        Share of the image itself, one draw of Beta(alpha, alpha) for the batch.
    generator
        Source of the pairing.
    """
    partner = torch.randperm(len(images), generator=generator).to(images.device)
    return images.lerp(images[partner], 1 - weight), targets.lerp(targets[partner], 1 - weight)
