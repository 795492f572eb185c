"""Linear heads solved to convergence, one weight decay after the other.

Each solution starts from the one before: along a path from strong to weak decay, a step takes a dozen
evaluations of the loss.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from ldmlr.heads.lbfgs import minimise
from ldmlr.heads.losses import added_offset, log_prior
from ldmlr.heads.modules import LinearHead, linear_head
from ldmlr.heads.softmax import SoftmaxLoss
from ldmlr.heads.spec import HeadSpec
from ldmlr.heads.standard import Standard
from ldmlr.heads.training_rows import TrainingRows

# Largest component of the gradient, over that of a head of zeros: while values are compared, and of the head
# that is kept. With a thousand classes every component is small from the beginning.
ROUGH, FINE = 3e-3, 3e-5


def weighted_counts(rows: TrainingRows, weights: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return what the rows of each class weigh, ``[C]``; a class without any weighs half a row."""
    return np.maximum(np.bincount(rows.labels, weights, rows.num_classes), 0.5)


def row_weights(
    spec: HeadSpec, rows: TrainingRows, weights: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Return the weights of rows in the loss: as given, or such that all classes weigh alike."""
    if spec.loss != "class-weights":
        return weights
    balanced: npt.NDArray[np.float64] = weights / weighted_counts(rows, weights)[rows.labels]
    return balanced


def trained_offset(
    spec: HeadSpec, rows: TrainingRows, weights: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Return what is added to the logits in training, ``[C]``."""
    return added_offset(spec.loss, weighted_counts(rows, weights), 1.0 if spec.tau is None else spec.tau)


def shift_offset(
    spec: HeadSpec, rows: TrainingRows, weights: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Return what is left to be subtracted from the logits for classes that count alike, ``[C]``."""
    prior = log_prior(weighted_counts(rows, weights))
    if spec.loss == "cross-entropy" and spec.kind != "tau-norm" and spec.trained:
        return (1.0 if spec.tau is None else spec.tau) * prior
    return np.zeros(rows.num_classes)


class LinearPath:
    """Linear heads of some rows, for one weight decay after the other.

    Parameters
    ----------
    rows, weights
        What they are fitted to, and what each row weighs.
    """

    def __init__(self, rows: TrainingRows, weights: npt.NDArray[np.float64]) -> None:
        self.rows, self.weights = rows, weights
        self.standard = Standard.of(rows.features)
        self.theta = torch.zeros(rows.num_classes, rows.dim + 1)
        self.steepest: dict[tuple[str, float | None], float] = {}

    def fit(self, spec: HeadSpec, *, fine: bool = True) -> LinearHead:
        """Return the head of a specification whose weight decay is settled."""
        assert spec.weight_decay is not None
        decay = spec.weight_decay
        objective = SoftmaxLoss(
            self.rows.features, self.rows.labels, self.rows.num_classes, self.standard,
            row_weights(spec, self.rows, self.weights), trained_offset(spec, self.rows, self.weights),
        )  # fmt: skip
        key = spec.loss, spec.tau
        if key not in self.steepest:
            _, gradient = objective(torch.zeros_like(self.theta), 0.0)
            self.steepest[key] = float(gradient.abs().max())
        tolerance = (FINE if fine else ROUGH) * self.steepest[key]
        found = minimise(lambda theta: objective(theta, decay), self.theta, tolerance=tolerance)
        self.theta = found.x
        return linear_head(*self.standard.fold(found.x[:, :-1], found.x[:, -1]))
