"""Flip, padded crop and cutout."""

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
    count = len(images)
    shift = mirrored = None
    if padding:
        shift = torch.randint(-padding, padding + 1, (2, count), generator=generator)
    if flip:
        mirrored = torch.rand(count, generator=generator) < 0.5
    return shift_mirror(images, shift, mirrored)


def shift_mirror(
    images: torch.Tensor, shift: torch.Tensor | None, mirrored: torch.Tensor | None
) -> torch.Tensor:
    """Shift the window of every image and mirror what it shows; outside are zeros.

    Parameters
    ----------
    images
        ``[n, C, H, W]`` of any type.
    shift
        Where each image's window starts, pixels down and to the right, ``[2, n]`` whole numbers.
    mirrored
        Which images are mirrored, ``[n]`` bool.
    """
    count, _, height, width = images.shape
    device = images.device
    rows = torch.arange(height, device=device).expand(count, height)
    columns = torch.arange(width, device=device).expand(count, width)
    if shift is not None:
        offset = shift.to(device)[:, :, None]
        rows, columns = rows + offset[0], columns + offset[1]
    if mirrored is not None:
        columns = torch.where(mirrored.to(device)[:, None], columns.flip(1), columns)
    batch = torch.arange(count, device=device)[:, None, None]
    pixels = images.permute(0, 2, 3, 1)
    if shift is None:
        return pixels[batch, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
    inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None]
    rows, columns = rows.clamp(0, height - 1), columns.clamp(0, width - 1)
    moved = pixels[batch, rows[:, :, None], columns[:, None, :]] * inside[..., None].to(images.dtype)
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
    top = torch.randint(0, height, (count,), generator=generator)
    left = torch.randint(0, width, (count,), generator=generator)
    return blank_squares(images, torch.stack([top, left]), size, fill)


def blank_squares(images: torch.Tensor, centre: torch.Tensor, size: int, fill: float = 0.0) -> torch.Tensor:
    """Blank the square of `size` pixels around each image's centre, ``[2, n]`` rows and columns."""
    corner = centre.to(images.device)[:, :, None] - size // 2
    y = torch.arange(images.shape[2], device=images.device)
    x = torch.arange(images.shape[3], device=images.device)
    rows = (y >= corner[0]) & (y < corner[0] + size)
    columns = (x >= corner[1]) & (x < corner[1] + size)
    return images.masked_fill((rows[:, :, None] & columns[:, None, :])[:, None], fill)
