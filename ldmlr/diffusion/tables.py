"""A trained denoiser as plain arrays: what a sampler, in whatever language, reads."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt


@dataclasses.dataclass(frozen=True)
class DenoiserTables:
    """The additive denoiser on a grid of S evaluation times: plain float32 arrays in C order.

    ``h = w_in x + b_in;  h += w2[l] silu(w1[l] h + bias_step[s, l] + bias_class[y, l]) + b2[l];
    f = w_out silu(h) + b_out`` with matrices as (outputs, inputs) and row C of `bias_class`
    the null class of guidance.

    Attributes
    ----------
    w_in, b_in
        ``[H, D]``, ``[H]``.
    w1, w2, b2
        ``[L, H, H]``, ``[L, H, H]``, ``[L, H]``.
    w_out, b_out
        ``[D, H]``, ``[D]``.
    bias_step, bias_class
        ``[S, L, H]``, ``[C + 1, L, H]``.
    """

    w_in: npt.NDArray[np.float32]
    b_in: npt.NDArray[np.float32]
    w1: npt.NDArray[np.float32]
    w2: npt.NDArray[np.float32]
    b2: npt.NDArray[np.float32]
    w_out: npt.NDArray[np.float32]
    b_out: npt.NDArray[np.float32]
    bias_step: npt.NDArray[np.float32]
    bias_class: npt.NDArray[np.float32]


@dataclasses.dataclass(frozen=True)
class AdaLNTables:
    """The AdaLN denoiser on a grid of S evaluation times: plain float32 arrays in C order.

    With ``scale, shift, gate = w_mod[l] silu(step[s] + class_[y]) + b_mod[l]``:
    ``h += gate * (w2[l] silu(w1[l] (norm(h) * (1 + scale) + shift) + b1[l]) + b2[l])``;
    first and last layer as in `DenoiserTables`.
    """

    w_in: npt.NDArray[np.float32]
    b_in: npt.NDArray[np.float32]
    w1: npt.NDArray[np.float32]
    b1: npt.NDArray[np.float32]
    w2: npt.NDArray[np.float32]
    b2: npt.NDArray[np.float32]
    w_mod: npt.NDArray[np.float32]
    b_mod: npt.NDArray[np.float32]
    w_out: npt.NDArray[np.float32]
    b_out: npt.NDArray[np.float32]
    step: npt.NDArray[np.float32]
    class_: npt.NDArray[np.float32]


Tables = DenoiserTables | AdaLNTables
