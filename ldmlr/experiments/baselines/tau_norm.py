"""Tau-normalisation: class weights over ``norm^tau``, without a bias.

Source: Kang et al., "Decoupling Representation and Classifier for Long-Tailed Recognition", ICLR 2020.
They choose tau on held-out data. Clean training rows cannot stand for it (a head that has seen them is nearly
always right on them), so tau is 1 there; strongly augmented views can, as the head was never trained on them.
"""

from __future__ import annotations

import numpy as np
import torch

from ldmlr.arguments import view_group
from ldmlr.generation.train_rows import TrainRows
from ldmlr.heads.logits import logit_blocks
from ldmlr.heads.modules import LinearHead, linear_head
from ldmlr.metrics.accuracy import AccuracyCounter

# 0 leaves the weights as they are, 1 makes them equally long, and beyond that rare classes have the longest.
TAUS = tuple(round(0.1 * step, 1) for step in range(21))


def tau_normalised(head: LinearHead, tau: float) -> LinearHead:
    """Return a head whose class weights are those of `head` over their norm to the power `tau`."""
    with torch.no_grad():
        norm = head.weight.norm(dim=1, keepdim=True)
        # A class weight of zeros has no direction: it stays as it is.
        return linear_head(head.weight / torch.where(norm > 0, norm, 1.0) ** tau)


def choose_tau(head: LinearHead, rows: TrainRows) -> float:
    """Return the tau with the best class-balanced accuracy on the strong views (the smallest of equals).

    Without a strong view, all views are taken.
    """
    strong = [view for view, kind in zip(rows.views, rows.kinds, strict=True) if view_group(kind) == "strong"]
    views = strong or list(rows.views)
    features, labels = np.concatenate(views), np.tile(rows.labels, len(views))

    def balanced(tau: float) -> float:
        counter = AccuracyCounter(rows.num_classes)
        for part, logits in logit_blocks(tau_normalised(head, tau), features):
            counter.update(logits, labels[part])
        return counter.summary(rows.counts)["balanced"] or 0.0

    return max(TAUS, key=balanced)
