"""Rows to choose from: training rows and their views as one numbered whole, and choices by counter.

A choice is a pure function of (seed, row), as the noise of the samplers is: word w of the counter picks the
number ``floor(w n / 2^32)`` of n.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from ldmlr.arguments import SEED_LIMIT
from ldmlr.diffusion.statistics import CHUNK
from ldmlr.generation.train_rows import TrainRows
from ldmlr.sampler.noise import MASK, philox4x32

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint32]

# Streams of the counter. These generators draw no normals, whose streams may have the same numbers.
CHOICES, SHUFFLE = 2, 3
# Rows that are drawn at a time: what a draw needs beside its result.
BLOCK = 8192


@dataclasses.dataclass(frozen=True)
class Pool:
    """Rows in blocks of N, numbered through: row i of block b has the number ``b N + i``.

    Parameters
    ----------
    blocks
        Each ``[N, D]``: the same rows, clean or augmented.
    labels
        Their classes ``[N]``.
    num_classes
        Classes C.
    """

    blocks: tuple[Floats, ...]
    labels: Labels
    num_classes: int

    @classmethod
    def of(cls, rows: TrainRows, *, clean: bool, views: bool) -> Pool:
        """Return the clean rows, the views, or both."""
        blocks = ((rows.features,) if clean else ()) + (rows.views if views else ())
        return cls(blocks, rows.labels, rows.num_classes)

    @property
    def dim(self) -> int:
        """Feature dimensions D."""
        return int(self.blocks[0].shape[1])

    @functools.cached_property
    def counts(self) -> Labels:
        """Rows per class ``[C]``, every block counted."""
        return len(self.blocks) * np.bincount(self.labels, minlength=self.num_classes)

    @functools.cached_property
    def digest(self) -> str:
        """Hash of the rows and their classes."""
        digest = hashlib.sha256(repr((self.num_classes, len(self.blocks))).encode())
        for block in self.blocks:
            for start in range(0, len(block), CHUNK):
                digest.update(np.ascontiguousarray(block[start : start + CHUNK], np.float32).tobytes())
        digest.update(np.ascontiguousarray(self.labels, np.int64).tobytes())
        return digest.hexdigest()

    def members(self, label: int) -> Labels:
        """Return the numbers of a class's rows, block after block."""
        own = np.flatnonzero(self.labels == label)
        offsets = len(self.labels) * np.arange(len(self.blocks))
        return np.asarray((offsets[:, None] + own).ravel())

    def label_of(self, numbers: Labels) -> Labels:
        """Return the classes of rows, in the shape of their numbers."""
        return np.asarray(self.labels[numbers % len(self.labels)])

    def take(self, numbers: Labels) -> Floats:
        """Return rows by their numbers ``[n]``: ``[n, D]`` float32."""
        which, row = np.divmod(numbers, len(self.labels))
        out = np.empty((len(numbers), self.dim), np.float32)
        for block in np.unique(which):
            at = np.flatnonzero(which == block)
            out[at] = self.blocks[block][row[at]]
        return out


def choice_words(seed: int, first_row: int, rows: int) -> tuple[Words, Words, Words, Words]:
    """Return four random words for each of the rows ``first_row ..``, each ``[rows]``."""
    number = np.uint64(first_row) + np.arange(rows, dtype=np.uint64)
    counter = (0, number & np.uint64(MASK), number >> np.uint64(32), CHOICES << 24)
    return philox4x32(counter, (seed & MASK, seed >> 32))


def pick(words: Words, among: npt.ArrayLike) -> Labels:
    """Return the number below `among` that each word stands for; all are alike to 2^-32 of their number."""
    found = (words.astype(np.uint64) * np.asarray(among, np.uint64)) >> np.uint64(32)
    return np.asarray(found, np.int64)


def fractions(words: Words) -> npt.NDArray[np.float64]:
    """Return the numbers from 0 to below 1 that words stand for."""
    return np.asarray(words * 2.0**-32)


def shuffled(seed: int, label: int, count: int) -> Labels:
    """Return 0 .. count - 1 in an order that is a function of (seed, label)."""
    index = np.arange(count, dtype=np.uint64)
    counter = (label, index & np.uint64(MASK), index >> np.uint64(32), SHUFFLE << 24)
    high, low, *_ = philox4x32(counter, (seed & MASK, seed >> 32))
    return np.argsort((high.astype(np.uint64) << np.uint64(32)) | low, kind="stable")


def row_blocks(labels: Labels, first_row: int) -> Iterator[tuple[slice, int]]:
    """Yield which rows to draw at a time, and the global number of their first."""
    for start in range(0, len(labels), BLOCK):
        yield slice(start, min(start + BLOCK, len(labels))), first_row + start


def remainders(first_row: int, at: Labels, count: int) -> Labels:
    """Return ``(first_row + at) mod count`` for global row numbers of up to 64 bits."""
    assert first_row < SEED_LIMIT
    return np.asarray((first_row % count + at) % count)
