"""Small models that are trained in a moment."""

from __future__ import annotations

import numpy as np

import ldmlr


def three_blobs(counts, fit=None, **options):
    """Return a model of three classes far apart, of `counts` rows of 4 numbers."""
    random = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), counts)
    features = random.standard_normal((len(labels), 4)) + 5 * np.eye(3, 4)[labels]
    return ldmlr.LatentDiffusion(layers=1, **options).fit(features.astype(np.float32), labels, **(fit or {}))
