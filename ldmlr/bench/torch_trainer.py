"""Steps of stage 2 in PyTorch, eager or as one compiled graph: what the fused trainer is measured beside.

Draws, network, loss, AdamW and averages are those of `ldmlr.diffusion.train`; compiled, everything behind
the draws is one graph.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ldmlr.diffusion.config import DiffusionConfig
from ldmlr.diffusion.course import RESOLUTION, noise_levels
from ldmlr.diffusion.denoiser import NETWORKS
from ldmlr.diffusion.train import Batches


class TorchTrainer:
    """A training that goes on at one rate.

    Parameters
    ----------
    config
        Network and training, of v-prediction.
    z, labels, counts
        Rows ``[N, K]``, their classes ``[N]`` and rows per class ``[C]``.
    compiled
        Compile the step with `torch.compile`.
    autocast
        Multiply bfloat16.
    """

    def __init__(
        self,
        config: DiffusionConfig,
        z: npt.NDArray[np.float32],
        labels: npt.NDArray[np.int64],
        counts: npt.NDArray[np.int64],
        *,
        compiled: bool = False,
        autocast: bool = False,
    ) -> None:
        self.config, self.classes, self.autocast = config, len(counts), autocast
        self.generator = torch.Generator().manual_seed(0)
        self.batches = Batches(torch.from_numpy(z), torch.from_numpy(labels), counts, config.class_power)
        self.network = NETWORKS[config.network](z.shape[1], len(counts), config.hidden, config.layers)
        self.parameters: list[Tensor] = [parameter for parameter in self.network.parameters()]
        self.averages = [parameter.detach().clone() for parameter in self.parameters]
        self.optimiser = torch.optim.AdamW(
            self.parameters, lr=config.lr, weight_decay=config.weight_decay, fused=True
        )
        self.alpha, self.sigma = map(torch.from_numpy, noise_levels(config))
        step: Any = self._step
        self.step = torch.compile(step) if compiled else step

    def advance(self, count: int) -> float:
        """Train `count` steps and return the last loss."""
        for _ in range(count):
            loss = self.step(*self._draw())
        return float(loss)

    def _draw(self) -> tuple[Tensor, ...]:
        rows, labels = self.batches.draw(self.config.batch_size, self.generator)
        index = torch.randint(RESOLUTION + 1, (len(rows),), generator=self.generator)
        dropped = torch.rand(len(rows), generator=self.generator) < self.config.label_dropout
        noise = torch.randn(rows.shape, generator=self.generator)
        return rows, torch.where(dropped, self.classes, labels), index, noise

    def _step(self, rows: Tensor, labels: Tensor, index: Tensor, noise: Tensor) -> Tensor:
        alpha, sigma = self.alpha[index, None], self.sigma[index, None]
        with torch.autocast("cpu", torch.bfloat16, enabled=self.autocast):
            found = self.network(alpha * rows + sigma * noise, index / RESOLUTION, labels)
        loss: Tensor = ((found.float() - (alpha * noise - sigma * rows)) ** 2).mean()
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()
        with torch.no_grad():
            torch._foreach_lerp_(self.averages, self.parameters, 1 - self.config.ema)
        return loss.detach()
