"""Which trainer trains: the fused one of the extension where it can, else that of PyTorch.

Torch is imported only for the latter, and for CUDA devices.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ldmlr import isa, progress
from ldmlr.diffusion import fused
from ldmlr.diffusion.config import DiffusionConfig
from ldmlr.diffusion.weights import Weights
from ldmlr.errors import UsageError, counted, opt
from ldmlr.processor import Processor, vector_products
from ldmlr.ranks import ALONE, Ranks

# The counter of the fused trainer's draws holds so many steps, and rows of a batch are 32-bit numbers.
MOST_STEPS, MOST_ROWS = 2**24, 2**24


@dataclasses.dataclass(frozen=True)
class Trainer:
    """What trains.

    Attributes
    ----------
    name
        ``native`` or ``reference``.
    precision
        Type of the products: ``float32`` or ``bfloat16``; sums and weights are float32.
    isa
        Instruction set of the native trainer, ``cuda`` on such a device; ``torch`` for the reference.
    """

    name: str
    precision: str
    isa: str

    def document(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {"trainer": self.name, "precision": self.precision, "isa": self.isa}


def choose(
    config: DiffusionConfig,
    device: str,
    processor: Processor | None = None,
    ranks: int = 1,
    *,
    latent: int = 1,
) -> Trainer:
    """Return what trains a configuration.

    Parameters
    ----------
    config
        Its ``trainer`` and ``precision`` say what is wanted.
    device
        ``cpu``, or the name of a CUDA device.
    processor
        What ``auto`` products are chosen for; None: this one.
    ranks
        Processes that train together.
    latent
        Numbers of a row K.

    Raises
    ------
    UsageError
        The native trainer was asked for and cannot train this, or the products that were asked for are not
        there.
    """
    reason = refuses(config, device, latent, ranks)
    if config.trainer == "native" and reason:
        raise UsageError(
            f"{opt('trainer', 'native')}: {reason}; use {opt('trainer', 'reference')}, or leave it out"
        )
    chosen = isa.choose()
    if config.trainer == "reference" or reason:
        if config.precision == "bfloat16":
            raise UsageError(
                f"{opt('precision', 'bfloat16')}: only the native trainer multiplies bfloat16; "
                f"use {opt('precision', 'float32')}"
            )
        return Trainer("reference", "float32", "torch")
    if on_cuda(device):
        if config.precision == "bfloat16":
            raise UsageError(
                f"{opt('precision', 'bfloat16')}: on {device} the native trainer multiplies float32; "
                f"use {opt('precision', 'float32')}"
            )
        return Trainer("native", "float32", "cuda")
    return Trainer("native", vector_products(config.precision, chosen, processor), chosen.name)


def on_cuda(device: str) -> bool:
    """Return whether a name of a device is that of a CUDA device."""
    return device.partition(":")[0] == "cuda"


def refuses(config: DiffusionConfig, device: str, latent: int, ranks: int) -> str | None:
    """Return why the native trainer cannot train a configuration on a device, or None if it can."""
    if config.network != "additive":
        return f"it trains the additive network, not {opt('network', config.network)}"
    if (config.iterations or 0) > MOST_STEPS or config.batch_size > MOST_ROWS:
        return f"it takes {MOST_STEPS:,} steps and {MOST_ROWS:,} rows in a batch at most"
    if ranks > 1:
        return f"it trains in one process, not in {ranks} ranks"
    if not on_cuda(device):
        return None
    from ldmlr.diffusion import fused_cuda

    return fused_cuda.refuses(config, device, latent)


def train(
    config: DiffusionConfig,
    z: npt.NDArray[np.float32],
    labels: npt.NDArray[np.int64],
    counts: npt.NDArray[np.int64],
    *,
    seed: int,
    device: str,
    threads: int | None = None,
    checkpoint: Path | None = None,
    resume: bool = False,
    key: str = "",
    importance: npt.NDArray[np.float64] | None = None,
    ranks: Ranks = ALONE,
) -> tuple[Weights, list[float], Trainer]:
    """Train a denoiser and return its averaged weights, the course of the loss, and what trained.

    Parameters
    ----------
    config, z, labels, counts, seed, checkpoint, resume, key, importance
        As of `ldmlr.diffusion.train.train`.
    ranks
        The processes that train together, on the same rows; they train on the `z` of the first.
    device
        Where to train: ``cpu``, ``cuda`` or ``cuda:N``.
    threads
        CPU threads; None: all usable cores, or for the reference and a small network one.

    Raises
    ------
    UsageError
        As of `choose`; and ranks that have other rows or settings, or more ranks than rows in a batch.
    LdmlrError
        The loss is no longer finite, or the network died at every rate that was tried.
    """
    trainer = choose(config, device, ranks=ranks.size, latent=z.shape[1])
    if trainer.name == "reference":
        import torch

        from ldmlr.diffusion.train import thread_count
        from ldmlr.diffusion.train import train as train_reference

        if not ranks.alone:
            _join(ranks, config, z, key)
        with thread_count(config, z.shape[1], threads):
            network, losses = train_reference(
                config, z, labels, counts, seed=seed, device=torch.device(device), checkpoint=checkpoint,
                resume=resume, key=key, importance=importance, ranks=ranks,
            )  # fmt: skip
        return network.weights(), losses, trainer
    weight = np.ones(z.shape[1]) if importance is None else importance
    steps: fused.Steps
    if on_cuda(device):
        from ldmlr.diffusion.fused_cuda import CudaSteps

        steps = CudaSteps(config, z, labels, counts, weight, seed, device)
    else:
        steps = fused.Steps(config, z, labels, counts, weight, seed, trainer.precision, threads)
    arrays, losses = fused.train(steps, config, checkpoint=checkpoint, resume=resume, key=key)
    return Weights(config.network, arrays), losses, trainer


def _join(ranks: Ranks, config: DiffusionConfig, z: npt.NDArray[np.float32], key: str) -> None:
    """Have ranks begin a training together, on the very same `z`."""
    import torch

    if config.batch_size < ranks.size:
        raise UsageError(
            f"{opt('batch_size')}: a batch of {counted(config.batch_size, 'row')} is too small for "
            f"{counted(ranks.size, 'rank')}; raise it, or start fewer"
        )
    ranks.check_same(key, "training rows or settings")
    # Machines of different kinds may round the transform differently, or turn an eigenvector round.
    ranks.copy(torch.from_numpy(z))
    if ranks.first and config.trainer == "auto" and config.network == "additive":
        progress.say_once(
            f"note: {counted(ranks.size, 'rank')} train with PyTorch, as one process does with the "
            "trainer named reference"
        )
