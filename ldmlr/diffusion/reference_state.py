"""The state of a training by PyTorch, everything the next iteration depends on, and checkpoints of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from ldmlr.diffusion import checkpoint
from ldmlr.diffusion.denoiser import Denoiser
from ldmlr.files import write_bytes
from ldmlr.ranks import Ranks

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
        header = checkpoint.header(checkpoint.REFERENCE, key, self.done, self.losses)
        write_bytes(path, save(self._tensors(), metadata=header))

    def share(self, ranks: Ranks) -> None:
        """Take over that of rank 0, where it is past the first iteration."""
        found = ranks.tell((self._tensors(), self.done, self.losses) if self.done else None)
        if found is not None and not ranks.first:
            tensors, self.done, self.losses = found
            self._restore(tensors)

    def _tensors(self) -> dict[str, Tensor]:
        tensors = {"generator": self.generator.get_state(), "total": self.total}
        for (name, parameter), average in self._parameters():
            tensors[f"network.{name}"], tensors[f"averaged.{name}"] = parameter.detach(), average
            state = self.optimiser.state[parameter]
            tensors[f"step.{name}"] = state["step"]
            for moment in MOMENTS:
                tensors[f"{moment}.{name}"] = state[moment]
        return {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}

    def load(self, path: Path, key: str) -> None:
        """Take over a saved one; raises as `ldmlr.diffusion.checkpoint.opened`."""
        with checkpoint.opened(path, checkpoint.REFERENCE, key, "pt") as (file, header):
            self._restore({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
            self.done, self.losses = checkpoint.progress(header)

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
