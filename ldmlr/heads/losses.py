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

from ldmlr.errors import InputError, UsageError, nearest, opt
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


class Constant:
    """A tensor that is moved once to where it is needed: a copy in every step would make a GPU wait."""

    def __init__(self, value: torch.Tensor) -> None:
        self.value = self.near = value

    def beside(self, other: torch.Tensor) -> torch.Tensor:
        """Return it on the device and in the type of another tensor."""
        if (self.near.device, self.near.dtype) != (other.device, other.dtype):
            self.near = self.value.to(other)
        return self.near


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
    offset = Constant(tau * torch.as_tensor(log_prior, dtype=torch.float32))

    def loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(logits + offset.beside(logits), targets)

    return loss


def weighted_cross_entropy(counts: npt.ArrayLike, power: float = 1.0) -> Loss:
    """Return the cross-entropy whose class c weighs ``n_c^-power``, the weights averaging one over classes.

    Parameters
    ----------
    counts
        Rows per class of the training set, ``[C]``.
    power
        0 is the plain cross-entropy, 1 gives every class the same say.
    """
    log_weight = -power * log_prior(counts)
    weight = np.exp(log_weight - log_weight.max())
    weights = Constant(torch.as_tensor(weight / weight.mean(), dtype=torch.float32))

    def loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        soft = _soft(targets, logits) * weights.beside(logits)
        return -(soft * F.log_softmax(logits, dim=1)).sum(1).mean()

    return loss


def ldam(counts: npt.ArrayLike, margin: float = 15.0) -> Loss:
    """Return the label-distribution-aware margin loss (LDAM, Cao et al., NeurIPS 2019).

    The cross-entropy after the logit of the target class c has been lowered by
    ``margin * (n_min / n_c)^(1/4)``: a class must win by its margin, and the rarest has the largest. For a
    soft target it is the mean of the classes' losses, each with its own margin.

    Parameters
    ----------
    counts
        Rows per class of the training set, ``[C]``.
    margin
        Margin of the rarest class, in units of the logits. The paper's 0.5 of a cosine at scale 30 is 15.
    """
    prior = log_prior(counts)
    margins = Constant(torch.as_tensor(margin * np.exp((prior.min() - prior) / 4), dtype=torch.float32))

    def loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        shift = margins.beside(logits)
        log_p = F.log_softmax(logits, dim=1)
        # Lowering one logit by m changes the normaliser by the factor 1 - p + p exp(-m). For all
        # classes at once, and without cancellation where p is nearly one.
        normaliser = torch.log(-torch.expm1(log_p) + torch.exp(log_p - shift))
        return (_soft(targets, logits) * (shift - log_p + normaliser)).sum(1).mean()

    return loss


def binary_cross_entropy(counts: npt.ArrayLike, tau: float = 1.0) -> Loss:
    """Return the sum over classes of the binary cross-entropy, each class with a margin by its size.

    No class stands in another's denominator: each asks by itself whether a row is one of its own. With the
    share ``p_c = n_c / N`` of the rows, ``logit(p) = log(p / (1 - p))`` and targets t,

        offset_c = logit(1 / C) + tau (logit(p_c) - logit(1 / C))
        loss = sum_c t_c softplus(-(s_c + offset_c)) + (1 - t_c) softplus(s_c + offset_c)

    averaged over rows. With ``tau`` 1 a logit of zero means the odds of the class among the training rows, so
    that the logits themselves come out as for balanced classes: logit adjustment (Menon et al., ICLR 2021)
    for sigmoids. That the cross-entropy of sigmoids suits long tails is the observation of BCE3S (Fan et al.,
    AAAI 2026, arXiv 2511.14097); their loss has no offset, the margins are ours.

    Parameters
    ----------
    counts
        Rows per class of the training set, ``[C]``.
    tau
        Strength of the class sizes; 0: every class starts as if it were one of C equal ones.
    """
    prior = log_prior(counts)
    if len(prior) < 2:
        raise InputError("binary cross-entropy: expected two classes at least, found one; use another loss")
    odds = prior - np.log(-np.expm1(prior))
    even = -np.log(len(prior) - 1)
    offset = Constant(torch.as_tensor(even + tau * (odds - even), dtype=torch.float32))

    def loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        shifted, soft = logits + offset.beside(logits), _soft(targets, logits)
        return F.binary_cross_entropy_with_logits(shifted, soft, reduction="none").sum(1).mean()

    return loss


def _soft(targets: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """Return targets as class weights ``[n, C]``."""
    if targets.ndim == logits.ndim:
        return targets
    return F.one_hot(targets, logits.shape[1]).to(logits)


def added_offset(name: str, counts: npt.ArrayLike, tau: float = 1.0) -> npt.NDArray[np.float64]:
    """Return what a loss of `ldmlr.heads.config.LOSSES` adds to the logits, ``[C]``: zeros if nothing.

    Parameters
    ----------
    name
        Of the loss.
    counts
        What the training rows of each class count, ``[C]``.
    tau
        Strength of the logit adjustment.
    """
    if name == "balanced-softmax":
        return log_prior(counts)
    if name == "logit-adjustment":
        return tau * log_prior(counts)
    return np.zeros(len(np.asarray(counts)))


def make_loss(name: str, counts: npt.ArrayLike, tau: float = 1.0) -> Loss:
    """Return the loss of a name in `ldmlr.heads.config.LOSSES`.

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
    if name == "class-weights":
        return weighted_cross_entropy(counts)
    raise UsageError(f"{opt('loss')}: unknown value {name!r}; {nearest(name, LOSSES)}")
