"""Two principal components of a few classes: encoded, generated and test rows in one plane."""

from __future__ import annotations

from typing import Any

import numpy as np

from ldmlr.store import FeatureStore
from ldmlr.store.split import sample_rows

CLASSES = 6
POINTS = 150


def project(store: FeatureStore, pseudo: FeatureStore, *, seed: int = 0) -> dict[str, Any]:
    """Return the rows of up to six classes in the plane of most variance.

    Classes with generated rows are taken evenly from many to few training rows. The plane is that of their
    encoded and test rows, every class with the same weight; generated rows have no say in it.

    Returns
    -------
    dict
        ``explained`` (share of the variance in the plane) and per class ``name``, ``train_rows``,
        ``generated_rows`` and the points ``encoded``, ``generated`` and ``test``, at most 150 of each.
    """
    train, made = store.split("train"), pseudo.split("train")
    drawn = _counts(made, 1)
    counts = _counts(train, 0)
    present = np.flatnonzero((drawn > 0) & (counts > 0))
    ranked = present[np.argsort(-counts[present], kind="stable")]
    chosen = ranked[np.unique(np.linspace(0, len(ranked) - 1, min(CLASSES, len(ranked))).round().astype(int))]
    limit = np.zeros(store.num_classes, np.int64)
    limit[chosen] = POINTS
    parts = {
        "encoded": sample_rows(train, limit, seed=seed, source=0),
        "generated": sample_rows(made, limit, seed=seed, source=1),
    }
    if store.test is not None:
        parts["test"] = sample_rows(store.test, limit, seed=seed, source=0)
    base = [parts[kind] for kind in ("encoded", "test") if kind in parts]
    rows = np.concatenate([part[0] for part in base]).astype(np.float64)
    labels = np.concatenate([part[1] for part in base])
    weight = 1.0 / np.bincount(labels, minlength=store.num_classes)[labels]
    weight /= weight.sum()
    centre = weight @ rows
    centred = rows - centre
    values, vectors = np.linalg.eigh((centred * weight[:, None]).T @ centred)
    axes = vectors[:, ::-1][:, : min(2, rows.shape[1])]
    # The sign of an axis is free; its largest entry is made positive so that the picture is always the same.
    axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])
    names = store.class_names or pseudo.class_names
    placed = {
        kind: (np.pad((part[0] - centre) @ axes, ((0, 0), (0, 2 - axes.shape[1]))), part[1])
        for kind, part in parts.items()
    }
    total = float(np.clip(values, 0, None).sum())
    return {
        "explained": float(np.clip(values[::-1][:2], 0, None).sum() / total) if total > 0 else 1.0,
        "classes": [
            {
                "class": int(label), "name": names[label] if names else str(label),
                "train_rows": int(counts[label]), "generated_rows": int(drawn[label]),
                **{
                    kind: placed[kind][0][placed[kind][1] == label].tolist() if kind in placed else []
                    for kind in ("encoded", "generated", "test")
                },
            }
            for label in chosen
        ],
    }  # fmt: skip


def _counts(split: Any, source: int) -> Any:
    if split.source is None:
        return split.counts
    return np.bincount(split.labels[np.asarray(split.source) == source], minlength=split.num_classes)
