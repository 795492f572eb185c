"""Rows of classes that lie well apart, and a model small enough to train on them at once."""

from __future__ import annotations

import numpy as np

from ldmlr.store import FeatureStore, SplitData

SMALL = {"hidden": 16, "layers": 1, "iterations": 30, "batch_size": 32}


def blobs(counts=(60, 25, 8), dim=4, seed=0):
    """Return rows of a few classes, well apart, and their labels."""
    generator = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(counts)), counts)
    means = 6 * generator.standard_normal((len(counts), dim))
    return (means[labels] + generator.standard_normal((len(labels), dim))).astype(np.float32), labels


def blob_store(path):
    """Write a store of these rows with two weak and two strong views, and return it."""
    features, labels = blobs()
    views = np.stack([features + 0.1, features - 0.1, features + 0.5, features - 0.5])
    train = SplitData(features, labels, views=views, view_kinds=("weak", "weak", "strong", "strong"))
    return FeatureStore.write(path, train=train, class_names=("a", "b", "c"))
