"""Weights that a training starts from, where they are not random: those of an earlier training.

With the same images and a new learning-rate schedule this is a warm restart (Loshchilov and Hutter, ICLR
2017): a training of another recipe or more epochs goes on from one that is finished. With other images
it is the transfer of a network; a head of other classes cannot be taken along and starts afresh.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from ldmlr.encoders.config import BaselineConfig
from ldmlr.encoders.earlier import Earlier
from ldmlr.errors import InputError, UsageError, opt
from ldmlr.heads.modules import Head


class Start(Earlier):
    """A finished baseline whose weights the next training begins with."""

    option = "init"

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
        start = cls.read(config.init, (config.network,), opt("network"))
        name = start.baseline.name
        if name != config.network:
            raise UsageError(
                f"{opt('init')} {start.path}: holds the network {name}, not {config.network}; "
                f"pass {opt('network')} {name} or name another model"
            )
        return start

    @property
    def epochs(self) -> int:
        """Epochs of the network in the trainings behind it, all of them."""
        earlier = self.baseline.provenance.get("init", {}).get("epochs", 0)
        return int(earlier) + int(self.baseline.config.get("epochs", 0))

    def keeps_head(self, kind: str, class_names: tuple[str, ...]) -> bool:
        """Return whether the head fits as well: the same kind for the same classes."""
        return self.baseline.head.kind == kind and self.baseline.class_names == class_names

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
                f"{opt('init')} {self.path}: its weights are for images {shape} (height, width, channels) "
                "and do not fit these; name another model"
            ) from None
        if self.keeps_head(head.kind, class_names):
            if config.concentration:
                raise UsageError(
                    f"{opt('concentration')}: {self.path} brings a head with its own along; leave it out"
                )
            head.load_state_dict(self.baseline.head.state_dict())
