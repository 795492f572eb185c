"""Everything a sampler needs, as plain arrays and numbers: the boundary between model and backend."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from ldmlr.diffusion.solvers import StepRows
from ldmlr.diffusion.tables import Tables
from ldmlr.errors import UsageError


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
        float64: what leads from the K latent axes of the solver back to D features; a diagonal ``[D]``
        (K = D), a lower triangle ``[D, D]`` or any matrix ``[D, K]``. A row is
        ``v = max(floor, mean[y] + k (scale z + psi e))`` of the final z, bent.
    k
        Widening of the generated rows around their class mean.
    floor
        Smallest value of a feature, one number or float64 ``[D]``; -inf: none.
    guidance
        ``f = f_null + guidance (f_class - f_null)``; 1 evaluates the class alone.
    seed
        0 .. 2^64 - 1.
    class_k
        float64 ``[C]``: a widening for each class instead of `k`; None: `k` for all.
    psi
        float64 ``[D]``: deviation of what the latent axes do not hold, times fresh standard normals e
        (`ldmlr.sampler.noise.Stream.REMAINDER`); None: nothing.
    gain
        float64 ``[S, C]``: a factor of the network's output f, guidance included, for each row of the
        solver's table and each class; None: 1.
    bend
        float64 ``[2, C, D]``: a row is ``v (bend[0, y] + bend[1, y] v)``; None: it is v.

    Raises
    ------
    UsageError
        Arrays whose shapes do not fit each other.
    """

    tables: Tables
    rows: StepRows
    mean: npt.NDArray[np.float64]
    scale: npt.NDArray[np.float64]
    k: float
    floor: float | npt.NDArray[np.float64]
    guidance: float
    seed: int
    class_k: npt.NDArray[np.float64] | None = None
    psi: npt.NDArray[np.float64] | None = None
    gain: npt.NDArray[np.float64] | None = None
    bend: npt.NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        if self.mean.ndim != 2:
            raise UsageError(f"mean: expected [C, D], not {list(self.mean.shape)}")
        classes, dim, latent = self.num_classes, self.dim, self.latent
        if latent > dim or self.tables.w_out.shape[0] != latent:
            raise UsageError(
                f"tables: expected a network from K to K numbers with K at most {dim}, not from {latent} to "
                f"{self.tables.w_out.shape[0]}"
            )
        shapes: dict[str, list[tuple[int, ...]]] = {
            "scale": [(dim, latent), (dim,)] if latent == dim else [(dim, latent)],
            "floor": [(), (dim,)],
            "class_k": [(classes,)],
            "psi": [(dim,)],
            "gain": [(len(self.rows), classes)],
            "bend": [(2, classes, dim)],
        }
        for name, wanted in shapes.items():
            value = getattr(self, name)
            if value is not None and np.shape(value) not in wanted:
                expected = " or ".join(str(list(shape)) for shape in wanted)
                raise UsageError(f"{name}: expected {expected}, not {list(np.shape(value))}")

    @property
    def dim(self) -> int:
        """Feature dimensions D."""
        return int(self.mean.shape[1])

    @property
    def latent(self) -> int:
        """Latent axes K: what the solver and the network work on."""
        return int(self.tables.w_in.shape[1])

    @property
    def triangular(self) -> bool:
        """Whether `scale` is a lower triangle, half of whose products need not be computed."""
        return self.scale.ndim == 2 and self.latent == self.dim and not np.triu(self.scale, 1).any()

    @property
    def num_classes(self) -> int:
        """Classes C."""
        return int(self.mean.shape[0])
