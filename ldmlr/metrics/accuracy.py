"""Top-1 accuracy over all rows, per class and per shot group, in per cent.

A group's accuracy is the mean of its classes' accuracies (Liu et al., CVPR 2019), which for a balanced
test set is also that of its rows. Everything is counted batch by batch, so a split may exceed memory.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ldmlr.errors import InputError
from ldmlr.groups import GROUPS, ClassGroups, ShotGroups

Floats = npt.NDArray[np.float64]


class AccuracyCounter:
    """Counts correct rows per class while batches of predictions come in.

    Parameters
    ----------
    num_classes
        Classes C.
    confusion
        Keep the whole confusion matrix as well (C x C integers).

    Attributes
    ----------
    right
        Per batch, which of its rows were right.
    """

    def __init__(self, num_classes: int, confusion: bool = False) -> None:
        self.total = np.zeros(num_classes, dtype=np.int64)
        self.correct = np.zeros(num_classes, dtype=np.int64)
        self.confusion = np.zeros((num_classes, num_classes), dtype=np.int64) if confusion else None
        self.right: list[npt.NDArray[np.bool_]] = []

    def update(self, logits: npt.ArrayLike, labels: npt.ArrayLike) -> None:
        """Count a batch: logits ``[n, C]`` (ties go to the first class) and labels ``[n]``."""
        scores, target = checked(logits, labels, len(self.total))
        predicted = scores.argmax(axis=1)
        self.total += np.bincount(target, minlength=len(self.total))
        self.right.append(predicted == target)
        self.correct += np.bincount(target[self.right[-1]], minlength=len(self.total))
        if self.confusion is not None:
            np.add.at(self.confusion, (target, predicted), 1)

    def per_class(self) -> Floats:
        """Return the accuracy of each class in per cent, ``[C]``; NaN for a class without rows."""
        with np.errstate(invalid="ignore", divide="ignore"):
            share: Floats = 100.0 * self.correct / self.total
        return share

    def summary(self, counts: npt.ArrayLike, groups: ClassGroups | None = None) -> dict[str, float | None]:
        """Return ``all``, ``many``, ``medium``, ``few`` and ``balanced`` (the mean over classes).

        Parameters
        ----------
        counts
            Encoded training rows per class, ``[C]``: they decide the groups.
        groups
            Thresholds or ranges; many > 100, few < 20 by default.

        Returns
        -------
        dict
            Per cent; None for a group that has no class with rows.
        """
        share = self.per_class()
        present = self.total > 0
        if not present.any():
            raise InputError("accuracy: there are no rows to measure it on")
        found: dict[str, float | None] = {"all": 100.0 * float(self.correct.sum() / self.total.sum())}
        masks = (groups or ShotGroups()).masks(counts)
        for name in GROUPS:
            mask = masks[name] & present
            found[name] = float(share[mask].mean()) if mask.any() else None
        found["balanced"] = float(share[present].mean())
        return found


def accuracy(
    logits: npt.ArrayLike, labels: npt.ArrayLike, counts: npt.ArrayLike, groups: ClassGroups | None = None
) -> dict[str, float | None]:
    """Return the accuracy of logits ``[N, C]``: ``all``, ``many``, ``medium``, ``few``, ``balanced``.

    Parameters
    ----------
    logits, labels
        Scores ``[N, C]`` and labels ``[N]``.
    counts, groups
        As for `AccuracyCounter.summary`.
    """
    counter = AccuracyCounter(np.shape(logits)[-1])
    counter.update(logits, labels)
    return counter.summary(counts, groups)


def confused_pairs(confusion: npt.NDArray[np.int64], count: int = 10) -> list[dict[str, float | int]]:
    """Return the largest entries off the diagonal of a confusion matrix, the largest share first.

    Parameters
    ----------
    confusion
        Rows with label i predicted as j, ``[C, C]``.
    count
        Pairs, at most.

    Returns
    -------
    list of dict
        ``label``, ``predicted``, ``rows``, and ``share`` of the label's rows in per cent.
    """
    share = 100.0 * confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    np.fill_diagonal(share, 0.0)
    order = np.argsort(-share, axis=None, kind="stable")[:count]
    places = zip(*np.unravel_index(order, share.shape), strict=True)
    return [
        {"label": int(i), "predicted": int(j), "rows": int(confusion[i, j]), "share": float(share[i, j])}
        for i, j in places
        if share[i, j] > 0
    ]


def checked(
    logits: npt.ArrayLike, labels: npt.ArrayLike, num_classes: int
) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
    """Return logits ``[n, C]`` and labels ``[n]`` as arrays, or say what is wrong with them.

    Raises
    ------
    InputError
        Shapes that do not belong together, labels out of range, or logits that are not finite.
    """
    scores, target = np.asarray(logits), np.asarray(labels)
    if scores.ndim != 2 or scores.shape[1] != num_classes or target.shape != scores.shape[:1]:
        raise InputError(
            f"metrics: expected logits [n, {num_classes}] and labels [n], "
            f"not {list(scores.shape)} and {list(target.shape)}"
        )
    if len(target) and not 0 <= target.min() <= target.max() < num_classes:
        raise InputError(f"metrics: labels reach {target.max()}, expected 0 to {num_classes - 1}")
    if not np.isfinite(scores).all():
        row = int(np.flatnonzero(~np.isfinite(scores).all(axis=1))[0])
        raise InputError(f"metrics: the logits of row {row} are not finite; check features and head")
    return scores, target.astype(np.int64)
