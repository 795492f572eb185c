"""Losses of long-tailed classification, for integer and for soft (mixup) targets.

A loss is a function of logits ``[n, C]`` and targets, integer labels ``[n]`` or class weights
``[n, C]`` that sum to one, and returns the mean over the rows.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from ldmlr.errors import InputError, UsageError, nearest
from ldmlr.heads.config import LOSSES

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def log_prior(counts: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return ``log(n_c / N)`` of the training rows per class, ``[C]`` float64.

    Raises
    ------
    InputError
        A class has no row: its prior is zero and its logarithm unbounded.
    """
    count = np.asarray(counts, dtype=np.float64)
    if count.ndim != 1 or not len(count) or not np.all(count > 0):
        empty = np.flatnonzero(~(count > 0)).tolist()
        raise InputError(f"log prior: classes {empty[:5]} have no training row; remove them or add rows")
    prior: npt.NDArray[np.float64] = np.log(count / count.sum())
    return prior


def cross_entropy(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the mean cross-entropy of integer labels ``[n]`` or soft targets ``[n, C]``."""
    return F.cross_entropy(logits, targets)


def balanced_softmax(log_prior: npt.ArrayLike | torch.Tensor) -> Loss:
    """Return the balanced softmax loss (Ren et al., NeurIPS 2020): logit adjustment with tau 1.

    Parameters
    ----------
    log_prior
        Logarithm of the class frequencies of the rows it is trained on, ``[C]``.
    """
    return logit_adjusted(log_prior, 1.0)


def logit_adjusted(log_prior: npt.ArrayLike | torch.Tensor, tau: float = 1.0) -> Loss:
    """Return the logit-adjusted loss (Menon et al., ICLR 2021).

    The cross-entropy of ``logits + tau * log_prior``: the prior is learned by the offset, so the logits
    themselves come out as for balanced classes.

    Parameters
    ----------
    log_prior
        Logarithm of the class frequencies of the rows it is trained on, ``[C]``.
    tau
        Strength; 0 is the plain cross-entropy, 1 the balanced softmax.
    """
    offset = tau * torch.as_tensor(log_prior, dtype=torch.float32)

    def loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(logits + offset.to(logits), targets)

    return loss


def make_loss(name: str, counts: npt.ArrayLike, tau: float = 1.0) -> Loss:
    """Return the loss called ``cross-entropy``, ``balanced-softmax`` or ``logit-adjustment``.

    Parameters
    ----------
    name
        The name in configurations.
    counts
        Rows per class of the training set, ``[C]``; unused by the cross-entropy.
    tau
        Strength of the logit adjustment.
    """
    if name == "cross-entropy":
        return cross_entropy
    if name == "balanced-softmax":
        return balanced_softmax(log_prior(counts))
    if name == "logit-adjustment":
        return logit_adjusted(log_prior(counts), tau)
    raise UsageError(f"--loss: unknown value {name!r}; {nearest(name, LOSSES)}")
