"""Everything a sampler needs, as plain arrays and numbers: the boundary between model and backend."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from ldmlr.diffusion.solvers import StepRows
from ldmlr.diffusion.tables import Tables


@dataclasses.dataclass(frozen=True)
class SamplerSpec:
    """A model, a solver and a seed; with labels and a first row number it determines the rows.

    Attributes
    ----------
    tables
        The denoiser on the evaluation times of `rows`.
    rows
        The solver table.
    mean
        float64 ``[C, D]``.
    scale
        float64, lower triangular ``[D, D]`` or diagonal ``[D]``: a row is
        ``max(floor, mean[y] + k scale z)`` of the final z.
    k
        Widening of the generated rows around their class mean.
    floor
        Smallest value of a feature, or -inf.
    guidance
        ``f = f_null + guidance (f_class - f_null)``; 1 evaluates the class alone.
    seed
        0 .. 2^64 - 1.
    class_k
        float64 ``[C]``: a widening for each class instead of `k`; None: `k` for all.
    """

    tables: Tables
    rows: StepRows
    mean: npt.NDArray[np.float64]
    scale: npt.NDArray[np.float64]
    k: float
    floor: float
    guidance: float
    seed: int
    class_k: npt.NDArray[np.float64] | None = None

    @property
    def dim(self) -> int:
        """Feature dimensions D."""
        return int(self.mean.shape[1])

    @property
    def num_classes(self) -> int:
        """Classes C."""
        return int(self.mean.shape[0])
