"""Heads without generation that LDMLR is compared with: cRT, tau-normalisation and nearest class mean.

**cRT**, class-balanced re-training: a fresh head on draws in which all classes are alike. Every pass shows as
many rows of each class as the largest class has, so a rare row comes many times. A fresh head has further to
go than the baseline's. The schedule of stage 3 is kept where it can get a linear head as far: half its rate
times its steps (Adam's steps are at most the rate) reaches the size of the baseline's weights. It does on the
CIFAR-LT stores, and a longer one is worse there (CIFAR-10-LT with views, 30 passes at a rate of 0.01: 79.8
instead of 80.1, with label shift 81.7 instead of 82.3). Elsewhere, and for a cosine or WCDAS head, it is at
least that of a baseline fitted from random weights.

**Tau-normalisation**: class weights over ``norm^tau``, without a bias. Its authors choose tau on held-out
data. Clean training rows cannot stand for it (a head that has seen them is nearly always right on them), so
tau is 1 there; strongly augmented views can, as the head was never trained on them.

**Nearest class mean**: the class whose mean is nearest in Euclidean distance.

Source of the first two: Kang et al., "Decoupling Representation and Classifier for Long-Tailed Recognition",
ICLR 2020.
"""

from __future__ import annotations

import numpy as np
import torch

from ldmlr.arguments import strong_views
from ldmlr.generation.plan import Counts
from ldmlr.generation.train_rows import Labels, TrainRows
from ldmlr.heads.config import FinetuneConfig
from ldmlr.heads.logits import logit_blocks
from ldmlr.heads.modules import Head, LinearHead, linear_head
from ldmlr.heads.spec import HeadSpec
from ldmlr.heads.statistical import ClassMeanPath, over_norms
from ldmlr.heads.training import FITTED, pass_steps
from ldmlr.heads.training_rows import TrainingRows
from ldmlr.metrics.accuracy import AccuracyCounter

# 0 leaves the weights as they are, 1 makes them equally long, and beyond that rare classes have the longest.
TAUS = tuple(round(0.1 * step, 1) for step in range(21))


def balanced_rows(rows: TrainRows, seed: int, views: bool = False) -> TrainingRows:
    """Return rows in which every class is as large as the largest; `views` adds the augmented views."""
    features, labels = rows.with_views() if views else (rows.features, rows.labels)
    counts = np.bincount(labels, minlength=rows.num_classes)
    chosen = deck(labels, np.full_like(counts, counts.max()), seed)
    return TrainingRows(features[chosen], labels[chosen], len(chosen), rows.num_classes, rows.name)


def deck(labels: Labels, plan: Counts, seed: int) -> Labels:
    """Return numbers of rows, ``plan[c]`` of each class c, class by class.

    Every row of a class comes equally often; what is left over is drawn without replacement.

    Parameters
    ----------
    labels
        Classes ``[N]``.
    plan
        Rows to take per class ``[C]``.
    seed
        Seed of the draws that are left over.
    """
    random = np.random.default_rng(seed)
    parts = []
    for number, wanted in enumerate(plan):
        own = np.flatnonzero(labels == number)
        whole, rest = divmod(int(wanted), len(own))
        parts += [np.tile(own, whole), random.permutation(own)[:rest]]
    return np.concatenate(parts)


def fresh_config(config: FinetuneConfig, baseline: Head, rows: TrainingRows) -> FinetuneConfig:
    """Return stage 3 from a fresh head on `rows`, with a longer schedule where it needs one."""
    fresh = config.replace(init="fresh")
    if config.head == "linear" and isinstance(baseline, LinearHead):
        size = float(baseline.weight.detach().double().square().mean().sqrt())
        steps = config.epochs * pass_steps(len(rows.labels), config.batch_size)
        if 0.5 * config.lr * steps >= size:
            return fresh
    return fresh.replace(epochs=max(config.epochs, FITTED.epochs), lr=max(config.lr, FITTED.lr))


def tau_normalised(head: LinearHead, tau: float) -> LinearHead:
    """Return a head whose class weights are those of `head` over their norm to the power `tau`."""
    with torch.no_grad():
        return linear_head(over_norms(head.weight, tau))


def choose_tau(head: LinearHead, rows: TrainRows) -> float:
    """Return the tau with the best class-balanced accuracy on the strong views (the smallest of equals).

    Without a strong view, all views are taken.
    """
    views = strong_views(rows.views, rows.kinds)
    features, labels = np.concatenate(views), np.tile(rows.labels, len(views))

    def balanced(tau: float) -> float:
        counter = AccuracyCounter(rows.num_classes)
        for part, logits in logit_blocks(tau_normalised(head, tau), features):
            counter.update(logits, labels[part])
        return counter.summary(rows.counts)["balanced"] or 0.0

    return max(TAUS, key=balanced)


def nearest_class_mean(rows: TrainRows, views: bool = False) -> LinearHead:
    """Return the head; `views` counts the augmented views into the means."""
    spec, own = HeadSpec("ncm"), rows.training_rows(views)
    return ClassMeanPath(own, np.ones(len(own.labels))).fit(spec)
