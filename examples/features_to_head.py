"""Features to a head: fill the rare classes up, fine-tune, measure, and keep the head.

    python examples/features_to_head.py features.h5 head.safetensors

`features.h5` is a store with a test split; `ldmlr store import` makes one of .npz, .npy, Parquet and others.
"""

from __future__ import annotations

import sys

import numpy as np

import ldmlr


def main(store_path: str, head_path: str, iterations: int = 1500) -> dict[str, float]:
    """Train the head and return accuracies in per cent: of all test rows, and of the mean class."""
    store = ldmlr.FeatureStore.open(store_path)
    X, y = store.train.features, store.train.labels

    model = ldmlr.LatentDiffusion(iterations=iterations, seed=0).fit(X, y)
    print(model.learned)  # whether it knows more than a Gaussian per class

    counts = np.bincount(y, minlength=store.num_classes)
    labels = np.repeat(np.arange(store.num_classes), counts.max() - counts)  # every class up to the largest
    rows = model.sample(labels, seed=0)

    head = ldmlr.finetune(store, (rows, labels), seed=0)
    head.save(head_path)

    right = head.predict(store.test.features) == store.test.labels
    by_class = [right[store.test.labels == label].mean() for label in np.unique(store.test.labels)]
    return {"all": 100 * float(right.mean()), "mean of classes": 100 * float(np.mean(by_class))}


if __name__ == "__main__":
    print(main(*sys.argv[1:3]))
