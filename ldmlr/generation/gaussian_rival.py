"""Class Gaussians with a shrunken covariance as a rival: k 1, or 1.41 for twice the covariance.

What they are stands in `ldmlr.generation.gaussian`; here rows are drawn class by class, all at once.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ldmlr.generation.gaussian import ClassGaussians
from ldmlr.generation.plan import Counts, labels_of
from ldmlr.generation.train_rows import Generated, TrainRows


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
    fitted = fit(rows)
    random = np.random.default_rng(seed)
    widening = np.broadcast_to(scale, len(plan))
    parts = []
    for mean, root, k, wanted in zip(fitted.mean, fitted.factor, widening, plan, strict=True):
        normals = random.standard_normal((int(wanted), len(root)))
        parts.append(np.maximum(mean + k * normals @ root.T, fitted.floor).astype(np.float32))
    return Generated(np.concatenate(parts), labels_of(plan, 0, int(plan.sum())))


def fit(rows: TrainRows) -> ClassGaussians:
    """Return the Gaussians of clean rows and views."""
    blocks = [(part, rows.labels) for part in (rows.features, *rows.views)]
    return ClassGaussians.fit(blocks, rows.counts, rows.class_names)
