"""Encoder networks by name, by import path, or as an exported program.

An encoder is a module that maps images ``[n, C, H, W]`` float32 to features ``[n, D]``.
"""

from __future__ import annotations

from torch import nn

from ldmlr.encoders.config import NETWORKS
from ldmlr.encoders.networks.cifar import CifarResNet
from ldmlr.encoders.networks.custom import custom_network
from ldmlr.encoders.networks.imagenet import BasicBlock, Bottleneck, ResNet
from ldmlr.encoders.networks.small import SmallNet
from ldmlr.errors import UsageError, nearest, opt

# Channels of the first stage; the features have four times as many dimensions.
CIFAR_WIDTHS = {"resnet32": 16, "resnet32x2": 32, "resnet32x4": 64}


def build_network(
    name: str, shape: tuple[int, int, int], option: str = opt("network")
) -> tuple[nn.Module, int]:
    """Return a fresh network and the number of its feature dimensions.

    Parameters
    ----------
    name
        One of `NETWORKS`, or ``package.module:factory`` for a callable that returns a module.
    shape
        Height, width and channels of the images.
    option
        What the name was given as, for messages.

    Raises
    ------
    UsageError
        The name is unknown, or what it names is no encoder for such images.
    """
    if name.endswith(".pt2"):
        raise UsageError(f"{option}: {name} is an exported program and cannot be trained; encode with it")
    if ":" in name:
        return custom_network(name, shape, option)
    if name not in NETWORKS:
        hint = nearest(name, NETWORKS)
        raise UsageError(f"{option}: unknown network {name!r}; {hint} or give package.module:factory")
    channels = shape[2]
    if name in CIFAR_WIDTHS:
        cifar = CifarResNet(blocks=5, channels=channels, width=CIFAR_WIDTHS[name])
        return cifar, cifar.dim
    if name in ("resnet10", "resnet50"):
        basic = name == "resnet10"
        layers = (1, 1, 1, 1) if basic else (3, 4, 6, 3)
        resnet = ResNet(BasicBlock if basic else Bottleneck, layers, channels)
        return resnet, resnet.dim
    small = SmallNet(channels)
    return small, small.dim


def parameter_count(module: nn.Module) -> int:
    """Return the number of trained parameters of a module."""
    return sum(parameter.numel() for parameter in module.parameters())
