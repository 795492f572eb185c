"""Held-out rows among the training rows, and how well a head does on them.

Folds are stratified. A class with fewer rows than folds is left out row by row in as many folds as it
has rows; a single row of a class is always trained on and never measured.

An encoder knows the very rows that it was trained on: heads are nearly always right on them, in a fold or
not. Where there are augmented views, they are what is held out, the strong ones if there are such.

All classes count alike: accuracy and log-loss are means over classes of means over their rows.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ldmlr.arguments import strong_views
from ldmlr.heads.training_rows import TrainingRows
from ldmlr.store.heldout import shuffled_classes

Floats = npt.NDArray[np.float32]
FOLDS = 5


@dataclasses.dataclass(frozen=True)
class Fold:
    """Rows to train on, and rows that a head trained on them has not seen.

    Parameters
    ----------
    rows
        Encoded and generated rows.
    weights
        What each of them weighs, ``[N + M]``; 0: it is not trained on.
    held
        Blocks ``[n, D]`` from which held-out rows are taken: clean rows, or views of them.
    index, labels
        Which rows of every block are held out, ``[h]``, and their classes.
    """

    rows: TrainingRows
    weights: npt.NDArray[np.float64]
    held: tuple[Floats, ...]
    index: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]

    @classmethod
    def of(cls, rows: TrainingRows, features: Floats, labels: npt.NDArray[np.int64]) -> Fold:
        """Return a fold of all `rows`, held against other rows ``[h, D]`` and their classes ``[h]``.

        What a generator has drawn from the rows of the fold alone is put into `rows` by the caller.
        """
        return cls(rows, np.ones(len(rows.labels)), (features,), np.arange(len(labels)), labels)


def fold_numbers(labels: npt.NDArray[np.int64], folds: int, seed: int = 0) -> npt.NDArray[np.int64]:
    """Return the fold of every row ``[N]``; -1 for the only row of a class, which is never held out.

    Unlike folds to measure on (`ldmlr.store.heldout.fold_numbers`), which are all made and as large as each
    other, those of every class begin with the first: where only that is made, rare classes are in it too.
    """
    number = np.full(len(labels), -1)
    for own in shuffled_classes(labels, np.random.default_rng(seed)):
        number[own] = np.arange(len(own)) % folds
    return number


def inner_folds(
    rows: TrainingRows,
    *,
    views: Sequence[Floats] = (),
    kinds: Sequence[str] = (),
    folds: int = FOLDS,
    used: int | None = None,
    seed: int = 0,
) -> list[Fold]:
    """Return folds of the encoded rows.

    Generated rows stand aside: what drew them has seen every row, held out or not. In their stead, each
    encoded row weighs as much as its class has rows of both kinds for one encoded row.

    Parameters
    ----------
    rows
        Encoded and generated rows. Encoded rows may be several blocks of the same rows (clean rows and views
        of them, as many of each as the views have): a row is held out in all of them.
    views, kinds
        Augmented views, each ``[n, D]``, and their kinds such as ``weak`` or ``strong``.
    folds
        K.
    used
        How many of the K folds to make: fewer where fits are long.
    seed
        Of the draw.
    """
    encoded = rows.labels[: rows.encoded]
    single = len(views[0]) if len(views) else rows.encoded
    clean = encoded[:single]
    number = fold_numbers(clean, folds, seed)
    filled = rows.all_counts / np.maximum(rows.counts, 1)
    weights = np.zeros(len(rows.labels))
    weights[: rows.encoded] = filled[encoded]
    held = tuple(strong_views(views, kinds)) or (rows.features[:single],)
    found = []
    for fold in range(folds if used is None else min(used, folds)):
        index = np.flatnonzero(number == fold)
        if not len(index):
            continue
        own = weights.copy()
        own[: rows.encoded][np.resize(number == fold, rows.encoded)] = 0.0
        found.append(Fold(rows, own, held, index, clean[index]))
    return found


class HeldOut:
    """How well several candidates do on the held-out rows of all folds."""

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self.labels: list[npt.NDArray[np.int64]] = []
        self._right: dict[Any, list[npt.NDArray[np.bool_]]] = {}
        self._loss: dict[Any, list[npt.NDArray[np.float64]]] = {}

    def __contains__(self, candidate: Any) -> bool:
        """Tell whether a candidate has been measured."""
        return candidate in self._right

    def add_labels(self, labels: npt.NDArray[np.int64]) -> None:
        """Add the labels of held-out rows, in the order in which every candidate is measured."""
        self.labels.append(labels)

    def add(self, candidate: Any, logits: npt.NDArray[Any], labels: npt.NDArray[np.int64]) -> None:
        """Add a block of held-out logits ``[n, C]`` of a candidate."""
        scores = logits.astype(np.float64)
        top = scores.max(axis=1)
        own = scores[np.arange(len(labels)), labels]
        loss = np.log(np.exp(scores - top[:, None]).sum(axis=1)) + top - own
        self._right.setdefault(candidate, []).append(scores.argmax(axis=1) == labels)
        self._loss.setdefault(candidate, []).append(loss)

    def accuracy(self, candidate: Any) -> float:
        """Return the mean over classes of a candidate's accuracies, from 0 to 1."""
        return float(self._class_means(np.concatenate(self._right[candidate])).mean())

    def log_loss(self, candidate: Any) -> float:
        """Return the mean over classes of a candidate's log-losses."""
        return float(self._class_means(np.concatenate(self._loss[candidate])).mean())

    def best(self, candidates: Sequence[Any]) -> Any:
        """Return the best candidate.

        That is the most accurate one; of those that cannot be told from it (within a standard error of the
        difference, row by row), the one with the lowest log-loss, which is less coarse where rows are few.
        """
        first = max(candidates, key=lambda one: (self.accuracy(one), -self.log_loss(one)))
        level = [one for one in candidates if self._is_level(first, one)]
        return min(level, key=self.log_loss)

    def _is_level(self, best: Any, other: Any) -> bool:
        gap = np.concatenate(self._right[best]).astype(float) - np.concatenate(self._right[other])
        mean = self._class_means(gap)
        labels = np.concatenate(self.labels)
        count = np.bincount(labels, minlength=self.num_classes)
        present = count > 0
        squares = np.bincount(labels, gap**2, self.num_classes)[present] / count[present]
        # A class of one held-out row says nothing of its variance: half a row is added to each.
        variance = (squares - mean**2 + 0.25 * (count[present] < 2)) / np.maximum(count[present] - 1, 1)
        return float(mean.mean()) <= float(np.sqrt(variance.sum())) / int(present.sum())

    def _class_means(self, values: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        labels = np.concatenate(self.labels)
        count = np.bincount(labels, minlength=self.num_classes)
        sums = np.bincount(labels, values, self.num_classes).astype(np.float64)
        means: npt.NDArray[np.float64] = sums[count > 0] / count[count > 0]
        return means
