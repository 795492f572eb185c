"""A trained baseline: network, head and everything needed to encode images with it.

In its file (`ldmlr.modelfile`), the weights are the tensors ``network.*`` and ``head.*``; the header holds
the network's name, the image shape, mean and standard deviation of the pixels (0 .. 255), the head's kind,
the class names, the configuration and where the images came from.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ldmlr import modelfile
from ldmlr.data.imageset import ImageSet
from ldmlr.encoders.augment.augmentation import Normalise
from ldmlr.encoders.config import BaselineConfig
from ldmlr.encoders.networks import build_network
from ldmlr.encoders.pixels import common_shape
from ldmlr.errors import InputError, UsageError, counted, opt
from ldmlr.files import check_input
from ldmlr.heads.config import HEADS
from ldmlr.heads.modules import Head, make_head

FILENAME = "model.safetensors"

# What the header of a baseline's file holds.
HEADER = {
    "network": modelfile.TEXT,
    "shape": modelfile.many(modelfile.whole(1, 1 << 16), length=3),
    "mean": modelfile.many(modelfile.number()),
    "std": modelfile.many(modelfile.number(above=0)),
    "head": modelfile.choice(*HEADS),
    "dim": modelfile.whole(1),
    "class_names": modelfile.many(modelfile.TEXT),
    "config": modelfile.ANY,
    "provenance": modelfile.ANY,
}


@dataclasses.dataclass
class Baseline:
    """A baseline network with its head.

    Parameters
    ----------
    network
        Maps normalised images ``[n, C, H, W]`` to features ``[n, D]``.
    head
        Maps features to logits.
    name
        The network's name, as `build_network` takes it.
    shape
        Height, width and channels of the images.
    mean, std
        Per channel, of pixels 0 .. 255.
    class_names
        One per class.
    config
        The resolved training configuration.
    provenance
        Where the images came from, counts per class, seed.
    """

    network: nn.Module
    head: Head
    name: str
    shape: tuple[int, int, int]
    mean: list[float]
    std: list[float]
    class_names: tuple[str, ...]
    config: dict[str, Any]
    provenance: dict[str, Any]

    def __repr__(self) -> str:
        """Show the network, its images and its classes."""
        size = " x ".join(map(str, self.shape))
        return (
            f"Baseline({self.name}, images {size}, {counted(self.dim, 'dimension')}, "
            f"{counted(len(self.class_names), 'class')})"
        )

    @property
    def dim(self) -> int:
        """Feature dimensions D."""
        return self.head.dim

    @torch.no_grad()
    def features(self, pixels: torch.Tensor, device: torch.device) -> torch.Tensor:
        """Return float32 features ``[n, D]`` of uint8 pixels ``[n, C, H, W]``, in evaluation mode."""
        self.network.eval()
        images = Normalise(self.mean, self.std)(pixels.to(device))
        features: torch.Tensor = self.network(images)
        return features.float()

    def check_images(self, name: str, images: ImageSet) -> None:
        """Refuse images of another shape or of other classes than those of the training.

        Parameters
        ----------
        name
            What the message calls the baseline.
        images
            The images it is to look at.

        Raises
        ------
        InputError
            They differ; both are named.
        """
        self.check_shape(name, images)
        if len(self.class_names) != images.num_classes:
            raise InputError(
                f"{name}: was trained on {counted(len(self.class_names), 'class')}, but {images.name} has "
                f"{images.num_classes}; use the image set it was trained on"
            )
        if self.class_names != images.class_names:
            raise InputError(
                f"{name}: was trained on classes {_names(self.class_names)}, but {images.name} has "
                f"{_names(images.class_names)}; use the image set it was trained on"
            )

    def check_shape(self, name: str, images: ImageSet) -> None:
        """Refuse images of another shape than those of the training; parameters as of `check_images`."""
        shape = common_shape(images)
        if shape != self.shape:
            raise InputError(
                f"{name}: was trained on images {list(self.shape)}, but {images.name} has {list(shape)} "
                f"(height, width, channels); use {opt('image_size')} or another model"
            )

    def save(self, path: Path, overwrite: bool = False) -> None:
        """Write the model to its file, whole or not at all."""
        header = {
            "network": self.name, "shape": list(self.shape), "mean": self.mean, "std": self.std,
            "head": self.head.kind, "dim": self.dim, "class_names": list(self.class_names),
            "config": self.config, "provenance": self.provenance,
        }  # fmt: skip
        tensors = {
            f"{prefix}.{key}": value
            for prefix, module in (("network", self.network), ("head", self.head))
            for key, value in module.state_dict().items()
        }
        modelfile.write(path, modelfile.BASELINE, header, tensors, overwrite)

    @classmethod
    def load(cls, path: Path, code: Collection[str | None] = (), option: str = opt("network")) -> Baseline:
        """Read a model from its file, or from the folder that ``ldmlr baseline`` wrote.

        Parameters
        ----------
        path
            The file or the folder.
        code
            Networks that are imported where the file names them, as ``package.module:factory``. The file's
            own word is not enough: it would choose what runs.
        option
            What names such a network, for messages.

        Raises
        ------
        InputError
            The file is missing, damaged, of another kind, its weights do not fit its network, or its network
            is code outside this package that the caller does not name.
        UsageError
            The caller names another one.
        """
        path = model_path(path)
        header, tensors = modelfile.read(path, modelfile.BASELINE, HEADER, framework="pt")
        height, width, channels = header["shape"]
        shape, names = (height, width, channels), header["class_names"]
        mean, std = header["mean"], header["std"]
        with modelfile.damaged(path, modelfile.BASELINE):
            modelfile.check_options(BaselineConfig, header["config"])
            if (len(mean), len(std)) != (channels, channels):
                raise ValueError(
                    f"{counted(channels, 'channel')}, but {len(mean)} means and {len(std)} deviations"
                )
            if tensors["head.weight"].shape != (len(names), header["dim"]):
                raise ValueError("the head's weights do not fit the classes and dimensions")
        _check_code(path, header["network"], code, option)
        network, head = _modules(path, header, shape, tensors)
        for prefix, module in (("network", network), ("head", head)):
            state = {
                k.removeprefix(f"{prefix}."): v for k, v in tensors.items() if k.startswith(f"{prefix}.")
            }
            try:
                module.load_state_dict(state)
            except RuntimeError as error:
                detail = " ".join(str(error).split())[:200]
                raise InputError(f"{path}: the {prefix}'s weights do not fit ({detail})") from None
        return cls(
            network.eval(), head, header["network"], shape, mean, std, tuple(names),
            header["config"], header["provenance"],
        )  # fmt: skip


def _check_code(path: Path, network: str, code: Collection[str | None], option: str) -> None:
    """Refuse a network from elsewhere that only the file names: to make it is to run code."""
    if ":" not in network or network in code:
        return
    named = next((name for name in code if name and ":" in name), None)
    if named is not None:
        raise UsageError(f"{option}: {named} is not the network of {path}, which is {_shown(network)}")
    raise InputError(
        f"{path}: its network {_shown(network)} is code outside this package, and a file does not choose "
        f"what runs; if you trust it, name it yourself with {option} {_shown(network)}"
    )


def _shown(network: str) -> str:
    """Return the name of a network as a message may show it: a file may hold anything."""
    plain = "".join(letter if letter.isprintable() else "?" for letter in network)
    return plain if len(plain) <= 100 else f"{plain[:97]}..."


def _modules(
    path: Path, header: modelfile.Header, shape: tuple[int, int, int], tensors: modelfile.Tensors
) -> tuple[nn.Module, Head]:
    """Return a fresh network and head of a header.

    A built-in network is made without memory first and compared with the tensors: sizes in a header may
    ask for more than there is.
    """
    name, classes = header["network"], len(header["class_names"])
    with torch.random.fork_rng(devices=[]):  # the first weights are replaced at once
        try:
            if ":" not in name:
                with torch.device("meta"):
                    empty, _ = build_network(name, shape, "its network")
                _check_sizes(path, empty, tensors)
            network, _ = build_network(name, shape, "its network")
        except UsageError as error:  # it may be a module of the user's that is not there
            raise InputError(f"{path}: {error}") from None
        return network, make_head(header["head"], header["dim"], classes)


def _check_sizes(path: Path, network: nn.Module, tensors: modelfile.Tensors) -> None:
    for key, value in network.state_dict().items():
        found = tensors.get(f"network.{key}")
        if found is None or found.shape != value.shape:
            what = "is missing" if found is None else f"is {list(found.shape)}, not {list(value.shape)}"
            raise InputError(f"{path}: the network's weights do not fit (network.{key} {what})")


def model_path(path: Path) -> Path:
    """Return the model file: `path` itself, or ``model.safetensors`` in the folder `path`."""
    modelfile.refuse_run(path, modelfile.BASELINE)
    path = check_input(path, "model")
    return check_input(path / FILENAME, "model") if path.is_dir() else path


def file_hash(path: Path) -> str:
    """Return the sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _names(names: tuple[str, ...]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
