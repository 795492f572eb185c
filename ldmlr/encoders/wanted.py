"""What an encoder from elsewhere wants its images to be: normalisation, size and crop.

Networks say so in two ways: by attributes ``mean`` and ``std``, or by the dictionary ``pretrained_cfg`` (or
``default_cfg``) of timm's models, on the module or on one that it holds. Numbers come in two units: of pixels
0 .. 255 and of pixels 0 .. 1. Where no number is above 1 they are of the second kind, as no image
has 256 grey levels and a mean of half of one.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from ldmlr.errors import UsageError, counted, opt

# Pixel statistics that networks trained on ImageNet expect, of values 0 .. 255.
IMAGENET_MEAN = [123.675, 116.28, 103.53]
IMAGENET_STD = [58.395, 57.12, 57.375]

_CONFIGURATIONS = ("pretrained_cfg", "default_cfg")


@dataclasses.dataclass(frozen=True)
class Normalisation:
    """Mean and deviation per channel, of pixels 0 .. 255, and where they are from.

    Attributes
    ----------
    mean, std
        One number per channel.
    origin
        ``given``, ``module`` (its attributes), ``pretrained_cfg`` or ``default_cfg``, ``imagenet`` or
        ``centred``.
    unit
        Whether the numbers were of pixels 0 .. 1.
    """

    mean: list[float]
    std: list[float]
    origin: str
    unit: bool = False

    @classmethod
    def of(cls, mean: Sequence[float], std: Sequence[float], origin: str) -> Normalisation:
        """Return it from numbers of either unit."""
        if max(*map(abs, mean), *std) > 1:
            return cls(list(mean), list(std), origin)
        return cls([255 * value for value in mean], [255 * value for value in std], origin, unit=True)

    def words(self) -> str:
        """Return it in words."""
        names = {
            "given": "as given", "module": "its own mean and std", "imagenet": "those of ImageNet",
            "centred": "the middle of the range",
        }  # fmt: skip
        mean, std = ([f"{value:.6g}" for value in values] for values in (self.mean, self.std))
        unit = ", times 255 as they are of pixels 0 .. 1" if self.unit else ""
        return (
            f"pixels less {', '.join(mean)}, over {', '.join(std)} "
            f"({names.get(self.origin, f'its own {self.origin}')}{unit})"
        )


def normalisation(
    network: nn.Module, name: str, channels: int, mean: Sequence[float], std: Sequence[float]
) -> Normalisation:
    """Return how the images of an encoder are normalised.

    Parameters
    ----------
    network
        The encoder.
    name
        What it is called in messages.
    channels
        Of the images.
    mean, std
        What the user says; empty for what the network says, else that of ImageNet for three channels.

    Raises
    ------
    UsageError
        There is not one number per channel, or a deviation is not above 0.
    """
    if mean:
        if len(mean) != channels:
            raise UsageError(
                f"{opt('mean')}, {opt('std')}: {counted(len(mean), 'value')} for images with "
                f"{counted(channels, 'channel')}; give one for each, such as "
                f"{opt('mean', ','.join(['127.5'] * channels))}"
            )
        return Normalisation.of(mean, std, "given")
    attributes = {key: getattr(network, key, None) for key in ("mean", "std")}
    found = _numbers(attributes, name, "attribute ", channels)
    if found is not None:
        return Normalisation.of(*found, "module")
    origin, own = configuration(network)
    found = _numbers(own, name, f"{origin} ", channels)
    if found is not None:
        return Normalisation.of(*found, origin)
    if channels == 3:
        return Normalisation(IMAGENET_MEAN, IMAGENET_STD, "imagenet")
    return Normalisation([127.5] * channels, [127.5] * channels, "centred")


def configuration(network: nn.Module) -> tuple[str, Mapping[str, Any]]:
    """Return the name and the entries of the first configuration in a module; empty where there is none."""
    for module in network.modules():
        for key in _CONFIGURATIONS:
            found = getattr(module, key, None)
            if dataclasses.is_dataclass(found) and not isinstance(found, type):
                found = {field.name: getattr(found, field.name) for field in dataclasses.fields(found)}
            if isinstance(found, Mapping) and ("mean" in found or "input_size" in found):
                return key, found
    return "", {}


def wanted_size(network: nn.Module) -> tuple[int, float] | None:
    """Return the side of the images in pixels, and the share of the shorter side to crop.

    None where the network does not say, or wants images that are no squares.
    """
    _, found = configuration(network)
    size = found.get("input_size")
    if not isinstance(size, tuple | list) or len(size) != 3 or size[1] != size[2]:
        return None
    crop = found.get("crop_pct")
    return int(size[1]), float(crop) if isinstance(crop, int | float) and 0 < crop <= 1 else 1.0


def _numbers(
    values: Mapping[str, Any], name: str, where: str, channels: int
) -> tuple[list[float], list[float]] | None:
    """Return ``mean`` and ``std``; None unless both are there.

    None stands for an entry that is not set, and a method is no statistic.
    """
    found: list[list[float]] = []
    for key in ("mean", "std"):
        value = values.get(key)
        if value is None or callable(value):
            return None
        try:
            numbers = torch.as_tensor(value, dtype=torch.float64).flatten()
        except (TypeError, ValueError, RuntimeError):
            numbers = torch.empty(0)
        low = 0.0 if key == "std" else -math.inf
        if len(numbers) != channels or not bool((numbers.isfinite() & (numbers > low)).all()):
            raise UsageError(
                f"MODEL: {name}: its {where}{key} is {_shown(value)}, expected {counted(channels, 'number')}"
                f"{' above 0' if key == 'std' else ''}, one per channel; correct it, or give "
                f"{opt('mean')} and {opt('std')}"
            )
        found.append(numbers.tolist())
    return found[0], found[1]


def _shown(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:60]} ..."
