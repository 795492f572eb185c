"""Losses on the features themselves, and on the class weights of the head, beside the classification.

Two views of n images are 2n features. A projector g, two layers that are dropped after the training, maps
each to a unit vector z; s_ik = z_i . z_k / temperature. With the class weights y of the targets, which mixup
may have blended, q_ik = y_i . y_k is how far i and k are of one class: 1 or 0 where nothing is blended.

``supervised`` (Khosla et al., NeurIPS 2020, their L_out) is the cross-entropy of finding those of one's class
among all other features:

    - sum_k q_ik (s_ik - log sum_{m != i} exp s_im) / sum_k q_ik,  k != i

``balanced`` (Zhu et al., "Balanced Contrastive Learning", CVPR 2022) gives all classes one say in the
denominator, whatever the batch has of them: it is a sum over classes of means (class averaging). A projection
of the head's class weights takes part as one more feature of each class, so that none is missing (class
complement). Theirs classifies a third view, augmented otherwise; here the two views do both.

``binary`` asks of every pair by itself whether it is of one class. Each class of the batch has one say here
too:

    sum_c mean_{k of c, k != i} q_ik softplus(-(s_ik - b)) + (1 - q_ik) softplus(s_ik - b),  b = log(C - 1)

b are the odds against a pair where classes come equally often. This follows the idea of the contrastive part
of BCE3S (Fan et al., AAAI 2026, arXiv 2511.14097), which compares with one remembered feature of each class;
the pairs of the batch in its place and b are ours, so their figures are not to be expected.

Every shape depends on the batch's alone and nothing waits for the device, as CUDA graphs need it.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F

PROJECTION = 128


def uniformity(weight: torch.Tensor) -> torch.Tensor:
    """Return how close to each other class weights ``[C, D]`` point.

    The mean over classes c of ``sum_k softplus(cos(w_c, w_k))``, k other than c. The uniform learning of
    BCE3S (Fan et al., AAAI 2026, arXiv 2511.14097): the classifier's vectors are told apart by the binary
    cross-entropy, as features are. What a vector has with itself is constant and left out.
    """
    unit = F.normalize(weight, dim=1)
    own = torch.eye(len(unit), dtype=torch.bool, device=unit.device)
    return F.softplus(unit @ unit.T).masked_fill(own, 0).sum(1).mean()


def supervised(s: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the supervised contrastive loss.

    Parameters
    ----------
    s
        Similarities over the temperature, ``[m, m]``.
    targets
        Class weights of the features, ``[m, C]``.
    """
    others = ~torch.eye(len(s), dtype=torch.bool, device=s.device)
    normaliser = s.masked_fill(~others, -math.inf).logsumexp(1, keepdim=True)
    return _matched(s - normaliser, (targets @ targets.T) * others)


def balanced(s: torch.Tensor, targets: torch.Tensor, classes: int) -> torch.Tensor:
    """Return the balanced contrastive loss.

    Parameters
    ----------
    s
        Similarities over the temperature of features, those of the classes last: ``[m, m + C]``.
    targets
        Class weights of the features, ``[m, C]``.
    classes
        Classes C.
    """
    members = torch.cat([targets, torch.eye(classes, dtype=targets.dtype, device=s.device)])
    others = torch.ones_like(s, dtype=torch.bool).fill_diagonal_(False)
    # What each member counts for an anchor: one over the members of its class, without the anchor.
    share = (members.sum(0) - targets).reciprocal() @ members.T
    normaliser = (s + share.log()).masked_fill(~others, -math.inf).logsumexp(1, keepdim=True)
    return _matched(s - normaliser, (targets @ members.T) * others)


def binary(s: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the binary contrastive loss of similarities ``[m, m]`` and class weights ``[m, C]``."""
    same = targets @ targets.T
    apart = s - math.log(max(targets.shape[1] - 1, 1))
    pairs = F.binary_cross_entropy_with_logits(apart, same, reduction="none")
    others = ~torch.eye(len(s), dtype=torch.bool, device=s.device)
    # A class of which there is nothing but the anchor has no say.
    rest = (targets.sum(0) - targets).clamp_min(torch.finfo(targets.dtype).eps)
    return (pairs * (rest.reciprocal() @ targets.T) * others).sum(1).mean()


def _matched(log_share: torch.Tensor, same: torch.Tensor) -> torch.Tensor:
    """Return the mean over anchors of minus `log_share`, each the mean over what is of its class."""
    wanted = same.sum(1).clamp_min(torch.finfo(same.dtype).eps)
    return -((same * log_share).sum(1) / wanted).mean()


def projector(dim: int) -> nn.Sequential:
    """Return two layers from features to the vectors that are compared."""
    return nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, PROJECTION))


class Contrast(nn.Module):
    """The projectors and the loss between the features of two views.

    Parameters
    ----------
    kind
        ``supervised``, ``balanced`` or ``binary``.
    temperature
        Cosines are divided by it.
    dim
        Feature dimensions D.
    """

    def __init__(self, kind: str, temperature: float, dim: int) -> None:
        super().__init__()
        self.kind, self.temperature = kind, temperature
        self.projector = projector(dim)
        self.of_classes = projector(dim) if kind == "balanced" else None

    def forward(
        self, first: torch.Tensor, second: torch.Tensor, targets: torch.Tensor, weight: torch.Tensor
    ) -> torch.Tensor:
        """Return the loss.

        Parameters
        ----------
        first, second
            Features of the two views, ``[n, D]`` float32.
        targets
            Class weights of both, one after the other, ``[2n, C]``.
        weight
            Class weights of the head, ``[C, D]``; only ``balanced`` looks at them.
        """
        anchors = F.normalize(self.projector(torch.cat([first, second])), dim=1)
        if self.of_classes is not None:
            members = torch.cat([anchors, F.normalize(self.of_classes(weight), dim=1)])
            return balanced(anchors @ members.T / self.temperature, targets, len(weight))
        s = anchors @ anchors.T / self.temperature
        return supervised(s, targets) if self.kind == "supervised" else binary(s, targets)
