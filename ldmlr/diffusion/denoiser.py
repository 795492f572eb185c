"""The denoisers: residual MLPs with weights per feature dimension.

`AdditiveMLP` takes its condition as biases that depend on (step, layer) and (class, layer)
alone, so for sampling the conditioning network is evaluated once per solver step instead
of once per row and comes as two tables (`DenoiserTables`); it costs no accuracy against
`AdaLNMLP`, which scales and shifts normalised activations and runs in the reference only.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm, linear, silu

from ldmlr.diffusion.tables import AdaLNTables, DenoiserTables, Tables

TIME_FEATURES = 64


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
    """

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

    def time_table(self, t: npt.NDArray[np.float64]) -> Tensor:
        """Return the embedding of times ``[S]`` in float64."""
        return self.time(torch.from_numpy(t).to(self.time_in.weight.device))

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

    @abstractmethod
    def tables(self, t: npt.NDArray[np.float64]) -> Tables:
        """Return the network as plain arrays for the evaluation times t ``[S]``."""


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

    tables_type: ClassVar[type[Tables]] = DenoiserTables

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

    @torch.no_grad()
    def tables(self, t: npt.NDArray[np.float64]) -> DenoiserTables:
        """Return the network as plain arrays for the evaluation times t ``[S]``."""
        shape = (-1, self.layers, self.hidden)
        first_bias = _stack(self.first, "bias")
        steps = self.time_table(t).reshape(shape) + first_bias.double()
        return DenoiserTables(
            **_common(self), bias_step=_array(steps), bias_class=_array(self.classes.weight.reshape(shape))
        )


class AdaLNMLP(Denoiser):
    """Residual MLP whose normalised activations are scaled, shifted and gated by the condition.

    Parameters are those of `AdditiveMLP`. Peebles & Xie, "Scalable Diffusion Models with
    Transformers" (2023), with MLP blocks.
    """

    tables_type: ClassVar[type[Tables]] = AdaLNTables

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

    @torch.no_grad()
    def tables(self, t: npt.NDArray[np.float64]) -> AdaLNTables:
        """Return the network as plain arrays for the evaluation times t ``[S]``."""
        return AdaLNTables(
            **_common(self),
            b1=_array(_stack(self.first, "bias")),
            w_mod=_array(_stack(self.modulation, "weight")),
            b_mod=_array(_stack(self.modulation, "bias")),
            step=_array(self.time_table(t)),
            class_=_array(self.classes.weight),
        )


NETWORKS: dict[str, type[AdditiveMLP] | type[AdaLNMLP]] = {"additive": AdditiveMLP, "adaln": AdaLNMLP}


def _common(net: Denoiser) -> dict[str, npt.NDArray[np.float32]]:
    return {
        "w_in": _array(net.input.weight), "b_in": _array(net.input.bias),
        "w1": _array(_stack(net.first, "weight")),
        "w2": _array(_stack(net.second, "weight")),
        "b2": _array(_stack(net.second, "bias")),
        "w_out": _array(net.output.weight), "b_out": _array(net.output.bias),
    }  # fmt: skip


def _array(tensor: Tensor) -> npt.NDArray[np.float32]:
    array: npt.NDArray[np.float32] = tensor.detach().to("cpu", torch.float32).contiguous().numpy().copy()
    return array


def _stack(modules: Iterable[nn.Module], name: str) -> Tensor:
    return torch.stack([getattr(module, name) for module in modules])
