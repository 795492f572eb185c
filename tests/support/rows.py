"""Training rows with views, in memory."""

from __future__ import annotations

import numpy as np

from ldmlr.generation.train_rows import TrainRows

COUNTS = (40, 12, 3, 1)


def make_rows(counts=COUNTS, dim=5, apart=1.0, views=3, seed=0) -> TrainRows:
    """Gaussian classes `apart` from each other, with views that are noisy copies."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(counts)), counts)
    centre = apart * rng.normal(size=(len(counts), dim))
    features = (centre[labels] + rng.normal(size=(len(labels), dim))).astype(np.float32)
    noisy = [features + rng.normal(scale=0.3, size=features.shape).astype(np.float32) for _ in range(views)]
    kinds = ("weak", "weak", "strong")[:views]
    return TrainRows(features, labels, tuple(noisy), kinds, len(counts), "rows")
