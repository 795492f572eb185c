"""The course of a training, whatever trains: rates, averages, reports, starting again when a network dies.

Imports no torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from ldmlr.diffusion.config import DiffusionConfig
from ldmlr.errors import LdmlrError, opt
from ldmlr.learning_rate import cosine_decay

# The schedule as a table for training; steps of 1 / 16384 are far below what the network resolves.
RESOLUTION = 16384
# Iterations between two checkpoints, and between two looks at the loss.
CHECKPOINT_EVERY, REPORT_EVERY = 500, 50
# A network in which fewer units than this answer to their input is dead: no gradient comes back. Training
# starts again with a quarter of the rate, so many times.
ALIVE, RESTARTS = 0.05, 2

Result = TypeVar("Result")


class Dead(Exception):
    """The network stopped to answer to its input."""


def rate(step: int, config: DiffusionConfig) -> float:
    """Return the learning rate relative to its maximum: linear warm-up, then a cosine to zero."""
    warmup = min(config.warmup_iterations, config.iterations - 1)
    if step < warmup:
        return (step + 1) / warmup
    return cosine_decay(step - warmup, max(config.iterations - warmup, 1))


def averaging(step: int, config: DiffusionConfig) -> float:
    """Return how far the averages move towards the weights behind a step: at once in the beginning."""
    return 1 - min(config.ema, (1 + step) / (10 + step)) if config.ema else 1.0


def check_loss(mean: float, done: int, config: DiffusionConfig) -> float:
    """Return the mean loss of the last steps.

    Raises
    ------
    LdmlrError
        It is not finite.
    """
    if not math.isfinite(mean):
        raise LdmlrError(
            f"the loss is not finite at step {done}; check the features, or lower {opt('lr')} ({config.lr:g})"
        )
    return mean


def attempts(
    config: DiffusionConfig,
    key: str,
    checkpoint: Path | None,
    resumed: Callable[[Path, list[str]], int] | None,
    run: Callable[[DiffusionConfig, str], Result],
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
    resumed
        Says which of some keys a checkpoint has; None: a checkpoint is not gone on from.
    run
        The training, of a configuration and the key of its checkpoints; raises `Dead`.

    Raises
    ------
    LdmlrError
        The network died at every rate that was tried.
    """
    keys = [f"{key} {attempt}" if attempt else key for attempt in range(RESTARTS + 1)]
    first = resumed(checkpoint, keys) if resumed is not None and checkpoint is not None else 0
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
