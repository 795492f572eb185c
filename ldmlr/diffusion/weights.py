"""A trained denoiser as plain arrays: what a model holds, saves and samples from; imports no torch.

The names are those of the state of the PyTorch modules (`ldmlr.diffusion.denoiser`), so a model file is read
by either. What depends on the time alone is evaluated here, in float64, once per step of a solver.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ldmlr.diffusion.tables import AdaLNTables, DenoiserTables, Tables

TIME_FEATURES = 64
# Of the variance that AdaLN divides by.
NORM_EPSILON = 1e-5

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

# What a sampler is given of each network.
TABLES: dict[str, type[Tables]] = {"additive": DenoiserTables, "adaln": AdaLNTables}


@dataclasses.dataclass(frozen=True)
class Weights:
    """The weights of a denoiser.

    Attributes
    ----------
    network
        ``additive`` or ``adaln``.
    arrays
        float32, by name: ``input``, ``first.L`` and ``second.L`` of each layer, ``output``, ``time_in``,
        ``time_out`` and, of AdaLN, ``modulation.L``, each with ``.weight`` and ``.bias``; ``classes.weight``
        has a row per class and, last, one for rows without a class.
    """

    network: str
    arrays: Mapping[str, Floats]

    @property
    def latent(self) -> int:
        """Numbers K of a row."""
        return int(self.arrays["input.weight"].shape[1])

    @property
    def hidden(self) -> int:
        """Hidden width H."""
        return int(self.arrays["input.weight"].shape[0])

    @property
    def layers(self) -> int:
        """Residual layers L."""
        return sum(name.startswith("first.") and name.endswith(".weight") for name in self.arrays)

    @property
    def num_classes(self) -> int:
        """Classes C."""
        return len(self.arrays["classes.weight"]) - 1

    def time_table(self, t: Doubles) -> Doubles:
        """Return the embedding of times ``[S]``: ``[S, L H]``, or ``[S, H]`` of AdaLN."""
        first, last = (
            (self.arrays[f"{name}.weight"].astype(np.float64), self.arrays[f"{name}.bias"].astype(np.float64))
            for name in ("time_in", "time_out")
        )
        h = time_features(t) @ first[0].T + first[1]
        return np.asarray(silu(h) @ last[0].T + last[1])

    def predict(self, x: Floats, t: Doubles, labels: npt.NDArray[np.int64]) -> Floats:
        """Return the network's prediction ``[N, K]``: the readable twin of every other evaluation of it.

        Parameters
        ----------
        x
            Noisy rows ``[N, K]``.
        t
            Their times ``[N]``; the fewer different ones, the less there is to do.
        labels
            Their classes ``[N]``, C for none.
        """
        times, which = np.unique(t, return_inverse=True)
        condition = self.time_table(times).astype(np.float32)[which] + self.arrays["classes.weight"][labels]
        h = self._linear("input", x)
        if self.network == "adaln":
            condition = silu(condition)
        for layer in range(self.layers):
            if self.network == "additive":
                own = condition[:, layer * self.hidden : (layer + 1) * self.hidden]
                u = silu(self._linear(f"first.{layer}", h) + own)
                h = h + self._linear(f"second.{layer}", u)
            else:
                scale, shift, gate = np.split(self._linear(f"modulation.{layer}", condition), 3, axis=1)
                centred = h - h.mean(axis=1, keepdims=True)
                spread = np.sqrt(np.square(centred).mean(axis=1, keepdims=True) + np.float32(NORM_EPSILON))
                u = silu(self._linear(f"first.{layer}", centred / spread * (1 + scale) + shift))
                h = h + gate * self._linear(f"second.{layer}", u)
        return self._linear("output", silu(h))

    def _linear(self, name: str, x: Floats) -> Floats:
        return np.asarray(x @ self.arrays[f"{name}.weight"].T + self.arrays[f"{name}.bias"])

    def tables(self, t: Doubles) -> Tables:
        """Return the network as a sampler takes it, for the evaluation times t ``[S]``."""
        w, steps, classes = self.arrays, self.time_table(t), self.arrays["classes.weight"]
        common = {
            "w_in": w["input.weight"], "b_in": w["input.bias"],
            "w1": self._stack("first", "weight"),
            "w2": self._stack("second", "weight"), "b2": self._stack("second", "bias"),
            "w_out": w["output.weight"], "b_out": w["output.bias"],
        }  # fmt: skip
        first_bias = self._stack("first", "bias")
        if self.network == "additive":
            shape = (-1, self.layers, self.hidden)
            return DenoiserTables(
                **common, bias_step=(steps.reshape(shape) + first_bias).astype(np.float32),
                bias_class=classes.reshape(shape),
            )  # fmt: skip
        return AdaLNTables(
            **common, b1=first_bias,
            w_mod=self._stack("modulation", "weight"), b_mod=self._stack("modulation", "bias"),
            step=steps.astype(np.float32), class_=classes,
        )  # fmt: skip

    def _stack(self, module: str, name: str) -> Floats:
        return np.stack([self.arrays[f"{module}.{layer}.{name}"] for layer in range(self.layers)])


def silu(x: Any) -> Any:
    """Return x times its logistic function."""
    most = 700 if x.dtype == np.float64 else 80  # what exp has room for, and silu is zero from there on
    return x / (1 + np.exp(np.minimum(-x, x.dtype.type(most))))


def time_features(t: Doubles) -> Doubles:
    """Return cosines and sines of 1000 t ``[S, 64]`` at 32 frequencies, 1 down to 1e-4."""
    half = TIME_FEATURES // 2
    angles = 1000 * t[:, None] * np.exp(-math.log(1e4) * np.arange(half) / half)
    return np.concatenate([np.cos(angles), np.sin(angles)], axis=1)


def shapes(network: str, latent: int, classes: int, hidden: int, layers: int) -> dict[str, tuple[int, ...]]:
    """Return the shape of every array of a network.

    Parameters
    ----------
    network
        ``additive`` or ``adaln``.
    latent, classes, hidden, layers
        K, C, H and L.
    """
    condition = layers * hidden if network == "additive" else hidden
    linear = {"input": (hidden, latent)}
    for name in ("first", "second"):
        linear |= {f"{name}.{layer}": (hidden, hidden) for layer in range(layers)}
    linear |= {
        "output": (latent, hidden), "time_in": (hidden, TIME_FEATURES), "time_out": (condition, hidden),
    }  # fmt: skip
    if network == "adaln":
        linear |= {f"modulation.{layer}": (3 * hidden, hidden) for layer in range(layers)}
    found: dict[str, tuple[int, ...]] = {"classes.weight": (classes + 1, condition)}
    for name, shape in linear.items():
        found |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    return found
