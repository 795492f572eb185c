"""Constraints on weights, put into force after every step of the optimiser."""

from __future__ import annotations

import torch


@torch.no_grad()
def max_norm(weight: torch.Tensor, bound: float | torch.Tensor) -> None:
    """Shorten, in place, every row that is longer than `bound` to that length.

    The projection onto the ball of radius `bound` for each class (MaxNorm, Alshammari et al., CVPR 2022):
    frequent classes cannot win by long weights, rare ones may still grow up to the bound.

    Parameters
    ----------
    weight
        Weights of a linear head, ``[C, D]``.
    bound
        Largest Euclidean norm of a row.
    """
    norms = torch.linalg.vector_norm(weight, dim=1, keepdim=True)
    # Rows within the bound, and those of zeros, are multiplied by exactly one.
    weight.mul_((bound / norms.clamp_min(torch.finfo(norms.dtype).tiny)).clamp_max(1))


@torch.no_grad()
def limit_norms(weight: torch.Tensor, limit: float) -> None:
    """Shorten, in place, every row that is longer than `limit` times the mean length to that length.

    Around 1, classes end nearly equally long while the loss still sets their common scale, which a fixed
    bound would have to know (the aim of tau-normalisation, Kang et al., ICLR 2020, reached in training).

    Parameters
    ----------
    weight
        Weights of a linear head, ``[C, D]``.
    limit
        Largest length in units of the mean over rows, 1 or more.
    """
    max_norm(weight, limit * torch.linalg.vector_norm(weight, dim=1).mean())
