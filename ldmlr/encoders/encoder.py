"""What encodes images: a baseline, a module by import path, or an exported program."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ldmlr.data.imageset import ImageSet
from ldmlr.encoders.augment.augmentation import Normalise
from ldmlr.encoders.config import EncodeConfig
from ldmlr.encoders.model import Baseline, file_hash, model_path
from ldmlr.encoders.networks.custom import custom_network, load_exported
from ldmlr.encoders.pixels import common_shape
from ldmlr.errors import UsageError, opt
from ldmlr.heads.modules import Head
from ldmlr.torch_defaults import torch_defaults

# Pixel statistics that networks trained on ImageNet expect, of values 0 .. 255.
IMAGENET_MEAN = [123.675, 116.28, 103.53]
IMAGENET_STD = [58.395, 57.12, 57.375]


@dataclasses.dataclass
class Encoder:
    """A network in evaluation mode with its normalisation, and its head if it has one.

    Parameters
    ----------
    network
        Maps normalised images to features ``[n, dim]``.
    dim
        Feature dimensions D.
    mean, std
        Per channel, of pixels 0 .. 255.
    name
        In words, for the store.
    head
        The baseline's head; None for an encoder from elsewhere.
    flip
        Whether mirrored images are natural to it.
    provenance
        Plain data for the store: model, its hash, configuration, normalisation.
    baseline
        The baseline it came from, or None.
    mirror
        Average the features of each image with those of its mirror image.
    """

    network: nn.Module
    dim: int
    mean: list[float]
    std: list[float]
    name: str
    head: Head | None
    flip: bool
    provenance: dict[str, Any]
    baseline: Baseline | None = None
    mirror: bool = False

    def __post_init__(self) -> None:
        self.normalise = Normalise(self.mean, self.std)

    def to(self, device: torch.device) -> Encoder:
        """Move to a device."""
        self.network.to(device)
        if self.head is not None:
            self.head.to(device)
        return self

    @torch.no_grad()
    def features(self, images: torch.Tensor) -> torch.Tensor:
        """Return float32 features ``[n, dim]`` of normalised images ``[n, C, H, W]``."""
        features: torch.Tensor = self.network(images)
        if not self.mirror:
            return features.float()
        mirrored: torch.Tensor = self.network(images.flip(3))
        return (features.float() + mirrored.float()) / 2


@torch_defaults()
def open_encoder(model: str, images: ImageSet, config: EncodeConfig, *, seed: int = 0) -> Encoder:
    """Return the encoder that `model` names, checked against an image set.

    Parameters
    ----------
    model
        A baseline's file or folder, a program of `torch.export` (``.pt2``), or
        ``package.module:factory`` for a pretrained network.
    images
        The images to be encoded.
    config
        The normalisation for encoders that are no baseline (by default the module's attributes
        ``mean`` and ``std``, else ImageNet's for colour images, else 127.5 and 127.5).
    seed
        Seeds the weights that a factory draws, if it draws any.

    Raises
    ------
    UsageError, InputError
        It is not there or damaged, or does not fit the images, or mirror images are foreign to it.
    """
    encoder = _open(model, images, config, seed)
    check_mirror(config, encoder.flip, model)
    return dataclasses.replace(encoder, mirror=config.mirror)


def check_mirror(config: EncodeConfig, flip: bool, name: str) -> None:
    """Refuse to average over mirror images where the encoder `name` is trained without them."""
    if config.mirror and not flip:
        raise UsageError(
            f"{opt('mirror')}: {name} is not trained on mirrored images and would misread them; leave "
            "the option "
            f"out, or train with {opt('augment')} flip"
        )


def _open(model: str, images: ImageSet, config: EncodeConfig, seed: int) -> Encoder:
    shape = common_shape(images)
    foreign = Path(model).suffix in (".pt2", ".py") or (":" in model and not Path(model).exists())
    if foreign and config.network is not None:
        raise UsageError(f"{opt('network')}: {model} is no baseline, and brings its own; leave it out")
    if Path(model).suffix == ".pt2":
        path = model_path(Path(model))
        network, dim = load_exported(path, shape)
        provenance = {"model": str(path), "model_sha256": file_hash(path)}
        return _foreign(network, dim, f"exported program {path.name}", provenance, shape, config)
    if ":" in model and not Path(model).exists():
        # CUDA's state only where it is in use: to save it would begin its use.
        in_use = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
        devices = range(torch.cuda.device_count()) if in_use else ()
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(seed)
            network, dim = custom_network(model, shape, "MODEL")
        return _foreign(network, dim, model, {"network": model}, shape, config)
    path = model_path(Path(model))
    if config.mean:
        raise UsageError(f"{opt('mean')}, {opt('std')}: {path} brings its own normalisation; leave them out")
    baseline = Baseline.load(path, (config.network,))
    if config.network not in (None, baseline.name):
        raise UsageError(f"{opt('network')}: {path} has the network {baseline.name}; leave it out")
    return _of_baseline(baseline, path, images)


def _of_baseline(baseline: Baseline, path: Path, images: ImageSet) -> Encoder:
    baseline.check_images(str(path), images)
    provenance = {
        "model": str(path), "model_sha256": file_hash(path), "network": baseline.name,
        "mean": baseline.mean, "std": baseline.std, "baseline": baseline.config,
        "trained_on": baseline.provenance,
    }  # fmt: skip
    return Encoder(
        baseline.network, baseline.dim, baseline.mean, baseline.std, baseline.name, baseline.head,
        "flip" in baseline.config.get("augment", ()), provenance, baseline,
    )  # fmt: skip


def _foreign(
    network: nn.Module,
    dim: int,
    name: str,
    provenance: dict[str, Any],
    shape: tuple[int, int, int],
    config: EncodeConfig,
) -> Encoder:
    channels = shape[2]
    if config.mean:
        mean, std, origin = list(config.mean), list(config.std), "given"
    elif (own := _own_statistics(network, name, channels)) is not None:
        (mean, std), origin = own, "module"
    elif channels == 3:
        mean, std, origin = IMAGENET_MEAN, IMAGENET_STD, "imagenet"
    else:
        mean, std, origin = [127.5] * channels, [127.5] * channels, "centred"
    if len(mean) != channels:
        raise UsageError(
            f"{opt('mean')}, {opt('std')}: {len(mean)} values for images with {channels} channels"
        )
    # The module of an exported program refuses: it is what it was exported as.
    with contextlib.suppress(RuntimeError, NotImplementedError):
        network.eval()
    provenance = {**provenance, "mean": mean, "std": std, "normalisation": origin}
    return Encoder(network, dim, mean, std, name, None, True, provenance)


def _own_statistics(network: nn.Module, name: str, channels: int) -> tuple[list[float], list[float]] | None:
    """Return the attributes ``mean`` and ``std`` of a module; None unless both are there.

    None stands for an attribute that is not set, and a method is no statistic.
    """
    found: list[list[float]] = []
    for key in ("mean", "std"):
        value = getattr(network, key, None)
        if value is None or callable(value):
            return None
        try:
            numbers = torch.as_tensor(value, dtype=torch.float64).flatten()
        except (TypeError, ValueError, RuntimeError):
            numbers = torch.empty(0)
        low = 0.0 if key == "std" else -math.inf
        if len(numbers) != channels or not bool((numbers.isfinite() & (numbers > low)).all()):
            raise UsageError(
                f"MODEL: {name}: its attribute {key} is {_shown(value)}, expected {channels} numbers"
                f"{' above 0' if key == 'std' else ''}, one per channel; correct it, or give "
                f"{opt('mean')} and {opt('std')}"
            )
        found.append(numbers.tolist())
    return found[0], found[1]


def _shown(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:60]} ..."
