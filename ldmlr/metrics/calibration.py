"""Calibration of predicted probabilities: ECE, negative log-likelihood and Brier score.

Sums are kept in float64 and batch by batch, so a split may exceed memory.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ldmlr.errors import InputError
from ldmlr.metrics.accuracy import checked

Floats = npt.NDArray[np.float64]
BINS = 15


def log_softmax(logits: npt.ArrayLike) -> Floats:
    """Return log-probabilities ``[n, C]`` of logits ``[n, C]`` in float64.

    That of scipy gives the same bits, but every command that measures a head would pay for its import.
    """
    scores = np.asarray(logits, dtype=np.float64)
    scores = scores - scores.max(axis=1, keepdims=True)
    shifted: Floats = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
    return shifted


class CalibrationCounter:
    """Sums what ECE, NLL and Brier score need while batches of logits come in.

    Parameters
    ----------
    num_classes
        Classes C.
    bins
        Equal-width bins of the confidence in [0, 1].
    """

    def __init__(self, num_classes: int, bins: int = BINS) -> None:
        self.num_classes = num_classes
        self.rows = np.zeros(bins, dtype=np.int64)
        self.confidence = np.zeros(bins)
        self.correct = np.zeros(bins)
        self.nll = 0.0
        self.brier = 0.0

    def update(self, logits: npt.ArrayLike, labels: npt.ArrayLike) -> None:
        """Add a batch: logits ``[n, C]`` and labels ``[n]``."""
        scores, target = checked(logits, labels, self.num_classes)
        logp = log_softmax(scores)
        p = np.exp(logp)
        rows = np.arange(len(target))
        top, predicted = p.max(axis=1), p.argmax(axis=1)
        bins = len(self.rows)
        # Bins are (lower, upper], so that a confidence of exactly one belongs to the last.
        place = np.clip(np.ceil(top * bins).astype(np.int64) - 1, 0, bins - 1)
        self.rows += np.bincount(place, minlength=bins)
        self.confidence += np.bincount(place, weights=top, minlength=bins)
        self.correct += np.bincount(place, weights=predicted == target, minlength=bins)
        self.nll -= float(logp[rows, target].sum())
        # sum_c (p_c - [c = y])^2 = sum_c p_c^2 - 2 p_y + 1
        self.brier += float((np.square(p).sum(axis=1) - 2 * p[rows, target] + 1).sum())

    def summary(self) -> dict[str, float]:
        """Return ``ece`` (0 to 1), ``nll`` (nats) and ``brier`` (0 to 2), means over the rows.

        ECE is the expected calibration error (Naeini et al., AAAI 2015): the mean gap between confidence
        and accuracy over the bins, weighted by rows. The Brier score sums over the classes.
        """
        total = int(self.rows.sum())
        if not total:
            raise InputError("calibration: there are no rows to measure it on")
        gap = np.abs(self.confidence - self.correct).sum() / total
        return {"ece": float(gap), "nll": self.nll / total, "brier": self.brier / total}

    def reliability(self) -> list[dict[str, float | int | None]]:
        """Return per bin ``rows``, mean ``confidence`` and ``accuracy`` (0 to 1; None without rows)."""
        return [
            {
                "rows": int(rows),
                "confidence": float(confidence / rows) if rows else None,
                "accuracy": float(correct / rows) if rows else None,
            }
            for rows, confidence, correct in zip(self.rows, self.confidence, self.correct, strict=True)
        ]


def calibration(logits: npt.ArrayLike, labels: npt.ArrayLike, bins: int = BINS) -> dict[str, float]:
    """Return ``ece``, ``nll`` and ``brier`` of logits ``[N, C]``; see `CalibrationCounter`."""
    counter = CalibrationCounter(np.shape(logits)[-1], bins)
    counter.update(logits, labels)
    return counter.summary()
