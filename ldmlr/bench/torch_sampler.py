"""The PyTorch baselines: a large matrix product, and the sampler as eager or compiled PyTorch."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ldmlr.bench.timing import Work
from ldmlr.sampler.reference import additive
from ldmlr.sampler.solve import solve
from ldmlr.sampler.spec import SamplerSpec

# Rows evaluated together: of 256 .. 8192 within 3 % of the fastest, for H 128 and 512, one and two threads.
BATCH = 1024


def product(dtype: torch.dtype, size: int = 2048) -> Work:
    """Return a matrix product through torch that counts its operations."""
    a, b = torch.randn(size, size).to(dtype), torch.randn(size, size).to(dtype)

    def work() -> float:
        torch.mm(a, b)
        return 2.0 * size**3

    return work


class TorchSampler:
    """The sampler on whole batches, with torch's own noise.

    Parameters
    ----------
    spec
        What to draw from.
    compiled
        Evaluate the network under `torch.compile`.
    autocast
        Evaluate the network under bfloat16 autocast.
    """

    def __init__(self, spec: SamplerSpec, *, compiled: bool = False, autocast: bool = False) -> None:
        self.spec, self.autocast = spec, autocast
        # The compiled network reads numbers and tensors of its own, no property of the spec.
        self.guidance, self.null = spec.guidance, spec.num_classes
        tables = spec.tables
        self.weights = {name: torch.from_numpy(getattr(tables, name)) for name in tables.__dataclass_fields__}
        self.mean, self.scale = torch.from_numpy(spec.mean).float(), torch.from_numpy(spec.scale).float()
        self.network: Callable[[Tensor, Tensor, Tensor], Tensor] = self._network
        if compiled:
            self.network = torch.compile(self._network)

    def _network(self, x: Tensor, step_bias: Tensor, labels: Tensor) -> Tensor:
        # The biases of the step [1, L, H] are an argument: with the number of the step as one,
        # torch.compile would compile the network for every step anew.
        w = {**self.weights, "bias_step": step_bias}
        h = torch.addmm(w["b_in"], x, w["w_in"].T)
        f = additive(w, h, 0, labels)
        if self.guidance == 1:
            return f
        null = additive(w, h, 0, torch.full_like(labels, self.null))
        return null + self.guidance * (f - null)

    @torch.no_grad()
    def __call__(self, labels: npt.NDArray[np.int64]) -> float:
        """Draw one row per label and return their number."""
        for start in range(0, len(labels), BATCH):
            self._batch(torch.from_numpy(labels[start : start + BATCH]))
        return float(len(labels))

    def _batch(self, labels: Tensor) -> Tensor:
        spec = self.spec
        noise = torch.randn(len(labels), spec.dim)

        def predict(x: Tensor, step: int) -> Tensor:
            with torch.autocast("cpu", torch.bfloat16, enabled=self.autocast):
                f = self.network(x, self.weights["bias_step"][step : step + 1], labels)
            return f.float()

        x = solve(spec.rows, noise, predict, lambda step: torch.randn_like(noise))
        return (self.mean[labels] + spec.k * (x @ self.scale.T)).clamp_min(float(spec.floor))
