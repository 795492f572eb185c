"""The course of a training, whatever trains: noise, rates, averages, reports, a new start if a network dies.

Imports no torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from ldmlr.diffusion.checkpoint import resumed
from ldmlr.diffusion.config import DiffusionConfig
from ldmlr.diffusion.schedule import make_schedule
from ldmlr.errors import LdmlrError, opt
from ldmlr.learning_rate import cosine_decay
from ldmlr.ranks import ALONE, Ranks

# The schedule as a table for training; steps of 1 / 16384 are far below what the network resolves.
RESOLUTION = 16384
# Iterations between two checkpoints, and between two looks at the loss.
CHECKPOINT_EVERY, REPORT_EVERY = 500, 50
# A network in which fewer units than this answer to their input is dead: no gradient comes back. Training
# starts again with a quarter of the rate, so many times.
ALIVE, RESTARTS = 0.05, 2
# A unit answers to its input where its standard deviation over a batch is above this.
ANSWER = 1e-4

Result = TypeVar("Result")
Floats = npt.NDArray[np.float32]


class Dead(Exception):
    """The network stopped to answer to its input."""


def times() -> npt.NDArray[np.float64]:
    """Return the times that a training draws from ``[RESOLUTION + 1]``."""
    return np.arange(RESOLUTION + 1) / RESOLUTION


def noise_levels(config: DiffusionConfig) -> tuple[Floats, Floats]:
    """Return alpha and sigma of all `times`, float32."""
    schedule, t = make_schedule(config.noise_schedule), times()
    return schedule.alpha(t).astype(np.float32), schedule.sigma(t).astype(np.float32)


def rate(step: int, config: DiffusionConfig) -> float:
    """Return the learning rate relative to its maximum: linear warm-up, then a cosine to zero."""
    warmup = min(config.warmup_iterations, config.steps - 1)
    if step < warmup:
        return (step + 1) / warmup
    return cosine_decay(step - warmup, max(config.steps - warmup, 1))


def averaging(step: int, config: DiffusionConfig) -> float:
    """Return how far the averages move towards the weights behind a step: at once in the beginning."""
    return 1 - min(config.ema, (1 + step) / (10 + step)) if config.ema else 1.0


def mean_loss(total: float, done: int, config: DiffusionConfig) -> float:
    """Return the mean loss of the steps since the last report.

    Parameters
    ----------
    total
        Sum of their losses.
    done
        Iterations done.
    config
        Network and training.

    Raises
    ------
    LdmlrError
        It is not finite.
    """
    mean = total / (done - (done - 1) // REPORT_EVERY * REPORT_EVERY)
    if not math.isfinite(mean):
        raise LdmlrError(
            f"the loss is not finite at step {done}; check the features, or lower {opt('lr')} ({config.lr:g})"
        )
    return mean


def attempts(
    config: DiffusionConfig,
    key: str,
    checkpoint: Path | None,
    resume: bool,
    run: Callable[[DiffusionConfig, str], Result],
    ranks: Ranks = ALONE,
) -> Result:
    """Run a training; where the network dies, again with a quarter of the rate.

    Parameters
    ----------
    config
        Network and training.
    key
        Identifies configuration and data.
    checkpoint
        File of the state, which belongs to the training that made it.
    resume
        Continue from `checkpoint` if it is there.
    run
        The training, of a configuration and the key of its checkpoints; raises `Dead`.
    ranks
        The processes that train together; the first has the checkpoint.

    Raises
    ------
    LdmlrError
        The network died at every rate that was tried.
    """
    keys = [f"{key} {attempt}" if attempt else key for attempt in range(RESTARTS + 1)]
    first = ranks.tell(resumed(checkpoint, keys) if resume and checkpoint is not None else 0)
    for attempt, own in list(enumerate(keys))[first:]:
        lowered = config.replace(lr=config.lr / 4**attempt)
        try:
            return run(lowered, own)
        except Dead:
            # What was saved on the way belongs to the training that died.
            if checkpoint is not None:
                checkpoint.unlink(missing_ok=True)
    raise LdmlrError(
        f"the network dies in training, with rates from {config.lr:g} down to {lowered.lr:g}: hardly any of "
        f"its units answers to its input any more; check the features for wild values, or lower {opt('lr')}"
    )
