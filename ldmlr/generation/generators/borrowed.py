"""Statistics of rare classes, borrowed from the large classes that lie nearest: distribution calibration.

A class of n rows has lenders: of the classes with at least `LENDER` times as many rows, the `NEAREST` ones,
by the distance of means in units of the shared covariance. To its own rows, their mean counts as one more
row, and their covariance takes the place of the one shared by all classes. Without lenders it keeps its own.

Source: Yang, Liu and Xu, "Free Lunch for Few-shot Learning: Distribution Calibration", ICLR 2021, which does
so for classes of one to five rows, with the large ones out of the contest: there each lender's mean weighs as
much as a row. Here rare classes are told from their lenders, so that all of them together weigh as one.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]

# Lenders of a class, and how many times its rows each of them has at least.
NEAREST, LENDER = 2, 4


def lenders(mean: Floats, root: Floats, counts: Labels) -> list[Labels]:
    """Return the lenders of each class, nearest first; none for a class that no other is large enough for.

    Parameters
    ----------
    mean
        Class means ``[C, D]``.
    root
        A root of the covariance shared by all classes, ``[D, D]``.
    counts
        Rows per class ``[C]``.
    """
    place = np.linalg.solve(root, mean.T).T
    found = []
    for label, count in enumerate(counts):
        large = np.flatnonzero(counts >= LENDER * count)
        distance = np.square(place[large] - place[label]).sum(axis=1)
        found.append(large[np.argsort(distance, kind="stable")[:NEAREST]])
    return found


def borrow(mean: Floats, scatter: Floats, root: Floats, counts: Labels) -> tuple[Floats, Floats]:
    """Return means ``[C, D]``, and what the covariance of each class is shrunk to, ``[C, D, D]``.

    Parameters
    ----------
    mean, root, counts
        As for `lenders`.
    scatter
        Covariances of the classes by themselves, ``[C, D, D]``.
    """
    means, targets = mean.copy(), np.repeat((root @ root.T)[None], len(mean), axis=0)
    for label, found in enumerate(lenders(mean, root, counts)):
        if len(found):
            means[label] = (counts[label] * mean[label] + mean[found].mean(axis=0)) / (counts[label] + 1)
            targets[label] = scatter[found].mean(axis=0)
    return means, targets
