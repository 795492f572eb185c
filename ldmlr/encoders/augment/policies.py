"""AutoAugment and RandAugment on whole batches, every image with operations of its own.

Per slot of a policy the images are grouped by operation: all geometric ones share one
sampling pass, and each colour operation runs once on its images. No library served: those
that need no torchvision binary draw one policy for a whole batch, and from torch's global
generator, so that a resumed run would differ.

Strengths are fractions 0 .. 1 of the ranges of Cubuk et al. (AutoAugment, CVPR 2019, table 6):
shear 0.3, translation 150/331 of the side, rotation 30 degrees, blending 1 -+ 0.9, posterize
down to 4 bits, solarize from 256 down to 0. At 0 every operation with a strength is the identity.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from ldmlr.encoders.augment import colour, geometry

_SIGNED_COLOUR: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "brightness": colour.brightness,
    "color": colour.colour,
    "contrast": colour.contrast,
    "sharpness": colour.sharpness,
}
_PLAIN: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "autocontrast": colour.autocontrast,
    "equalize": colour.equalize,
    "invert": colour.invert,
}
_GEOMETRIC = ("shear-x", "shear-y", "translate-x", "translate-y", "rotate")
OPERATIONS = ("identity", *_GEOMETRIC, *_SIGNED_COLOUR, "posterize", "solarize", *_PLAIN)
# RandAugment's fourteen (Cubuk et al., NeurIPS 2020): all but invert.
_RANDAUGMENT = torch.tensor([OPERATIONS.index(name) for name in OPERATIONS if name != "invert"])

# The 25 sub-policies found on CIFAR-10 (Cubuk et al., CVPR 2019, table 7): twice an operation, its
# probability and its level 0 .. 9.
Entry = tuple[str, float, int]
CIFAR_POLICY: tuple[tuple[Entry, Entry], ...] = (
    (("invert", 0.1, 7), ("contrast", 0.2, 6)),
    (("rotate", 0.7, 2), ("translate-x", 0.3, 9)),
    (("sharpness", 0.8, 1), ("sharpness", 0.9, 3)),
    (("shear-y", 0.5, 8), ("translate-y", 0.7, 9)),
    (("autocontrast", 0.5, 8), ("equalize", 0.9, 2)),
    (("shear-y", 0.2, 7), ("posterize", 0.3, 7)),
    (("color", 0.4, 3), ("brightness", 0.6, 7)),
    (("sharpness", 0.3, 9), ("brightness", 0.7, 9)),
    (("equalize", 0.6, 5), ("equalize", 0.5, 1)),
    (("contrast", 0.6, 7), ("sharpness", 0.6, 5)),
    (("color", 0.7, 7), ("translate-x", 0.5, 8)),
    (("equalize", 0.3, 7), ("autocontrast", 0.4, 8)),
    (("translate-y", 0.4, 3), ("sharpness", 0.2, 6)),
    (("brightness", 0.9, 6), ("color", 0.2, 8)),
    (("solarize", 0.5, 2), ("invert", 0.0, 3)),
    (("equalize", 0.2, 0), ("autocontrast", 0.6, 0)),
    (("equalize", 0.2, 8), ("equalize", 0.6, 4)),
    (("color", 0.9, 9), ("equalize", 0.6, 6)),
    (("autocontrast", 0.8, 4), ("solarize", 0.2, 8)),
    (("brightness", 0.1, 3), ("color", 0.7, 0)),
    (("solarize", 0.4, 5), ("autocontrast", 0.9, 3)),
    (("translate-y", 0.9, 9), ("translate-y", 0.7, 9)),
    (("autocontrast", 0.9, 2), ("solarize", 0.8, 3)),
    (("equalize", 0.8, 8), ("invert", 0.1, 3)),
    (("translate-y", 0.7, 9), ("autocontrast", 0.9, 1)),
)
_OPERATION = torch.tensor([[OPERATIONS.index(entry[0]) for entry in pair] for pair in CIFAR_POLICY])
_PROBABILITY = torch.tensor([[entry[1] for entry in pair] for pair in CIFAR_POLICY])
_FRACTION = torch.tensor([[entry[2] / 9 for entry in pair] for pair in CIFAR_POLICY])


def autoaugment(images: torch.Tensor, generator: torch.Generator, fill: torch.Tensor) -> torch.Tensor:
    """Apply a random sub-policy of the CIFAR policy to each image.

    Parameters
    ----------
    images
        ``[n, C, H, W]`` float in 0 .. 255.
    generator
        Source of the sub-policies, coins and signs.
    fill
        The colour outside a moved image, ``[C]``.
    """
    count = len(images)
    chosen = torch.randint(0, len(CIFAR_POLICY), (count,), generator=generator)
    coins, signs = _coins(count, 2, generator)
    for slot in range(2):
        operation = torch.where(coins[slot] < _PROBABILITY[chosen, slot], _OPERATION[chosen, slot], 0)
        images = apply(images, operation, _FRACTION[chosen, slot], signs[slot], fill)
    return images


def randaugment(
    images: torch.Tensor, generator: torch.Generator, fill: torch.Tensor, count: int = 2, magnitude: int = 9
) -> torch.Tensor:
    """Apply `count` random operations to each image, at strength ``magnitude / 30``.

    Parameters
    ----------
    images, generator, fill
        As for `autoaugment`.
    count
        Operations per image.
    magnitude
        0 to 30.
    """
    fraction = torch.full((len(images),), magnitude / 30)
    for _ in range(count):
        drawn = torch.randint(0, len(_RANDAUGMENT), (len(images),), generator=generator)
        _, signs = _coins(len(images), 1, generator)
        images = apply(images, _RANDAUGMENT[drawn], fraction, signs[0], fill)
    return images


def apply(
    images: torch.Tensor,
    operation: torch.Tensor,
    fraction: torch.Tensor,
    sign: torch.Tensor,
    fill: torch.Tensor,
) -> torch.Tensor:
    """Apply one operation to each image.

    Parameters
    ----------
    images
        ``[n, C, H, W]`` float in 0 .. 255; not changed.
    operation
        Index into `OPERATIONS` of each image, ``[n]``.
    fraction
        Strength 0 .. 1, ``[n]``.
    sign
        Direction of the operations that have two, +1 or -1, ``[n]``.
    fill
        The colour outside a moved image, ``[C]``.
    """
    result = images.clone()
    signed = sign * fraction
    last_geometric = len(_GEOMETRIC)
    moved = torch.nonzero((operation >= 1) & (operation <= last_geometric)).flatten()
    if len(moved):
        matrices = _matrices(operation[moved], signed[moved], images.shape[2], images.shape[3])
        rows = moved.to(images.device)
        # Whole values again: warping is relative to the fill, and posterize counts on exact steps.
        result[rows] = geometry.warp(images[rows], matrices, fill=fill, nearest=True).round()
    for index in torch.unique(operation[operation > last_geometric]).tolist():
        name, chosen = OPERATIONS[index], torch.nonzero(operation == index).flatten()
        rows = chosen.to(images.device)
        part = images[rows]
        if name in _SIGNED_COLOUR:
            part = _SIGNED_COLOUR[name](part, 1 + 0.9 * signed[chosen])
        elif name == "posterize":
            part = colour.posterize(part, 8 - torch.round(4 * fraction[chosen]))
        elif name == "solarize":
            part = colour.solarize(part, 256 * (1 - fraction[chosen]))
        else:
            part = _PLAIN[name](part)
        result[rows] = part
    return result


def _matrices(operation: torch.Tensor, signed: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Return the matrix of each geometric operation, ``[n, 2, 3]``."""
    zero, reach = torch.zeros(len(operation)), 150 / 331 * signed
    chosen = {name: operation == OPERATIONS.index(name) for name in _GEOMETRIC}
    angle = torch.where(chosen["rotate"], 30 * signed, zero)
    matrices = geometry.similarity(angle, zero + 1, torch.zeros(len(operation), 2))
    # The top edge stays in a shear: its origin is the corner, as in Pillow.
    across = torch.where(chosen["shear-x"], 0.3 * signed, zero)
    down = torch.where(chosen["shear-y"], 0.3 * signed, zero)
    matrices[:, 0, 1] += across
    matrices[:, 1, 0] += down
    matrices[:, 0, 2] += across * height / 2
    matrices[:, 1, 2] += down * width / 2
    matrices[:, 0, 2] += torch.where(chosen["translate-x"], torch.round(reach * width), zero)
    matrices[:, 1, 2] += torch.where(chosen["translate-y"], torch.round(reach * height), zero)
    return matrices


def _coins(count: int, slots: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Return uniform draws and signs, each ``[slots, n]``."""
    coins = torch.rand(slots, count, generator=generator)
    signs = torch.where(torch.rand(slots, count, generator=generator) < 0.5, 1.0, -1.0)
    return coins, signs
