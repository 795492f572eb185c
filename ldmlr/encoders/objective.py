"""What a training step minimises: the loss of one or two views, their consistency and their contrast.

With two views the objective is that of GLMC (Du et al., CVPR 2023): with features f of the views a and b, a
projector g and a predictor h,

    z = g(f),  p = h(z)
    L = a * (CE(f_a) + CE(f_b)) + (1 - a) * (loss(f_a) + loss(f_b))
        - consistency * (cos(p_a, stop(z_b)) + cos(p_b, stop(z_a)))

where a = 1 - (epoch / epochs)^2 with ``cumulative`` (`Objective.begin`), and 0 without. The cross-entropy has
a head of its own, which is dropped after the training: it shapes the features while the head that is kept
learns from `loss` alone. Each part works without the others. Projector and predictor are linear, with 128
outputs.

A teacher takes a share w (``distil``) of what is before the consistency (Hinton et al., "Distilling the
Knowledge in a Neural Network", 2015): with its logits t, those s of the head that is kept, and the
temperature T,

    (1 - w) * L + w * T^2 * KL(softmax(t / T) || softmax(s / T))

Both are logits of balanced classes where the loss takes the prior off, so no prior enters here.

Two more terms are added, each with a weight of its own (`ldmlr.encoders.contrast`): ``contrast``, a
contrastive loss of the features of two views, and ``uniformity``, which pushes the class weights of the head
apart.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional as F

from ldmlr.encoders.config import BaselineConfig
from ldmlr.encoders.contrast import PROJECTION, Contrast, uniformity
from ldmlr.heads.losses import (
    Loss,
    balanced_softmax,
    binary_cross_entropy,
    cross_entropy,
    ldam,
    log_prior,
    weighted_cross_entropy,
)
from ldmlr.heads.modules import Head


def training_loss(config: BaselineConfig, counts: npt.NDArray[np.int64]) -> Loss:
    """Return the loss that a configuration names.

    Parameters
    ----------
    config
        The name and its parameters.
    counts
        Training images per class, ``[C]``.
    """
    if config.loss == "balanced-softmax":
        return balanced_softmax(log_prior(counts))
    if config.loss == "weighted":
        return weighted_cross_entropy(counts, config.weight_power)
    if config.loss == "ldam":
        return ldam(counts, config.margin)
    if config.loss == "binary":
        return binary_cross_entropy(counts, config.tau)
    return cross_entropy


class Consistency(nn.Module):
    """Projector and predictor, and how far two views of the same images agree.

    Parameters
    ----------
    dim
        Feature dimensions D.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.projector = nn.Linear(dim, PROJECTION)
        self.predictor = nn.Linear(PROJECTION, PROJECTION)

    def forward(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        """Return the negative cosine of features ``[n, D]`` of two views, both ways: -2 to 2."""
        targets = self.projector(first), self.projector(second)
        agreement = F.cosine_similarity(self.predictor(targets[0]), targets[1].detach(), dim=1)
        agreement = agreement + F.cosine_similarity(self.predictor(targets[1]), targets[0].detach(), dim=1)
        return -agreement.mean()


class Objective(nn.Module):
    """The head, what else is trained beside it, and the loss.

    Parameters
    ----------
    config
        Which parts there are.
    head
        The head that is kept.
    counts
        Training images per class, ``[C]``.
    """

    def __init__(self, config: BaselineConfig, head: Head, counts: npt.NDArray[np.int64]) -> None:
        super().__init__()
        self.weight, self.epochs = config.consistency, config.epochs
        # Shares of the losses with `cumulative`: on the device, so that a graph of a step reads them anew.
        self.early: torch.Tensor
        self.late: torch.Tensor
        self.register_buffer("early", torch.ones(()), persistent=False)
        self.register_buffer("late", torch.zeros(()), persistent=False)
        self.distil, self.temperature = config.distil, config.temperature
        self.loss = training_loss(config, counts)
        self.head = head
        self.plain_head = copy.deepcopy(head) if config.cumulative else None
        self.agreement = Consistency(head.dim) if config.consistency else None
        self.contrast_weight, self.uniformity = config.contrast, config.uniformity
        self.contrast = (
            Contrast(config.contrast_loss, config.contrast_temperature, head.dim) if config.contrast else None
        )

    def begin(self, epoch: int) -> None:
        """Take note of how many epochs are done; nothing waits for the device."""
        share = (epoch / self.epochs) ** 2
        self.early.fill_(1 - share)
        self.late.fill_(share)

    def forward(
        self,
        features: Sequence[torch.Tensor],
        targets: Sequence[torch.Tensor],
        taught: Sequence[torch.Tensor] = (),
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Return the objective and the logits of each view by the head that is kept.

        Parameters
        ----------
        features
            Of one or two views, ``[n, D]`` float32.
        targets
            Class weights of each view, ``[n, C]``.
        taught
            A teacher's logits of each view, ``[n, C]``; none without one.
        """
        logits = [self.head(view) for view in features]
        total = sum_of(self.loss, logits, targets)
        if self.plain_head is not None:
            plain = sum_of(cross_entropy, [self.plain_head(view) for view in features], targets)
            total = self.early * plain + self.late * total
        if len(taught):
            matched = sum_of(functools.partial(distillation, temperature=self.temperature), logits, taught)
            total = (1 - self.distil) * total + self.distil * matched
        if self.agreement is not None:
            total = total + self.weight * self.agreement(features[0], features[1])
        if self.contrast is not None:
            weight = self.head.get_parameter("weight")
            between = self.contrast(features[0], features[1], torch.cat(list(targets)), weight)
            total = total + self.contrast_weight * between
        if self.uniformity:
            total = total + self.uniformity * uniformity(self.head.get_parameter("weight"))
        return total, logits


def distillation(logits: torch.Tensor, taught: torch.Tensor, temperature: float) -> torch.Tensor:
    """Return ``T^2 KL(softmax(taught / T) || softmax(logits / T))``, the mean over rows of ``[n, C]``."""
    found, wanted = (F.log_softmax(values / temperature, dim=1) for values in (logits, taught))
    return temperature**2 * F.kl_div(found, wanted, reduction="batchmean", log_target=True)


def sum_of(loss: Loss, logits: Sequence[torch.Tensor], targets: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return the sum of a loss over views."""
    return torch.stack([loss(*pair) for pair in zip(logits, targets, strict=True)]).sum()
