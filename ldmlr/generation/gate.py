"""The quality gate: generated rows that look like another class are drawn again.

Row i is drawn with row number i; while it is refused, attempt a = 1, 2, ... draws it with row number
i + a 2^48. The first attempt that passes is kept, and if none of them does, the best. So a gated
row, too, is a function of its number alone, and every class gets the rows that the plan says.

Rows are judged in aligned tiles (ldmlr/sampler/tiles.py): a row that lies on the edge is judged alike in
every batch.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from ldmlr.config import config_hash
from ldmlr.device import torch_threads
from ldmlr.errors import UsageError, opt
from ldmlr.generation.config import GenerateConfig
from ldmlr.generation.generators.base import Generator
from ldmlr.generation.latent import LatentDiffusion
from ldmlr.heads.losses import log_prior
from ldmlr.heads.modules import Head, from_stored
from ldmlr.sampler.tiles import aligned_tiles

if TYPE_CHECKING:
    from ldmlr.store import FeatureStore

TILE = 512
ATTEMPTS = 8
STRIDE = 2**48

# rows [n, D] float32 and labels [n] -> score [n], larger is better
Score = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
Labels = npt.NDArray[np.int64]


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

    def judge(self, rows: torch.Tensor, labels: Labels, first_row: int) -> npt.NDArray[np.float64]:
        """Return the scores of rows ``[n, D]`` with global numbers from `first_row` on, ``[n]``."""
        scores = np.empty(len(rows))
        with torch_threads(1), torch.inference_mode():
            for _, inside, part in aligned_tiles(first_row, len(rows), TILE):
                tile = torch.zeros((TILE, rows.shape[1]))
                classes = torch.zeros(TILE, dtype=torch.int64)
                tile[inside], classes[inside] = rows[part], torch.from_numpy(labels[part])
                scores[part] = self.score(tile, classes)[inside].numpy()
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

    rows: torch.Tensor
    refused: int
    failed: int

    def numpy(self) -> npt.NDArray[np.float32]:
        """Return the rows as an array."""
        return np.asarray(self.rows.numpy())


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
            f"{opt('gate')} head: needs the head of a store; pass {opt('store')} with the encoded features"
        )
    judge = None if store is None else store.head
    check_gate(config, model.config.transform, "" if store is None else str(store.path), judge is not None)
    if config.gate == "prototype":
        return Gate("prototype", _prototypes(model), 0.0, "")
    assert judge is not None
    head = from_stored(judge).eval()
    weights = {name: value.numpy() for name, value in head.state_dict().items()}
    key = config_hash({name: value.tolist() for name, value in weights.items()})
    return Gate("head", _confidence(head, model.counts), float(np.log(config.gate_confidence)), key)


def check_gate(config: GenerateConfig, transform: str, store: str, has_head: bool) -> None:
    """Refuse a gate that a model with a transform, or a store without a head, cannot have."""
    if config.gate == "prototype" and transform != "whitened":
        raise UsageError(
            f"{opt('gate')} prototype: measures distances in the space of a whitened model; train with "
            f"{opt('transform')} whitened, or use {opt('gate')} head"
        )
    if config.gate == "head" and not has_head:
        raise UsageError(
            f"{opt('gate')} head: {store} has no head to judge rows by; use {opt('gate')} prototype"
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
    kept = torch.empty((len(labels), generator.dim))
    best = np.full(len(labels), -np.inf)
    pending, refused = np.arange(len(labels)), 0
    for attempt in range(ATTEMPTS):
        if not len(pending):
            break
        low, high = int(pending[0]), int(pending[-1]) + 1
        number = first_row + low + attempt * STRIDE
        drawn = torch.from_numpy(generator.draw(labels[low:high], seed, number))
        scores = gate.judge(drawn, labels[low:high], number)[pending - low]
        # What cannot be judged is refused; the first draw is kept until a better one comes.
        scores = np.where(np.isnan(scores), -np.inf, scores)
        better = (scores > best[pending]) | (attempt == 0)
        chosen = pending[better]
        kept[torch.from_numpy(chosen)] = drawn[torch.from_numpy(chosen - low)]
        best[chosen] = scores[better]
        pending = pending[scores < gate.threshold]
        refused = refused or len(pending)
    return GatedRows(kept, refused, len(pending))


def _prototypes(model: LatentDiffusion) -> Score:
    """Score: how much nearer a row is to its own class mean than to any other, in the whitened space."""
    inverse = torch.from_numpy(np.linalg.inv(model.transform.scale).T.copy())
    means = torch.from_numpy(model.transform.class_means(model.num_classes)) @ inverse
    squares = means.square().sum(dim=1)

    def score(rows: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        nearness = 2 * (rows.double() @ inverse) @ means.T - squares
        own = nearness.gather(1, labels[:, None])[:, 0]
        others = nearness.scatter(1, labels[:, None], -torch.inf).amax(dim=1)
        return own - others

    return score


def _confidence(head: Head, counts: Labels) -> Score:
    """Score: log probability of a row's class by the baseline's head, corrected for class frequencies."""
    head = copy.deepcopy(head)
    offset = torch.from_numpy(log_prior(counts))

    def score(rows: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        logits = head(rows).double() - offset
        return torch.log_softmax(logits, dim=1).gather(1, labels[:, None])[:, 0]

    return score
