"""The denoisers: residual MLPs with weights per feature dimension.

`AdditiveMLP` takes its condition as biases that depend on (step, layer) and (class, layer)
alone, so for sampling the conditioning network is evaluated once per solver step instead
of once per row and comes as two tables (`DenoiserTables`); it costs no accuracy against
`AdaLNMLP`, which scales and shifts normalised activations and runs in the reference only.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm, linear, silu

from ldmlr.diffusion.tables import Tables
from ldmlr.diffusion.weights import TIME_FEATURES, Weights


def time_features(t: Tensor) -> Tensor:
    """Return cosines and sines of 1000 t ``[N, 64]`` at 32 frequencies, 1 down to 1e-4."""
    half = TIME_FEATURES // 2
    frequencies = torch.exp(-math.log(1e4) * torch.arange(half, dtype=t.dtype, device=t.device) / half)
    angles = 1000 * t[:, None] * frequencies
    return torch.cat([torch.cos(angles), torch.sin(angles)], dim=1)


class Denoiser(nn.Module, ABC):
    """What both denoisers share: first and last layer, and the time embedding.

    The last layer starts at zero: with v-prediction an untrained model then is the exact
    denoiser of a standard normal, and training can only add to it.

    Attributes
    ----------
    kind
        The network's name in a configuration.
    """

    kind: ClassVar[str]

    def __init__(self, dim: int, num_classes: int, hidden: int, layers: int, time_outputs: int) -> None:
        super().__init__()
        self.dim, self.num_classes, self.hidden, self.layers = dim, num_classes, hidden, layers
        self.input = nn.Linear(dim, hidden)
        self.first = nn.ModuleList(nn.Linear(hidden, hidden) for _ in range(layers))
        self.second = nn.ModuleList(nn.Linear(hidden, hidden) for _ in range(layers))
        self.output = nn.Linear(hidden, dim)
        self.time_in = nn.Linear(TIME_FEATURES, hidden)
        self.time_out = nn.Linear(hidden, time_outputs)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def time(self, t: Tensor) -> Tensor:
        """Return the embedding of times ``[N]``, in their type."""
        first, last = self.time_in, self.time_out
        h = silu(linear(time_features(t), first.weight.to(t.dtype), first.bias.to(t.dtype)))
        return linear(h, last.weight.to(t.dtype), last.bias.to(t.dtype))

    @abstractmethod
    def residual_stream(self, x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        """Return h ``[N, H]`` behind the last layer."""

    def forward(self, x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        """Return the prediction ``[N, D]`` for noisy x ``[N, D]``, times ``[N]`` and labels ``[N]``."""
        prediction: Tensor = self.output(silu(self.residual_stream(x, t, labels)))
        return prediction

    def weigh_inputs(self, importance: Tensor) -> None:
        """Scale the first layer's weights of each input by the root of its importance ``[D]``."""
        with torch.no_grad():
            self.input.weight.mul_(importance.sqrt().to(self.input.weight))

    def weights(self) -> Weights:
        """Return a copy of the weights as plain float32 arrays."""
        state = {name: value.detach().to("cpu", torch.float32) for name, value in self.state_dict().items()}
        return Weights(self.kind, {name: value.numpy().copy() for name, value in state.items()})

    def tables(self, t: npt.NDArray[np.float64]) -> Tables:
        """Return the network as plain arrays for the evaluation times t ``[S]``."""
        return self.weights().tables(t)


class AdditiveMLP(Denoiser):
    """Residual MLP with additive, factorised conditioning.

    Parameters
    ----------
    dim
        Feature dimensions D.
    num_classes
        Classes C; label C is the null class.
    hidden, layers
        Width H and number L of residual layers.
    """

    kind = "additive"

    def __init__(self, dim: int, num_classes: int, hidden: int, layers: int) -> None:
        super().__init__(dim, num_classes, hidden, layers, layers * hidden)
        self.classes = nn.Embedding(num_classes + 1, layers * hidden)
        nn.init.normal_(self.classes.weight, std=0.5)

    def residual_stream(self, x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        """Return h ``[N, H]`` behind the last layer."""
        bias = self.time(t) + self.classes(labels)
        biases = bias.unflatten(1, (self.layers, self.hidden)).unbind(1)
        h: Tensor = self.input(x)
        for layer in range(self.layers):
            h = h + self.second[layer](silu(self.first[layer](h) + biases[layer]))
        return h


class AdaLNMLP(Denoiser):
    """Residual MLP whose normalised activations are scaled, shifted and gated by the condition.

    Parameters are those of `AdditiveMLP`. Peebles & Xie, "Scalable Diffusion Models with
    Transformers" (2023), with MLP blocks.
    """

    kind = "adaln"

    def __init__(self, dim: int, num_classes: int, hidden: int, layers: int) -> None:
        super().__init__(dim, num_classes, hidden, layers, hidden)
        self.classes = nn.Embedding(num_classes + 1, hidden)
        self.modulation = nn.ModuleList(nn.Linear(hidden, 3 * hidden) for _ in range(layers))

    def residual_stream(self, x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        """Return h ``[N, H]`` behind the last layer."""
        condition = silu(self.time(t) + self.classes(labels))
        h: Tensor = self.input(x)
        for layer in range(self.layers):
            scale, shift, gate = self.modulation[layer](condition).chunk(3, dim=1)
            u = layer_norm(h, (self.hidden,)) * (1 + scale) + shift
            h = h + gate * self.second[layer](silu(self.first[layer](u)))
        return h


NETWORKS: dict[str, type[AdditiveMLP] | type[AdaLNMLP]] = {"additive": AdditiveMLP, "adaln": AdaLNMLP}


def module_of(weights: Weights) -> Denoiser:
    """Return a PyTorch module with a copy of the weights, for evaluation."""
    with torch.random.fork_rng(devices=[]):  # the first weights are replaced at once
        network = NETWORKS[weights.network](
            weights.latent, weights.num_classes, weights.hidden, weights.layers
        )
    network.load_state_dict({name: torch.from_numpy(array) for name, array in weights.arrays.items()})
    return network.eval()
