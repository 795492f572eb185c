"""The quality gate: generated rows that look like another class are drawn again.

Row i is drawn with row number i; while it is refused, attempt a = 1, 2, ... draws it with row number
i + a 2^48. The first attempt that passes is kept, and if none of them does, the best. So a gated
row, too, is a function of its number alone, and every class gets the rows that the plan says.

Rows are judged in aligned tiles (ldmlr/sampler/tiles.py): a row that lies on the edge is judged alike in
every batch.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ldmlr.errors import UsageError, opt
from ldmlr.generation.config import GenerateConfig
from ldmlr.generation.generators.base import Generator
from ldmlr.generation.latent import LatentDiffusion
from ldmlr.sampler.tiles import aligned_tiles

if TYPE_CHECKING:
    from ldmlr.generation.judges import Score
    from ldmlr.store import FeatureStore

TILE = 512
ATTEMPTS = 8
STRIDE = 2**48

Labels = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


@dataclasses.dataclass(frozen=True)
class Gate:
    """A rule by which generated rows are kept or drawn again.

    Attributes
    ----------
    kind
        ``prototype`` or ``head``.
    score
        Judges rows; larger is better.
    threshold
        A row passes if its score is at least this.
    fingerprint
        Hash of what the score depends on beside the model.
    """

    kind: str
    score: Score
    threshold: float
    fingerprint: str

    def judge(self, rows: Floats, labels: Labels, first_row: int) -> npt.NDArray[np.float64]:
        """Return the scores of rows ``[n, D]`` with global numbers from `first_row` on, ``[n]``."""
        scores = np.empty(len(rows))
        for _, inside, part in aligned_tiles(first_row, len(rows), TILE):
            tile, classes = np.zeros((TILE, rows.shape[1]), np.float32), np.zeros(TILE, np.int64)
            tile[inside], classes[inside] = rows[part], labels[part]
            scores[part] = self.score(tile, classes)[inside]
        return scores


@dataclasses.dataclass(frozen=True)
class GatedRows:
    """Rows that went through a gate.

    Attributes
    ----------
    rows
        Features ``[n, D]``, float32.
    refused
        Rows whose first attempt did not pass.
    failed
        Rows of which no attempt passed; the best one was kept.
    """

    rows: Floats
    refused: int
    failed: int


def make_gate(model: LatentDiffusion, config: GenerateConfig, store: FeatureStore | None) -> Gate | None:
    """Return the gate of a configuration, or None.

    Parameters
    ----------
    model
        Its class means and shared covariance are the prototypes.
    config
        `gate` and `gate_confidence`.
    store
        Its head judges, with ``head``.

    Raises
    ------
    UsageError
        The gate needs something that is not there.
    """
    if config.gate == "none":
        return None
    if config.gate == "head" and store is None:
        raise UsageError(
            f"{opt('gate', 'head')}: needs the head of a store; pass {opt('store')} with the encoded features"
        )
    judge = None if store is None else store.head
    check_gate(config, model.config.transform, "" if store is None else str(store.path), judge is not None)
    # Here, and not for everyone: the judges compute with torch.
    from ldmlr.generation.judges import confidence, prototypes

    if config.gate == "prototype":
        return Gate("prototype", prototypes(model), 0.0, "")
    assert judge is not None
    score, key = confidence(judge, model.counts)
    return Gate("head", score, float(np.log(config.gate_confidence)), key)


def check_gate(config: GenerateConfig, transform: str, store: str, has_head: bool) -> None:
    """Refuse a gate that a model with a transform, or a store without a head, cannot have."""
    if config.gate == "prototype" and transform != "whitened":
        raise UsageError(
            f"{opt('gate', 'prototype')}: measures distances in the space of a whitened model; train with "
            f"{opt('transform', 'whitened')}, or use {opt('gate', 'head')}"
        )
    if config.gate == "head" and not has_head:
        raise UsageError(
            f"{opt('gate', 'head')}: {store} has no head to judge rows by; use {opt('gate', 'prototype')}"
        )


def draw(generator: Generator, gate: Gate, labels: Labels, seed: int = 0, first_row: int = 0) -> GatedRows:
    """Draw one row per label through a gate: a pure function of (generator, gate, labels, seed, first_row).

    Parameters
    ----------
    generator
        What draws.
    gate
        From `make_gate`.
    labels
        Class of each row ``[n]``.
    seed
        Seed of the rows.
    first_row
        Global number of the first row.
    """
    kept = np.empty((len(labels), generator.dim), np.float32)
    best = np.full(len(labels), -np.inf)
    pending, refused = np.arange(len(labels)), 0
    for attempt in range(ATTEMPTS):
        if not len(pending):
            break
        low, high = int(pending[0]), int(pending[-1]) + 1
        number = first_row + low + attempt * STRIDE
        drawn = generator.draw(labels[low:high], seed, number)
        scores = gate.judge(drawn, labels[low:high], number)[pending - low]
        # What cannot be judged is refused; the first draw is kept until a better one comes.
        scores = np.where(np.isnan(scores), -np.inf, scores)
        better = (scores > best[pending]) | (attempt == 0)
        chosen = pending[better]
        kept[chosen] = drawn[chosen - low]
        best[chosen] = scores[better]
        pending = pending[scores < gate.threshold]
        refused = refused or len(pending)
    return GatedRows(kept, refused, len(pending))
