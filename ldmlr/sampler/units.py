"""A denoiser in the units of the kernels, for the CPU and for CUDA (csrc/params.h).

silu needs 2^(-x log2 e). The kernels keep ``kappa x`` instead of x, with ``kappa = -log2 e``: silu becomes
``t / (1 + 2^t)`` without a multiplication. W_in, the biases and W_out carry the factor.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import numpy.typing as npt

from ldmlr.diffusion.tables import DenoiserTables

KAPPA = -1 / math.log(2)

Doubles = npt.NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class KernelTables:
    """What the kernels multiply and add, float64, before rounding and packing.

    Attributes
    ----------
    input
        ``[H, D]``: W_in.
    first
        W1 of the first layer ``[H, H]``, reading h; folded: W1 W_in ``[H, D]``, reading x.
    w1
        W1 of the other layers ``[L - 1, H, H]``.
    w2
        ``[L, H, H]``.
    output
        ``[D, H]``: W_out.
    b_in, b2, b_out
        ``[H]``, ``[L, H]``, ``[D]``.
    bias_step, bias_class
        ``[S, L, H]``; folded, the first layer's has W1 b_in in it. ``[C + 1, L, H]``.
    """

    input: Doubles
    first: Doubles
    w1: Doubles
    w2: Doubles
    output: Doubles
    b_in: Doubles
    b2: Doubles
    b_out: Doubles
    bias_step: Doubles
    bias_class: Doubles


def kernel_tables(tables: DenoiserTables, folded: bool) -> KernelTables:
    """Return a denoiser in the units of the kernels.

    Parameters
    ----------
    tables
        The additive network on the times of the solver.
    folded
        Make one matrix of the two linear maps before the first activation: the cheaper way where D < H.
    """
    w = {
        field.name: np.asarray(getattr(tables, field.name), np.float64)
        for field in dataclasses.fields(tables)
    }
    first, bias_step = w["w1"][0], w["bias_step"].copy()
    if folded:
        bias_step[:, 0] += first @ w["b_in"]
        first = KAPPA * (first @ w["w_in"])
    return KernelTables(
        input=KAPPA * w["w_in"],
        first=first,
        w1=w["w1"][1:],
        w2=w["w2"],
        output=w["w_out"] / KAPPA,
        b_in=KAPPA * w["b_in"],
        b2=KAPPA * w["b2"],
        b_out=w["b_out"],
        bias_step=KAPPA * bias_step,
        bias_class=KAPPA * w["bias_class"],
    )
