"""Generators that repeat rows: random over-sampling, and augmented views."""

from __future__ import annotations

import functools

import numpy as np

from ldmlr.config import config_hash
from ldmlr.generation.generators.base import Floats, Generator, Labels
from ldmlr.generation.generators.pool import Pool, choice_words, pick, remainders, row_blocks, shuffled
from ldmlr.generation.train_rows import TrainRows


class _Copies(Generator):
    """Repeats rows of a pool."""

    def __init__(self, pool: Pool) -> None:
        self.pool, self.dim, self.num_classes = pool, pool.dim, pool.num_classes
        # Kept: every part of a plan asks for them again.
        self._members = functools.cache(pool.members)

    def fingerprint(self) -> str:
        return config_hash(self.name, self.pool.digest)


class Oversampling(_Copies):
    """Clean rows drawn with replacement: random over-sampling.

    Parameters
    ----------
    rows
        Training rows.
    """

    name = "oversampling"

    def __init__(self, rows: TrainRows) -> None:
        super().__init__(Pool.of(rows, clean=True, views=False))

    def _draw(self, labels: Labels, seed: int, first_row: int) -> Floats:
        out = np.empty((len(labels), self.dim), np.float32)
        for part, number in row_blocks(labels, first_row):
            wanted = labels[part]
            chosen = pick(choice_words(seed, number, len(wanted))[0], self.pool.counts[wanted])
            for label in np.unique(wanted):
                own = wanted == label
                chosen[own] = self._members(int(label))[chosen[own]]
            out[part] = self.pool.take(chosen)
        return out


class Views(_Copies):
    """Augmented views, repeated: of a class, every view of every row equally often, as far as it goes.

    The rows of a class go through its views in an order of the seed, by their global numbers: as long as the
    rows of a class follow each other, as in a plan, none comes again before all have come.

    Parameters
    ----------
    rows
        Training rows with at least one view.
    """

    name = "views"

    def __init__(self, rows: TrainRows) -> None:
        super().__init__(Pool.of(rows, clean=False, views=True))
        self._order = functools.lru_cache(maxsize=2 * self.num_classes)(self._shuffled)

    def _draw(self, labels: Labels, seed: int, first_row: int) -> Floats:
        out = np.empty((len(labels), self.dim), np.float32)
        for part, number in row_blocks(labels, first_row):
            wanted = labels[part]
            chosen = np.empty(len(wanted), np.int64)
            for label in np.unique(wanted):
                own = np.flatnonzero(wanted == label)
                order = self._order(seed, int(label))
                chosen[own] = order[remainders(number, own, len(order))]
            out[part] = self.pool.take(chosen)
        return out

    def _shuffled(self, seed: int, label: int) -> Labels:
        own = self._members(label)
        return np.asarray(own[shuffled(seed, label, len(own))])
