"""Checkpoints of a training run in safetensors: everything the next iteration depends on."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save
from torch import Tensor

from ldmlr.diffusion.denoiser import Denoiser
from ldmlr.errors import InputError, UsageError
from ldmlr.files import write_bytes
from ldmlr.tensorfile import open_tensors

FORMAT = "ldmlr-diffusion-checkpoint"
MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclasses.dataclass
class State:
    """A training between two iterations.

    Attributes
    ----------
    network, averaged
        The network and the running averages of its parameters, in their order.
    optimiser
        AdamW of the network.
    generator
        What all draws come from.
    total
        Sum of the losses since the last report.
    losses
        Mean loss of each report.
    done
        Iterations done.
    """

    network: Denoiser
    averaged: list[Tensor]
    optimiser: torch.optim.Optimizer
    generator: torch.Generator
    total: Tensor
    losses: list[float] = dataclasses.field(default_factory=list)
    done: int = 0

    def save(self, path: Path, key: str) -> None:
        """Write it, whole or not at all, with a key that says of which configuration and data it is."""
        tensors = {"generator": self.generator.get_state(), "total": self.total}
        for (name, parameter), average in self._parameters():
            tensors[f"network.{name}"], tensors[f"averaged.{name}"] = parameter.detach(), average
            state = self.optimiser.state[parameter]
            tensors[f"step.{name}"] = state["step"]
            for moment in MOMENTS:
                tensors[f"{moment}.{name}"] = state[moment]
        header = {"format": FORMAT, "key": key, "done": str(self.done), "losses": json.dumps(self.losses)}
        write_bytes(path, save({name: t.cpu().contiguous() for name, t in tensors.items()}, metadata=header))

    def load(self, path: Path, key: str) -> None:
        """Take over a saved one.

        Raises
        ------
        InputError
            The file is damaged or no checkpoint.
        UsageError
            It belongs to another configuration or other data.
        """
        try:
            header, tensors = _read(path)
            if header["key"] != key:
                raise UsageError(
                    f"{path}: the checkpoint belongs to other settings or data; "
                    "use those, or delete it to start afresh"
                )
            self._restore(tensors)
            self.done, self.losses = int(header["done"]), list(json.loads(header["losses"]))
        except (SafetensorError, KeyError, RuntimeError, ValueError, OSError) as error:
            raise InputError(f"{path}: damaged checkpoint ({error}); delete it to start afresh") from None

    def _restore(self, tensors: dict[str, Tensor]) -> None:
        with torch.no_grad():
            for (name, parameter), average in self._parameters():
                parameter.copy_(tensors[f"network.{name}"])
                average.copy_(tensors[f"averaged.{name}"])
                self.optimiser.state[parameter] = {
                    "step": tensors[f"step.{name}"],
                    **{m: tensors[f"{m}.{name}"].to(parameter.device) for m in MOMENTS},
                }
        self.total.copy_(tensors["total"])
        self.generator.set_state(tensors["generator"])

    def _parameters(self) -> Iterator[tuple[tuple[str, torch.nn.Parameter], Tensor]]:
        return zip(self.network.named_parameters(), self.averaged, strict=True)


def resumed(path: Path, keys: list[str]) -> int:
    """Return which of some keys a checkpoint has; 0 if there is none, or it has another."""
    if not path.exists():
        return 0
    try:
        with open_tensors(path, "pt") as file:
            key = (file.metadata() or {}).get("key")
    except (SafetensorError, OSError):
        return 0  # `State.load` says what is wrong
    return keys.index(key) if key in keys else 0


def _read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    with open_tensors(path, "pt") as file:
        header = file.metadata() or {}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if header.get("format") != FORMAT:
        raise InputError(f"{path}: not a checkpoint of a diffusion model; delete it to start afresh")
    return header, tensors
