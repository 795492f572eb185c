"""Affine warps of a batch: every image by a matrix of its own, in one sampling pass.

A matrix ``[2, 3]`` maps a pixel of the result to the place in the source that it shows, in
pixels from the centre of the image, x to the right and y down.
"""

from __future__ import annotations

import math

import torch
from torch.nn import functional as F


def similarity(angle: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    """Return matrices that turn, enlarge and then move the content of an image.

    Parameters
    ----------
    angle
        Degrees, clockwise on the screen, ``[n]``.
    scale
        Enlargement, ``[n]``.
    shift
        Pixels to the right and down, ``[n, 2]``.
    """
    radians = angle * (math.pi / 180)
    cos, sin = torch.cos(radians) / scale, torch.sin(radians) / scale
    linear = torch.stack([cos, sin, -sin, cos], dim=1).view(-1, 2, 2)
    return torch.cat([linear, -linear @ shift[:, :, None]], dim=2)


def warp(
    images: torch.Tensor,
    matrices: torch.Tensor,
    *,
    fill: torch.Tensor | None = None,
    nearest: bool = False,
    border: bool = False,
) -> torch.Tensor:
    """Return warped images.

    Parameters
    ----------
    images
        ``[n, C, H, W]`` float.
    matrices
        ``[n, 2, 3]``, see above.
    fill
        The colour outside the source, ``[C]``; zeros by default.
    nearest
        Take the nearest pixel instead of blending four.
    border
        Repeat the border outside the source, instead of the fill.
    """
    height, width = images.shape[2:]
    matrices = matrices.to(images)
    # grid_sample counts in half widths and half heights of the image.
    half = matrices.new_tensor([width / 2, height / 2])
    linear = matrices[:, :, :2] * half / half[:, None]
    grid = F.affine_grid(
        torch.cat([linear, matrices[:, :, 2:] / half[:, None]], dim=2),
        list(images.shape),
        align_corners=False,
    )
    mode = "nearest" if nearest else "bilinear"
    if fill is None or border:
        outside = "border" if border else "zeros"
        return F.grid_sample(images, grid, mode=mode, padding_mode=outside, align_corners=False)
    colour = fill.to(images).view(1, -1, 1, 1)
    return F.grid_sample(images - colour, grid, mode=mode, padding_mode="zeros", align_corners=False) + colour


def resized_crop(
    images: torch.Tensor,
    generator: torch.Generator,
    *,
    area: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> torch.Tensor:
    """Enlarge a random part of each image to the whole size (Szegedy et al., CVPR 2015).

    Parameters
    ----------
    images
        ``[n, C, H, W]`` float.
    generator
        Source of the parts.
    area
        Smallest and largest share of the image's area.
    ratio
        Smallest and largest width over height of the part, relative to the image's; log-uniform.
    """
    count, _, height, width = images.shape
    share, aspect, x, y = torch.rand(4, count, generator=generator)
    share = area[0] + (area[1] - area[0]) * share
    low, high = math.log(ratio[0]), math.log(ratio[1])
    stretch = torch.exp(0.5 * (low + (high - low) * aspect))
    across = (share.sqrt() * stretch).clamp(max=1.0)
    down = (share.sqrt() / stretch).clamp(max=1.0)
    zero = torch.zeros(count)
    matrices = torch.stack(
        [
            across, zero, (2 * x - 1) * (1 - across) * width / 2,
            zero, down, (2 * y - 1) * (1 - down) * height / 2,
        ],
        dim=1,
    )  # fmt: skip
    return warp(images, matrices.view(-1, 2, 3), border=True)
