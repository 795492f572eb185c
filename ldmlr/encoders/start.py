"""Weights that a training starts from, where they are not random: those of an earlier training.

With the same images and a new learning-rate schedule this is a warm restart (Loshchilov and Hutter, ICLR
2017): a training of another recipe or more epochs goes on from one that is finished. With other images
it is the transfer of a network; a head of other classes cannot be taken along and starts afresh.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from torch import nn

from ldmlr.encoders.config import BaselineConfig
from ldmlr.encoders.model import Baseline, file_hash, model_path
from ldmlr.errors import InputError, UsageError
from ldmlr.heads.modules import Head


@dataclasses.dataclass
class Start:
    """A finished baseline whose weights the next training begins with.

    Parameters
    ----------
    path
        The model file.
    sha256
        Its hash.
    baseline
        What it holds.
    """

    path: Path
    sha256: str
    baseline: Baseline

    @classmethod
    def open(cls, config: BaselineConfig) -> Start | None:
        """Return the model that ``--init`` names, or None without.

        Raises
        ------
        InputError
            It is missing, damaged or no baseline.
        UsageError
            It is another network than that of the configuration.
        """
        if config.init is None:
            return None
        path = model_path(Path(config.init))
        baseline = Baseline.load(path)
        if baseline.name != config.network:
            raise UsageError(
                f"--init {path}: holds the network {baseline.name}, not {config.network}; "
                f"pass --network {baseline.name} or name another model"
            )
        return cls(path, file_hash(path), baseline)

    @property
    def epochs(self) -> int:
        """Epochs of the network in the trainings behind it, all of them."""
        earlier = self.baseline.provenance.get("init", {}).get("epochs", 0)
        return int(earlier) + int(self.baseline.config.get("epochs", 0))

    def keeps_head(self, kind: str, class_names: tuple[str, ...]) -> bool:
        """Return whether the head fits as well: the same kind for the same classes."""
        return self.baseline.head.kind == kind and self.baseline.class_names == class_names

    def check_held_out(self, held_out: dict[str, Any] | None) -> None:
        """Refuse to hold out images that the weights may have seen.

        Whether two image sets share images cannot be told by their records, so every training behind the
        weights must have held out the very same ones.

        Parameters
        ----------
        held_out
            Record of the images held out now; None if there are none.

        Raises
        ------
        UsageError
            One of the trainings held out none, or others.
        """
        if held_out is not None and any(before != held_out for before in self.held_out):
            raise UsageError(
                f"--init {self.path}: may have been trained on images that --val-fraction would hold out; "
                "start from a baseline of the same images, --val-fraction and --seed, or leave one of "
                "the two out"
            )

    @property
    def held_out(self) -> list[dict[str, Any] | None]:
        """What each training behind the weights held out, the last one first."""
        origin = self.baseline.provenance
        earlier: list[dict[str, Any] | None] = origin.get("init", {}).get("held_out", [])
        return [origin.get("held_out"), *earlier]

    def record(self, kind: str, class_names: tuple[str, ...]) -> dict[str, Any]:
        """Return what the new model remembers of it, as plain data."""
        return {
            "model": str(self.path), "sha256": self.sha256, "epochs": self.epochs,
            "head": self.keeps_head(kind, class_names), "config": self.baseline.config,
            "images": self.baseline.provenance.get("images"), "held_out": self.held_out,
        }  # fmt: skip

    def fill(
        self, network: nn.Module, head: Head, class_names: tuple[str, ...], config: BaselineConfig
    ) -> None:
        """Copy the weights into a network and, where it fits, its head.

        Raises
        ------
        UsageError
            A first concentration is asked for, and the head comes with its own.
        InputError
            The network was made for images of another shape.
        """
        try:
            network.load_state_dict(self.baseline.network.state_dict())
        except RuntimeError:
            shape = list(self.baseline.shape)
            raise InputError(
                f"--init {self.path}: its weights are for images {shape} (height, width, channels) and do "
                "not fit these; name another model"
            ) from None
        if self.keeps_head(head.kind, class_names):
            if config.concentration:
                raise UsageError(
                    f"--concentration: {self.path} brings a head with its own along; leave it out"
                )
            head.load_state_dict(self.baseline.head.state_dict())
