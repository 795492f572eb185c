"""Class Gaussians with a shrunken covariance.

A class of n rows, views counted, has their mean mu_c and the covariance ``w S_c + (1 - w) S`` with
``w = n / (n + 64)``: S_c its own, S the one shared by all classes (that of LDMLR's whitening). Rows are
``max(floor, mu_c + k chol z)``, with k 1, or 1.41 for twice the covariance.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ldmlr.diffusion.transform import fit_transform
from ldmlr.generation.plan import Counts, labels_of
from ldmlr.rivals.rows import Generated, TrainRows

SHRINKAGE = 64.0


def gaussian(
    rows: TrainRows, plan: Counts, seed: int, *, scale: float | npt.NDArray[np.float64] = 1.0
) -> Generated:
    """Draw rows from the Gaussian of each class.

    Parameters
    ----------
    rows
        Training rows; their views count for mean and covariance, where there are any.
    plan
        Rows to generate per class ``[C]``.
    seed
        Seed of the draws.
    scale
        k, the widening around the class mean: one for all, or ``[C]``.
    """
    mean, covariance, floor = class_gaussians(rows)
    random = np.random.default_rng(seed)
    widening = np.broadcast_to(scale, len(plan))
    parts = []
    for number, wanted in enumerate(plan):
        spread = np.linalg.cholesky(covariance[number])
        normals = random.standard_normal((int(wanted), len(spread)))
        drawn = np.maximum(mean[number] + widening[number] * normals @ spread.T, floor)
        parts.append(drawn.astype(np.float32))
    return Generated(np.concatenate(parts), labels_of(plan, 0, int(plan.sum())))


def class_gaussians(
    rows: TrainRows,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], float]:
    """Return means ``[C, D]``, shrunken covariances ``[C, D, D]`` and the smallest feature allowed."""
    features, labels = rows.with_views()
    shared = fit_transform("whitened", [(features, labels)], rows.counts)
    pooled = shared.scale @ shared.scale.T
    covariance = np.empty((rows.num_classes, shared.dim, shared.dim))
    for number in range(rows.num_classes):
        residual = features[labels == number].astype(np.float64) - shared.mean[number]
        own = residual.T @ residual / len(residual)
        weight = len(residual) / (len(residual) + SHRINKAGE)
        covariance[number] = weight * own + (1 - weight) * pooled
    return shared.mean, covariance, shared.floor
