"""Seeded samples of a split, class by class, without reading the whole split."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ldmlr.store.layout import Float32, Int64
from ldmlr.store.split import Split

# Labels looked at together. The sample does not depend on it.
BLOCK = 1 << 18


def sample_index(
    split: Split, per_class: npt.ArrayLike, *, seed: int = 0, source: int | None = None
) -> Int64:
    """Return row numbers of a random sample with at most so many rows of each class, in rising order.

    Every row draws a number from one seeded stream, and the rows with the smallest numbers of each class
    are kept, so memory grows with the sample and not with the split.

    Parameters
    ----------
    split
        The rows.
    per_class
        Most rows of each class: a number, or ``[C]``.
    seed
        Seed of the draw.
    source
        Take only encoded (0) or generated (1) rows; a split without ``source`` counts as either.
    """
    limit = np.broadcast_to(np.asarray(per_class, np.int64), (split.num_classes,))
    rng = np.random.default_rng(seed)
    labels: Int64 = np.empty(0, np.int64)
    keys: npt.NDArray[np.float64] = np.empty(0)
    index: Int64 = np.empty(0, np.int64)
    for start in range(0, len(split), BLOCK):
        found = np.asarray(split.labels[start : start + BLOCK])
        drawn, rows = rng.random(len(found)), np.arange(start, start + len(found))
        if source is not None and split.source is not None:
            kept = np.asarray(split.source[start : start + BLOCK]) == source
            found, drawn, rows = found[kept], drawn[kept], rows[kept]
        labels = np.concatenate([labels, found])
        keys, index = np.concatenate([keys, drawn]), np.concatenate([index, rows])
        order = np.lexsort((keys, labels))
        labels, keys, index = labels[order], keys[order], index[order]
        first = np.searchsorted(labels, labels, side="left")
        kept = np.arange(len(labels)) - first < limit[labels]
        labels, keys, index = labels[kept], keys[kept], index[kept]
    return np.sort(index)


def sample_rows(
    split: Split, per_class: npt.ArrayLike, *, seed: int = 0, source: int | None = None
) -> tuple[Float32, Int64]:
    """Return features ``[n, D]`` and labels ``[n]`` of the sample that `sample_index` draws."""
    index = sample_index(split, per_class, seed=seed, source=source)
    return split.float32(index), np.asarray(split.labels)[index]
