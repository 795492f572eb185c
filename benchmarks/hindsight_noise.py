"""How much of the distance to the best method in hindsight is noise of the test rows.

The best of twenty methods on the test rows is a maximum: among methods that are equally good it is the one
that the rows happened to favour. With fifteen rows of a class one answer moves the class-balanced accuracy by
three points, so a choice without the test rows lies behind that maximum however well it is made.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

Floats = np.ndarray[Any, np.dtype[np.float64]]
Labels = np.ndarray[Any, np.dtype[np.int64]]
DRAWS = 500  # of test rows, and halves of them


def expected_lead(right: Mapping[str, Floats], labels: Labels, seed: int = 0) -> float:
    """Return how far behind the best in hindsight even the truly best method is expected.

    Test rows are drawn with replacement within their classes, the same for all methods, and every method
    gains or loses by the draw, beside an estimate of its true figure. That is the measured one, but what lies
    above the median of all methods is drawn towards it by the share of the spread there that is noise
    (empirical Bayes, Efron and Morris, 1973). Methods below stay where they were measured, so the figure is
    rather too small.

    Parameters
    ----------
    right
        Per method, how often each row was right, ``[N]``, from 0 to 1.
    labels
        Classes, ``[N]``.
    seed
        Of the draws.

    Returns
    -------
    Points of class-balanced accuracy, per cent.
    """
    rng = np.random.default_rng(seed)
    table = np.stack(list(right.values())).astype(np.float64)
    measured = table @ class_weights(labels)
    gains = np.empty((DRAWS, len(table)))
    for draw in gains:
        weights = np.zeros(len(labels))
        for own in _classes(labels):
            weights[own] = rng.multinomial(len(own), np.full(len(own), 1 / len(own))) / len(own)
        draw[:] = table @ weights / len(_classes(labels)) - measured
    true = _shrunk(measured, gains)
    figures = true + gains
    return 100 * float(np.mean(figures.max(axis=1) - figures[:, true.argmax()]))


def _shrunk(measured: Floats, gains: Floats) -> Floats:
    """Return estimates of true figures, ``[M]``, of those measured and what draws ``[B, M]`` change."""
    median = np.median(measured)
    above = measured > median
    if not above.any():
        return measured
    noise = np.square(gains - gains.mean(axis=1, keepdims=True))[:, above].mean()
    spread = np.square(measured[above] - median).mean()
    kept = max(0.0, 1.0 - float(noise / spread))
    return np.where(above, median + kept * (measured - median), measured)


def other_half(right: Mapping[str, Floats], chosen: Floats, labels: Labels, seed: int = 0) -> float:
    """Return how far behind the best of one half of the test rows a choice is on the other half.

    What was best on some rows by chance is not so on others, so that no noise is counted as a distance; it
    is below zero where the choice is better than what half of the test rows would have taken.

    Parameters
    ----------
    right
        Per method, how often each row was right, ``[N]``, from 0 to 1.
    chosen
        The same of what was chosen, ``[N]``.
    labels
        Classes, ``[N]``, with two rows or more of each.
    seed
        Of the halves.

    Returns
    -------
    Points of class-balanced accuracy, per cent; the mean over many halvings.
    """
    rng = np.random.default_rng(seed)
    table = np.stack([*right.values(), chosen]).astype(np.float64)
    gaps = []
    for _ in range(DRAWS):
        here = np.zeros(len(labels), dtype=bool)
        for own in _classes(labels):
            here[rng.permutation(own)[: len(own) // 2]] = True
        best = (table[:-1, here] @ class_weights(labels[here])).argmax()
        there = table[:, ~here] @ class_weights(labels[~here])
        gaps.append(there[best] - there[-1])
    return 100 * float(np.mean(gaps))


def _classes(labels: Labels) -> list[Labels]:
    return [np.flatnonzero(labels == label) for label in np.unique(labels)]


def class_weights(labels: Labels) -> Floats:
    """Return what each row counts in the class-balanced accuracy, ``[N]``; they sum to one."""
    _, which, count = np.unique(labels, return_inverse=True, return_counts=True)
    weights: Floats = 1.0 / (len(count) * count[which])
    return weights
