"""Features brought to mean 0 and variance 1 per dimension, so that a weight decay means the same everywhere.

Heads are fitted in these units and taken back to those of the rows afterwards: what is saved
takes features as they are.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt
import torch

BLOCK = 16384


@dataclasses.dataclass(frozen=True)
class Standard:
    """Mean and spread of features.

    Parameters
    ----------
    mean, spread
        ``[D]`` float64; the spread of a constant dimension is 1, so that it becomes zero.
    """

    mean: npt.NDArray[np.float64]
    spread: npt.NDArray[np.float64]

    @classmethod
    def of(cls, features: npt.NDArray[np.float32]) -> Standard:
        """Return those of rows ``[N, D]``, summed block by block in float64."""
        count, dim = features.shape
        # Around the first row: squares of a large common offset would swallow the variance.
        centre = features[0].astype(np.float64)
        total, squares = np.zeros(dim), np.zeros(dim)
        for at in range(0, count, BLOCK):
            block = features[at : at + BLOCK] - centre
            total += block.sum(axis=0)
            squares += np.einsum("nd,nd->d", block, block)
        mean = total / count
        spread = np.sqrt(np.maximum(squares / count - mean**2, 0))
        mean += centre
        # What float32 cannot tell from a constant of this size is one; units of dimensions may differ widely.
        spread[spread <= 2 * np.finfo(np.float32).eps * np.abs(mean)] = 1.0
        return cls(mean, spread)

    def apply(self, features: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return standardised rows ``[n, D]`` in float32: a copy."""
        scaled: npt.NDArray[np.float32] = features - self.mean.astype(np.float32)
        scaled *= (1 / self.spread).astype(np.float32)
        return scaled

    def tensors(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return mean and inverse spread in float32."""
        return torch.from_numpy(self.mean).float(), torch.from_numpy(1 / self.spread).float()

    def fold(self, weight: torch.Tensor, bias: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return weights ``[K, D]`` and biases ``[K]`` for features as they are.

        Given are those for standardised features. Computed in float64, returned in float32.
        """
        raw = weight.double() / torch.from_numpy(self.spread)
        return raw.float(), (bias.double() - raw @ torch.from_numpy(self.mean)).float()
