"""Class-balanced re-training (cRT): a fresh head on draws in which all classes are alike.

Source: Kang et al., "Decoupling Representation and Classifier for Long-Tailed Recognition", ICLR 2020.
Every pass shows as many rows of each class as the largest class has, so a rare row comes many times.
"""

from __future__ import annotations

import numpy as np

from ldmlr.heads.rows import TrainingRows
from ldmlr.rivals.copies import deck
from ldmlr.rivals.rows import TrainRows


def balanced_rows(rows: TrainRows, seed: int, views: bool = False) -> TrainingRows:
    """Return rows in which every class is as large as the largest; `views` adds the augmented views."""
    features, labels = rows.with_views() if views else (rows.features, rows.labels)
    counts = np.bincount(labels, minlength=rows.num_classes)
    chosen = deck(labels, np.full_like(counts, counts.max()), seed)
    return TrainingRows(features[chosen], labels[chosen], len(chosen), rows.num_classes, rows.name)
