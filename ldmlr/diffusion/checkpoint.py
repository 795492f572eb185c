"""Checkpoints of a training run in safetensors: everything the next iteration depends on."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ldmlr.diffusion.denoiser import Denoiser
from ldmlr.errors import InputError, UsageError
from ldmlr.files import write_bytes

FORMAT = "ldmlr-diffusion-checkpoint"
MOMENTS = ("exp_avg", "exp_avg_sq")


def save_checkpoint(
    path: Path,
    key: str,
    done: int,
    losses: list[float],
    network: Denoiser,
    averaged: list[Tensor],
    optimiser: torch.optim.Optimizer,
    generator: torch.Generator,
    total: Tensor,
) -> None:
    """Write the state after `done` iterations, whole or not at all."""
    tensors = {"generator": generator.get_state(), "total": total}
    for (name, parameter), average in zip(network.named_parameters(), averaged, strict=True):
        tensors[f"network.{name}"], tensors[f"averaged.{name}"] = parameter.detach(), average
        state = optimiser.state[parameter]
        tensors[f"step.{name}"] = state["step"]
        for moment in MOMENTS:
            tensors[f"{moment}.{name}"] = state[moment]
    header = {"format": FORMAT, "key": key, "done": str(done), "losses": json.dumps(losses)}
    write_bytes(path, save({name: t.cpu().contiguous() for name, t in tensors.items()}, metadata=header))


def load_checkpoint(
    path: Path,
    key: str,
    network: Denoiser,
    averaged: list[Tensor],
    optimiser: torch.optim.Optimizer,
    generator: torch.Generator,
    total: Tensor,
) -> tuple[int, list[float]]:
    """Restore a state in place; return the iterations done and the course of the loss.

    Raises
    ------
    InputError
        The file is damaged or no checkpoint.
    UsageError
        It belongs to another configuration or other data.
    """
    try:
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if header.get("format") != FORMAT:
            raise InputError(f"{path}: not a checkpoint of a diffusion model; delete it to start afresh")
        if header["key"] != key:
            raise UsageError(
                f"{path}: the checkpoint belongs to other settings or data; "
                "use those, or delete it to start afresh"
            )
        with torch.no_grad():
            for (name, parameter), average in zip(network.named_parameters(), averaged, strict=True):
                parameter.copy_(tensors[f"network.{name}"])
                average.copy_(tensors[f"averaged.{name}"])
                optimiser.state[parameter] = {
                    "step": tensors[f"step.{name}"],
                    **{m: tensors[f"{m}.{name}"].to(parameter.device) for m in MOMENTS},
                }
        total.copy_(tensors["total"])
        generator.set_state(tensors["generator"])
        return int(header["done"]), list(json.loads(header["losses"]))
    except (SafetensorError, KeyError, RuntimeError, ValueError, OSError) as error:
        raise InputError(f"{path}: damaged checkpoint ({error}); delete it to start afresh") from None
