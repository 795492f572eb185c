"""What encodes images: a baseline, a module by import path, or an exported program."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ldmlr.data.imageset import ImageSet
from ldmlr.encoders.augment.augmentation import Normalise
from ldmlr.encoders.config import EncodeConfig
from ldmlr.encoders.model import Baseline, file_hash, model_path
from ldmlr.encoders.networks.custom import call_factory, check_encoder, load_exported, set_training
from ldmlr.encoders.networks.hubs import hub_network, hub_of
from ldmlr.encoders.pixels import common_shape
from ldmlr.encoders.wanted import normalisation
from ldmlr.errors import InputError, UsageError, opt
from ldmlr.heads.modules import Head
from ldmlr.otherfile import TORCH_SAVE, TORCHSCRIPT, other_file
from ldmlr.remote import as_path, is_remote
from ldmlr.torch_defaults import torch_defaults


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
        The baseline's head; None for an encoder from elsewhere, and for a baseline of other classes.
    flip
        Whether mirrored images are natural to it.
    provenance
        Plain data for the store: model, its hash, configuration, normalisation.
    baseline
        The baseline it came from, or None.
    mirror
        Average the features of each image with those of its mirror image.
    normalised
        How pixels are normalised, in words; None for a baseline, which knows its own.
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
    normalised: str | None = None

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


def foreign_network(model: str, seed: int = 0, weights: Path | None = None) -> nn.Module | None:
    """Return the network of a name or an import path, before there are images for it; None for other models.

    Parameters
    ----------
    model
        As for `open_encoder`.
    seed
        Seeds the weights that a factory draws, if it draws any.
    weights
        A file of weights for a network of timm or OpenCLIP.
    """
    if hub_of(model) is not None:
        return hub_network(model, weights)
    if weights is not None:
        raise UsageError(f"{opt('weights')}: goes with timm:NAME or open_clip:NAME, not with {model}")
    if not _is_import_path(model):
        return None
    # CUDA's state only where it is in use: to save it would begin its use.
    in_use = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    devices = range(torch.cuda.device_count()) if in_use else ()
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        return call_factory(model, "MODEL")


def _is_import_path(model: str) -> bool:
    path = as_path(model)
    return ":" in model and not is_remote(path) and not path.exists() and path.suffix != ".pt2"


@torch_defaults()
def open_encoder(
    model: str,
    images: ImageSet,
    config: EncodeConfig,
    *,
    seed: int = 0,
    network: nn.Module | None = None,
) -> Encoder:
    """Return the encoder that `model` names, checked against an image set.

    Parameters
    ----------
    model
        A baseline's file or folder, a program of `torch.export` (``.pt2``), ``timm:NAME``,
        ``open_clip:NAME``, or ``package.module:factory`` for a pretrained network.
    images
        The images to be encoded.
    config
        The normalisation for encoders that are no baseline (by default what the network says of itself, see
        `ldmlr.encoders.wanted`, else ImageNet's for colour images, else 127.5 and 127.5).
    seed
        Seeds the weights that a factory draws, if it draws any.
    network
        The `foreign_network` of `model`, where the caller has it already.

    Raises
    ------
    UsageError, InputError
        It is not there or damaged, or does not fit the images, or mirror images are foreign to it.
    """
    encoder = _open(model, images, config, seed, network)
    check_mirror(config, encoder.flip, model)
    return dataclasses.replace(encoder, mirror=config.mirror)


def check_mirror(config: EncodeConfig, flip: bool, name: str) -> None:
    """Refuse to average over mirror images where the encoder `name` is trained without them."""
    if config.mirror and not flip:
        raise UsageError(
            f"{opt('mirror')}: {name} is not trained on mirrored images and would misread them; leave the "
            f"option out, or train with {opt('augment', 'flip')}"
        )


def _open(
    model: str, images: ImageSet, config: EncodeConfig, seed: int, network: nn.Module | None
) -> Encoder:
    shape = common_shape(images)
    foreign = as_path(model).suffix in (".pt2", ".py") or _is_import_path(model)
    if foreign and config.network is not None:
        raise UsageError(f"{opt('network')}: {model} is no baseline, and brings its own; leave it out")
    if as_path(model).suffix == ".pt2":
        path = model_path(as_path(model))
        network, dim = load_exported(path, shape)
        provenance = {"model": str(path), "model_sha256": file_hash(path)}
        return _foreign(network, dim, f"exported program {path.name}", provenance, shape, config)
    network = network if network is not None else foreign_network(model, seed, config.weights)
    if network is not None:
        dim = check_encoder(network, shape, f"MODEL: {model}")
        return _foreign(network, dim, model, {"network": model}, shape, config)
    if not as_path(model).exists():
        raise InputError(
            f"{model}: no such model; give what ldmlr baseline wrote, or a network: timm:NAME, "
            "open_clip:NAME, package.module:FUNCTION or FILE.py:FUNCTION"
        )
    path = model_path(as_path(model))
    _check_baseline(path)
    if config.mean:
        raise UsageError(f"{opt('mean')}, {opt('std')}: {path} brings its own normalisation; leave them out")
    baseline = Baseline.load(path, (config.network,))
    if config.network not in (None, baseline.name):
        raise UsageError(f"{opt('network')}: {path} has the network {baseline.name}; leave it out")
    return _of_baseline(baseline, path, images)


def _check_baseline(path: Path) -> None:
    """Refuse files that hold a network, or a part of one, and say how it can be named."""
    named = "name a function that returns it, FILE.py:FUNCTION"
    if path.suffix == ".py":
        raise UsageError(f"MODEL: {path}: is code; name its function as well, {path}:FUNCTION")
    remedy = {
        TORCHSCRIPT: f"{named} (with torch.jit.load), or write it by torch.export.save (.pt2)",
        TORCH_SAVE: f"{named}, with these weights loaded",
    }.get(other := other_file(path) or "")
    if remedy is not None:
        raise InputError(f"{path}: is {other}, not a baseline; {remedy}")


def _of_baseline(baseline: Baseline, path: Path, images: ImageSet) -> Encoder:
    baseline.check_shape(str(path), images)
    own = baseline.class_names == images.class_names
    provenance = {
        "model": str(path), "model_sha256": file_hash(path), "network": baseline.name,
        "mean": baseline.mean, "std": baseline.std, "baseline": baseline.config,
        "trained_on": baseline.provenance,
    }  # fmt: skip
    return Encoder(
        baseline.network, baseline.dim, baseline.mean, baseline.std, baseline.name,
        baseline.head if own else None,
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
    found = normalisation(network, name, shape[2], config.mean, config.std)
    set_training(network, False)
    provenance = {
        **provenance, "mean": found.mean, "std": found.std, "normalisation": found.origin,
    }  # fmt: skip
    if config.weights is not None:
        provenance["weights_sha256"] = file_hash(config.weights)
    return Encoder(
        network, dim, found.mean, found.std, name, None, True, provenance, normalised=found.words()
    )
