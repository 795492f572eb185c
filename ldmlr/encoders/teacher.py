"""The teachers of a training: finished baselines whose logits the next one matches.

Distillation into a network of the same kind ("born again", Furlanello et al., ICML 2018) tells the student
which classes look alike, where labels say one class only. The teacher is shown the very images that the
student is shown, augmented and mixed, throughout a long training ("a good teacher is patient and consistent",
Beyer et al., CVPR 2022). Its cost is one pass without gradients in every step. Several teachers speak as one:
the student matches the mean of their softened probabilities (Hinton et al., 2015, section 3).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Self

import torch
from torch.nn import functional as F

from ldmlr.data.images import ImageSet
from ldmlr.encoders.config import BaselineConfig
from ldmlr.encoders.earlier import Earlier
from ldmlr.encoders.precision import features_of

# Maps the student's images ``[n, C, H, W]`` to float32 logits ``[n, K]``.
Logits = Callable[[torch.Tensor], torch.Tensor]


class Teacher(Earlier):
    """A finished baseline, of any network, for the same images and classes."""

    option = "--teacher"

    @classmethod
    def open(cls, config: BaselineConfig, images: ImageSet) -> list[Self]:
        """Return the models that ``--teacher`` names.

        Raises
        ------
        InputError
            One is missing, damaged, no baseline, or made for images of another shape or other classes.
        """
        teachers = [cls.read(name) for name in config.teacher]
        for teacher in teachers:
            teacher.baseline.check_images(f"--teacher {teacher.path}", images)
        return teachers

    def record(self) -> dict[str, Any]:
        """Return what the new model remembers of it, as plain data."""
        origin = self.baseline.provenance
        return {
            "model": str(self.path), "sha256": self.sha256, "network": self.baseline.name,
            "config": self.baseline.config, "images": origin.get("images"), "held_out": self.held_out,
        }  # fmt: skip

    def prepare(
        self, mean: list[float], std: list[float], config: BaselineConfig, device: torch.device
    ) -> Logits:
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
        if config.channels_last:
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        ours, theirs = torch.tensor([mean, std]), torch.tensor([self.baseline.mean, self.baseline.std])
        scale = (ours[1] / theirs[1]).view(1, -1, 1, 1).to(device)
        offset = ((ours[0] - theirs[0]) / theirs[1]).view(1, -1, 1, 1).to(device)

        @torch.no_grad()
        def logits(images: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = head(features_of(network, torch.addcmul(offset, images, scale), config))
            return found

        return logits


def mean_logits(teachers: Sequence[Logits], temperature: float) -> Logits:
    """Return logits whose probabilities at a temperature are the mean of those of the teachers.

    Parameters
    ----------
    teachers
        At least one; a single one is returned as it is.
    temperature
        What the student's logits and these are divided by before they are compared.
    """
    if len(teachers) == 1:
        return teachers[0]

    @torch.no_grad()
    def logits(images: torch.Tensor) -> torch.Tensor:
        found = torch.stack([F.log_softmax(teacher(images) / temperature, dim=1) for teacher in teachers])
        # A constant, here the logarithm of their number, drops out of the softmax.
        return temperature * torch.logsumexp(found, dim=0)

    return logits
