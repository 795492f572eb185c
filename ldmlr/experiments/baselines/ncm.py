"""Nearest class mean: the class whose mean is nearest in Euclidean distance.

Written as a linear head: ``-|x - mu|^2 / 2 = mu . x - |mu|^2 / 2`` up to a term that all classes share.
"""

from __future__ import annotations

import numpy as np
import torch

from ldmlr.generation.train_rows import TrainRows
from ldmlr.heads.modules import LinearHead, linear_head


def nearest_class_mean(rows: TrainRows, views: bool = False) -> LinearHead:
    """Return the head; `views` counts the augmented views into the means."""
    features, labels = rows.with_views() if views else (rows.features, rows.labels)
    mean = np.stack([features[labels == c].mean(axis=0, dtype=np.float64) for c in range(rows.num_classes)])
    return linear_head(torch.from_numpy(mean), torch.from_numpy(-0.5 * np.square(mean).sum(axis=1)))
