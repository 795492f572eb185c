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

from ldmlr.data.imageset import ImageSet
from ldmlr.encoders.config import BaselineConfig
from ldmlr.encoders.earlier import Earlier
from ldmlr.encoders.precision import features_of
from ldmlr.errors import opt


class Teacher(Earlier):
    """A finished baseline, of any network, for the same images and classes."""

    option = "teacher"

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
        code = (config.network, config.teacher_network)
        teacher = cls.read(config.teacher, code, opt("teacher_network"))
        teacher.baseline.check_images(f"{opt('teacher')} {teacher.path}", images)
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
