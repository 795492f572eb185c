"""Rows of overlapping classes, one per axis, many of the first and few of the last."""

from __future__ import annotations

import numpy as np

COUNTS = (240, 60, 12)

DIM = 6


def draw(counts, seed=0, offset=0.0):
    """Rows of overlapping Gaussian classes, one per axis."""
    generator = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(counts)), counts)
    features = generator.normal(size=(len(labels), DIM)) + 2.2 * np.eye(len(counts), DIM)[labels] + offset
    return features.astype(np.float32), labels
