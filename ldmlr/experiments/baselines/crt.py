"""Class-balanced re-training (cRT): a fresh head on draws in which all classes are alike.

Source: Kang et al., "Decoupling Representation and Classifier for Long-Tailed Recognition", ICLR 2020.
Every pass shows as many rows of each class as the largest class has, so a rare row comes many times.

A fresh head has further to go than the baseline's. The schedule of stage 3 is kept where it can get a linear
head as far: half its rate times its steps (Adam's steps are at most the rate) reaches the size of the
baseline's weights. It does on the CIFAR-LT stores, and a longer one is worse there (CIFAR-10-LT with views,
30 passes at a rate of 0.01: 79.8 instead of 80.1, with label shift 81.7 instead of 82.3). Elsewhere, and for
a cosine or WCDAS head, it is at least that of a baseline fitted from random weights.
"""

from __future__ import annotations

import numpy as np

from ldmlr.generation.plan import Counts
from ldmlr.generation.train_rows import Labels, TrainRows
from ldmlr.heads.config import FinetuneConfig
from ldmlr.heads.modules import Head, LinearHead
from ldmlr.heads.training import FITTED, pass_steps
from ldmlr.heads.training_rows import TrainingRows


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
        steps = config.epochs * pass_steps(len(rows.labels), config.batch)
        if 0.5 * config.lr * steps >= size:
            return fresh
    return fresh.replace(epochs=max(config.epochs, FITTED.epochs), lr=max(config.lr, FITTED.lr))
