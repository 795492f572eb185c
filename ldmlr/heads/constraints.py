"""Constraints on weights, put into force after every step of the optimiser."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
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


@torch.no_grad()
def monotone_norms(weight: torch.Tensor, counts: npt.NDArray[np.int64]) -> None:
    """Change, in place, the lengths of rows so that none is shorter than that of a class with more rows.

    The lengths become their isotonic regression on the class sizes (pool adjacent violators); directions
    stay. So the weights move to the nearest ones that obey, and classes of one size get one length.
    Training on imbalanced rows leaves rare classes with short weights and so with low scores; an order
    needs no strength to be chosen, as a bound or a weight decay does. The idea is that of SAMN (Zhang, Li
    and Zhu, "Why Not Hyperparameter-Friendly Optimisation?", CVPR 2026, arXiv 2606.02526), who train a
    scale for each class behind the regression, for weights and biases; here weights alone are projected
    after each step.

    Parameters
    ----------
    weight
        Weights of a linear head, ``[C, D]``.
    counts
        Encoded rows per class, ``[C]``.
    """
    from sklearn.isotonic import IsotonicRegression

    norms = torch.linalg.vector_norm(weight, dim=1)
    lengths = norms.double().cpu().numpy()
    if not np.isfinite(lengths).all():
        return  # nothing to put in order: the loss says it
    wanted = IsotonicRegression(increasing=False).fit_transform(counts, lengths)
    # Rows that keep their length are multiplied by exactly one; zeros have no direction to be longer in.
    factor = np.where(wanted == lengths, 1.0, wanted / np.maximum(lengths, np.finfo(np.float32).tiny))
    factor[lengths == 0] = 1.0
    weight.mul_(torch.from_numpy(factor).to(weight)[:, None])
