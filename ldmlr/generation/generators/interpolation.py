"""SMOTE and ADASYN for classes of any size, row by row.

Both interpolate between a row and one of its five nearest neighbours of the same class. A class with fewer
rows than that gets as many neighbours as it has, and a class with a single row, which has none, is repeated.
The remarks say so of the classes that were drawn.

Which row, which neighbour and how far between them is a function of (seed, row) alone. Neighbours of a class
are found when it is first drawn.

Sources: Chawla et al., "SMOTE: Synthetic Minority Over-sampling Technique", JAIR 2002; He et al., "ADASYN:
Adaptive Synthetic Sampling Approach for Imbalanced Learning", IJCNN 2008.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np
import numpy.typing as npt

from ldmlr.config import config_hash
from ldmlr.errors import counted
from ldmlr.generation.generators.base import Floats, Generator, Labels
from ldmlr.generation.generators.pool import Pool, choice_words, fractions, pick, row_blocks
from ldmlr.generation.train_rows import TrainRows

NEIGHBOURS = 5


@dataclasses.dataclass(frozen=True)
class _Class:
    """A class that rows are drawn of.

    Attributes
    ----------
    members
        Numbers of its rows in the pool ``[n]``.
    neighbours
        For each, which members are its nearest others: places among the members ``[n, k]``; k is 0 for a
        class with a single row.
    shares
        Cumulated weights of the members as starting rows ``[n]``; None: all alike.
    """

    members: Labels
    neighbours: Labels
    shares: npt.NDArray[np.float64] | None = None


class Smote(Generator):
    """Rows between neighbours of the same class.

    Parameters
    ----------
    rows
        Training rows.
    views
        Interpolate between clean rows and augmented views, not between clean rows only.
    """

    kind = "smote"

    def __init__(self, rows: TrainRows, *, views: bool = False) -> None:
        self.name = f"{self.kind}-views" if views else self.kind
        self.pool = Pool.of(rows, clean=True, views=views)
        self.dim, self.num_classes = self.pool.dim, self.pool.num_classes
        self._classes: dict[int, _Class] = {}

    @property
    def notes(self) -> tuple[str, ...]:
        counts, of = self.pool.counts[list(self._classes)], f"of {counted(self.num_classes, 'class')}"
        single, small = int((counts == 1).sum()), int(((counts > 1) & (counts <= NEIGHBOURS)).sum())
        notes: tuple[str, ...] = ()
        if single:
            notes += (f"{single} {of} have one row, which is repeated: it has no neighbour",)
        if small:
            notes += (f"{small} {of} have fewer than {NEIGHBOURS} neighbours; all are used",)
        return notes

    def fingerprint(self) -> str:
        return config_hash(self.name, NEIGHBOURS, self.pool.digest)

    def _draw(self, labels: Labels, seed: int, first_row: int) -> Floats:
        out = np.empty((len(labels), self.dim), np.float32)
        for part, number in row_blocks(labels, first_row):
            wanted = labels[part]
            words = choice_words(seed, number, len(wanted))
            start, end = np.empty(len(wanted), np.int64), np.empty(len(wanted), np.int64)
            for label in np.unique(wanted):
                own = wanted == label
                start[own], end[own] = _pairs(self._class(int(label)), words[0][own], words[1][own])
            base = self.pool.take(start)
            share = fractions(words[2]).astype(np.float32)[:, None]
            out[part] = base + share * (self.pool.take(end) - base)
        return out

    def _class(self, label: int) -> _Class:
        """Return a class, its neighbours found when it is first asked for."""
        if label not in self._classes:
            members = self.pool.members(label)
            k = min(NEIGHBOURS, len(members) - 1)
            neighbours = nearest(self.pool.take(members), k) if k else np.empty((1, 0), np.int64)
            self._classes[label] = _Class(members, neighbours, self._shares(label, members, k))
        return self._classes[label]

    def _shares(self, label: int, members: Labels, k: int) -> npt.NDArray[np.float64] | None:
        return None


class Adasyn(Smote):
    """SMOTE that starts most often where the nearest neighbours belong to other classes.

    A class none of whose rows has a neighbour of another class gives ADASYN nothing to weigh: there SMOTE
    takes its place, and the remarks say so. Rows start at member i with probability ``r_i / sum r``, r_i
    the share of other classes among its nearest neighbours.

    Parameters
    ----------
    rows, views
        As for `Smote`.
    """

    kind = "adasyn"

    @property
    def notes(self) -> tuple[str, ...]:
        drawn = self._classes.values()
        apart = sum(found.shares is None and len(found.members) > 1 for found in drawn)
        if not apart:
            return super().notes
        return (
            *super().notes,
            f"{apart} of {counted(self.num_classes, 'class')} have no border for ADASYN to weigh; "
            "SMOTE took its place",
        )

    @functools.cached_property
    def _all(self) -> Any:
        """Every row of the pool, to look for neighbours among."""
        return _index(self.pool.take(np.arange(len(self.pool.blocks) * len(self.pool.labels))))

    def _shares(self, label: int, members: Labels, k: int) -> npt.NDArray[np.float64] | None:
        if not k:
            return None
        found = _ask(self._all, self.pool.take(members), k + 1)
        others = np.cumsum((self.pool.label_of(_without(found, members)) != label).sum(axis=1), dtype=float)
        return others / others[-1] if others[-1] else None


def _pairs(
    found: _Class, first: npt.NDArray[np.uint32], second: npt.NDArray[np.uint32]
) -> tuple[Labels, Labels]:
    """Return the rows to start from and to go towards, by their numbers in the pool."""
    count, k = found.neighbours.shape
    if found.shares is None:
        start = pick(first, count)
    else:
        start = np.minimum(np.searchsorted(found.shares, fractions(first), side="right"), count - 1)
    if not k:
        return found.members[start], found.members[start]
    end = found.neighbours[start, pick(second, k)]
    return found.members[start], found.members[end]


def nearest(rows: Floats, k: int) -> Labels:
    """Return which k other rows are nearest to each row ``[n, D]``: ``[n, k]``."""
    return _ask(_index(rows), None, k)


def _index(rows: Floats) -> Any:
    # Imported here: it takes a second or two, and most that draw rows need none.
    from sklearn.neighbors import NearestNeighbors

    return NearestNeighbors().fit(rows)


def _ask(index: Any, rows: Floats | None, k: int) -> Labels:
    """Return the k rows of an index nearest to each of `rows`; for None, to each of its own rows but itself.

    On one thread, so that rows at the very same distance are told apart alike on every machine.
    """
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1, user_api="openmp"):
        return np.asarray(index.kneighbors(rows, k, return_distance=False), np.int64)


def _without(found: Labels, own: Labels) -> Labels:
    """Return neighbours ``[n, k]`` of rows out of ``[n, k + 1]``: without the row itself, or the last one.

    A row need not be among them: copies of it are as near.
    """
    itself = found == own[:, None]
    itself[~itself.any(axis=1), -1] = True
    return np.asarray(found[~itself].reshape(len(found), -1))
