"""Rows of classes that lie well apart, and a model small enough to train on them at once."""

from __future__ import annotations

import numpy as np

SMALL = {"hidden": 16, "layers": 1, "iterations": 30, "batch_size": 32}


def blobs(counts=(60, 25, 8), dim=4, seed=0):
    """Return rows of a few classes, well apart, and their labels."""
    generator = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(counts)), counts)
    means = 6 * generator.standard_normal((len(counts), dim))
    return (means[labels] + generator.standard_normal((len(labels), dim))).astype(np.float32), labels
