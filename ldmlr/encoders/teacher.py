"""The teacher of a training: a finished baseline whose logits the next one matches.

Distillation into a network of the same kind ("born again", Furlanello et al., ICML 2018) tells the student
which classes look alike, where labels say one class only. The teacher is shown the very images that the
student is shown, augmented and mixed, throughout a long training ("a good teacher is patient and consistent",
Beyer et al., CVPR 2022). Its cost is one pass without gradients in every step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ldmlr.data.images import ImageSet
from ldmlr.encoders.config import BaselineConfig
from ldmlr.encoders.earlier import Earlier
from ldmlr.encoders.pixels import image_shape
from ldmlr.encoders.precision import DTYPES
from ldmlr.errors import InputError


class Teacher(Earlier):
    """A finished baseline, of any network, for the same images and classes."""

    option = "--teacher"

    @classmethod
    def open(cls, config: BaselineConfig, images: ImageSet) -> Teacher | None:
        """Return the model that ``--teacher`` names, or None without.

        Raises
        ------
        InputError
            It is missing, damaged, no baseline, or made for images of another shape or other classes.
        """
        if config.teacher is None:
            return None
        teacher = cls.read(config.teacher)
        shape, names = image_shape(images.train), images.class_names
        if teacher.baseline.shape != shape:
            raise InputError(
                f"--teacher {teacher.path}: was trained on images {list(teacher.baseline.shape)}, but "
                f"{images.name} has {list(shape)} (height, width, channels); use --image-size or another "
                "model"
            )
        if teacher.baseline.class_names != names:
            raise InputError(
                f"--teacher {teacher.path}: was trained on {len(teacher.baseline.class_names)} classes that "
                f"are not the {len(names)} of {images.name}, by name and in this order; name another model"
            )
        return teacher

    def record(self) -> dict[str, Any]:
        """Return what the new model remembers of it, as plain data."""
        origin = self.baseline.provenance
        return {
            "model": str(self.path), "sha256": self.sha256, "network": self.baseline.name,
            "config": self.baseline.config, "images": origin.get("images"), "held_out": self.held_out,
        }  # fmt: skip

    def prepare(
        self, mean: list[float], std: list[float], config: BaselineConfig, device: torch.device
    ) -> Callable[[torch.Tensor], torch.Tensor]:
        """Return what maps the student's images ``[n, C, H, W]`` to float32 logits ``[n, K]``.

        Parameters
        ----------
        mean, std
            How the student's images are normalised, per channel, of values 0 .. 255.
        config
            Arithmetic and layout of the training.
        device
            Where to compute.
        """
        network, head = self.baseline.network.to(device).eval(), self.baseline.head.to(device).eval()
        layout = torch.channels_last if config.channels_last else torch.contiguous_format
        network.to(memory_format=layout)  # type: ignore[call-overload]
        ours, theirs = torch.tensor([mean, std]), torch.tensor([self.baseline.mean, self.baseline.std])
        scale = (ours[1] / theirs[1]).view(1, -1, 1, 1).to(device)
        offset = ((ours[0] - theirs[0]) / theirs[1]).view(1, -1, 1, 1).to(device)
        short = config.precision != "float32"

        @torch.no_grad()
        def logits(images: torch.Tensor) -> torch.Tensor:
            images = torch.addcmul(offset, images, scale).contiguous(memory_format=layout)
            with torch.autocast(device.type, DTYPES[config.precision], enabled=short):
                features: torch.Tensor = network(images)
            found: torch.Tensor = head(features.float())
            return found

        return logits
