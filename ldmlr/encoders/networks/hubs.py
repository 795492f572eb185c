"""Pretrained networks by name, from timm and OpenCLIP: ``timm:NAME`` and ``open_clip:NAME``.

Their weights come from the hub's cache (or the hub, where it can be reached), or from a file. What a network
wants of its images it says itself (`ldmlr.encoders.wanted`): timm's models by their configuration, those of
OpenCLIP by theirs, which is put where it is looked for.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ldmlr.errors import InputError, LdmlrError, UsageError, nearest, opt
from ldmlr.files import check_input

PACKAGES = {"timm": "timm", "open_clip": "open_clip_torch"}


def hub_of(model: str) -> str | None:
    """Return ``timm`` or ``open_clip`` for the name of such a model, else None."""
    prefix, _, name = model.partition(":")
    return prefix if prefix in PACKAGES and name else None


def hub_network(model: str, weights: Path | None = None) -> nn.Module:
    """Return the network that ``timm:NAME`` or ``open_clip:NAME`` names, without a head for classes.

    Parameters
    ----------
    model
        ``timm:NAME`` or ``open_clip:NAME``; the latter may name its weights as ``NAME/WEIGHTS``.
    weights
        A file of weights; None for those of the hub.

    Raises
    ------
    LdmlrError
        The package is not installed, or the weights are neither here nor to be had.
    UsageError, InputError
        There is no such model, or the file does not hold its weights.
    """
    hub, _, name = model.partition(":")
    try:
        package = importlib.import_module(hub)
    except ImportError as error:
        raise LdmlrError(
            f"MODEL: {model}: needs {hub}, which is not installed ({error}); run pip install {PACKAGES[hub]}"
        ) from None
    if weights is not None:
        check_input(weights, "weights file")
    names = list(package.list_models())
    plain = name.partition("/")[0] if hub == "open_clip" else name.partition(".")[0]
    if plain not in names and not name.startswith("hf"):
        raise UsageError(f"MODEL: {model}: {hub} has no such model; {nearest(plain, names)}")
    try:
        return _timm(package, name, weights) if hub == "timm" else _open_clip(package, name, weights)
    except LdmlrError:
        raise
    except Exception as error:
        first = " ".join(str(error).split())[:160] or type(error).__name__
        if weights is not None:
            wrong = f"does not hold the weights of {model} ({first}); name another"
            raise InputError(f"{weights}: {wrong}") from None
        raise LdmlrError(
            f"MODEL: {model}: its weights are not in the hub's cache and cannot be had ({first}); give a "
            f"file with {opt('weights')}"
        ) from None


def _timm(package: Any, name: str, weights: Path | None) -> nn.Module:
    found = package.create_model(name, pretrained=weights is None, num_classes=0)
    if not isinstance(found, nn.Module):
        raise TypeError(f"create_model returned {type(found).__name__}")
    if weights is not None:
        _load(found, _tensors(weights), left_out=("head.", "fc.", "classifier."))
    return found


class _Visual(nn.Module):
    """The image tower of a CLIP model, with what it wants of its images."""

    def __init__(self, tower: nn.Module, size: int, mean: Any, std: Any) -> None:
        super().__init__()
        self.tower = tower
        self.pretrained_cfg = {"input_size": (3, size, size), "crop_pct": 1.0, "mean": mean, "std": std}

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the features ``[n, D]`` of images; of towers that return several things, the first."""
        found = self.tower(images)
        features: torch.Tensor = found[0] if isinstance(found, tuple) else found
        return features


def _open_clip(package: Any, name: str, weights: Path | None) -> nn.Module:
    plain, _, tag = name.partition("/")
    source = str(weights) if weights is not None else tag
    if not source:
        tags = list(package.list_pretrained_tags_by_model(plain))
        if not tags:
            raise ValueError("it has no pretrained weights")
        source = tags[0]
    tower = package.create_model(plain, pretrained=source).visual
    size = tower.image_size[0] if isinstance(tower.image_size, tuple | list) else tower.image_size
    mean = getattr(tower, "image_mean", None) or package.OPENAI_DATASET_MEAN
    std = getattr(tower, "image_std", None) or package.OPENAI_DATASET_STD
    return _Visual(tower, int(size), tuple(mean), tuple(std))


def _tensors(weights: Path) -> dict[str, torch.Tensor]:
    """Read a file of weights: safetensors, or a dictionary of torch.save; nothing in it is run."""
    if weights.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(weights)
    loaded = torch.load(weights, map_location="cpu", weights_only=True)
    for key in ("state_dict", "model", "state_dict_ema"):
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
    return {name.removeprefix("module."): value for name, value in loaded.items()}


def _load(network: nn.Module, tensors: dict[str, torch.Tensor], left_out: tuple[str, ...]) -> None:
    """Load weights into a network; those of the head, which it does without, may be among them."""
    wanted = network.state_dict()
    missing = [name for name in wanted if name not in tensors]
    if missing:
        raise ValueError(f"it lacks {missing[0]}" + (f" and {len(missing) - 1} more" if missing[1:] else ""))
    extra = [name for name in tensors if name not in wanted and not name.startswith(left_out)]
    if extra:
        raise ValueError(f"it has {extra[0]}, which the network lacks")
    network.load_state_dict({name: tensors[name] for name in wanted})
