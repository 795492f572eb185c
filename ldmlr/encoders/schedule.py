"""Learning rate by step: linear warm-up, then cosine to zero or division by ten at milestones."""

from __future__ import annotations

from ldmlr.encoders.config import BaselineConfig
from ldmlr.learning_rate import cosine_decay


def learning_rate(config: BaselineConfig, epoch: float) -> float:
    """Return the learning rate at a point of the training.

    Parameters
    ----------
    config
        Rate, schedule, milestones, warm-up and epochs.
    epoch
        Progress in epochs: the number of epochs done plus the done fraction of the current one.
    """
    warmup = min(config.warmup_epochs, config.epochs / 4)
    if epoch < warmup:
        return config.lr * epoch / warmup
    if config.schedule == "step":
        passed = sum(epoch >= milestone for milestone in config.milestones)
        return float(config.lr * 0.1**passed)
    done = (epoch - warmup) / (config.epochs - warmup)
    return config.lr * cosine_decay(min(done, 1.0))


def head_learning_rate(config: BaselineConfig, epoch: float) -> float:
    """Return the learning rate of the epochs of the head alone: a cosine to zero.

    Parameters
    ----------
    config
        First rate and epochs.
    epoch
        Progress in epochs of the head alone.
    """
    return config.head_lr * cosine_decay(epoch, config.head_epochs)
