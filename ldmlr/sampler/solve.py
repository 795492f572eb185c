"""The solver loop, from noise to data: the reference and the benchmarks run it, kernels compute the same.

In the notation of Ho et al. (2020) and Lu et al. (2022): x is ``alpha x0 + sigma eps``, and an estimate of x0
follows from the output f of the denoiser (eps: ``x0 = (x - sigma f) / alpha``, v: ``alpha x - sigma f``).
A step moves x to the next alpha and sigma with it, with the estimate before (2M, Heun) and with fresh noise
(ancestral). All of these are the columns of the solver's table (`ldmlr.diffusion.solvers`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import numpy.typing as npt

from ldmlr.diffusion.solvers import StepRows

if TYPE_CHECKING:  # what needs no torch must not load it
    from torch import Tensor

State = TypeVar("State", "Tensor", npt.NDArray[Any])


def solve(
    rows: StepRows,
    x: State,
    network: Callable[[State, int], State],
    noise: Callable[[int], State],
) -> State:
    """Follow a solver table from noise to t = 0.

    Parameters
    ----------
    rows
        The table.
    x
        Standard normals ``[N, D]`` (or of any shape), an array or a tensor; stays as it is.
    network
        The denoiser's output f for a state and the number of the step, guidance included.
    noise
        Standard normals for a step, like x; asked for by ancestral solvers only.

    Returns
    -------
    x at t = 0, which is the last x0; like x.
    """
    before: State | float = 0.0  # x0 of the step before
    for step, (p, q, lo, hi, a, b, c, s) in enumerate(rows.table().tolist()):
        f = network(x, step)
        x0 = (p * x + q * f).clip(lo, hi)
        x = a * x + b * x0 + c * before
        if s:
            x = x + s * noise(step)
        before = x0
    return x
