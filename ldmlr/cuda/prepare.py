"""A sampler's arrays as the CUDA kernels read them: units, sizes and order; still on the host."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from ldmlr.cuda import abi
from ldmlr.cuda.packing import pack_stream, pad, split_triangle
from ldmlr.cuda.tiers import Tier
from ldmlr.diffusion.spec import SamplerSpec
from ldmlr.diffusion.tables import DenoiserTables

# The kernels keep kappa x instead of x, so that silu needs no multiplication by it (csrc/params.h).
KAPPA = -1 / math.log(2)

Arrays = dict[str, npt.NDArray[np.generic]]


def prepare(spec: SamplerSpec, tier: Tier) -> tuple[abi.Model, Arrays]:
    """Return the sizes and numbers of a model, and its arrays by the name of their address.

    Parameters
    ----------
    spec
        Denoiser (additive), solver table, transform, guidance and seed.
    tier
        The kernels that will run.

    Returns
    -------
    A `Model` without addresses, and the arrays to put on the device.
    """
    tables = spec.tables
    assert isinstance(tables, DenoiserTables)
    hidden, dim = tables.w_in.shape
    layers = len(tables.w1)
    # Two linear maps in a row are one; the cheaper of both ways runs where there is a choice.
    folded = tier.fused or dim < hidden
    w_in, b_in = tables.w_in.astype(np.float64), tables.b_in.astype(np.float64)
    first, bias_step = tables.w1[0].astype(np.float64), tables.bias_step.astype(np.float64)
    if folded:
        bias_step[:, 0] += first @ b_in
        first = KAPPA * (first @ w_in)
    w_in, w_out = KAPPA * w_in, tables.w_out / KAPPA
    w1, w2 = tables.w1[1:], tables.w2
    d, h = tier.dim, tier.hidden
    arrays: Arrays
    pack = tier.packing
    if tier.fused:
        arrays = {"input": pack_stream(w_in, first, list(w1), list(w2), w_out, d, h)}
    else:
        arrays = {
            "input": pack(w_in, h, d),
            "first": pack(first, h, d if folded else h),
            "w1": np.array([pack(matrix, h, h) for matrix in w1]),
            "w2": np.array([pack(matrix, h, h) for matrix in w2]),
            "output": pack(w_out, d, h),
        }
    arrays |= {
        "mean": pad(spec.mean, d),
        "b_in": pad(KAPPA * b_in, h),
        "b2": pad(KAPPA * tables.b2, h),
        "b_out": pad(tables.b_out, d),
        "bias_step": pad(KAPPA * bias_step, h),
        "bias_class": pad(KAPPA * tables.bias_class.astype(np.float64), h),
        "steps": spec.rows.table().astype(np.float32),
    }
    scale = spec.k * spec.scale
    if scale.ndim == 2:
        arrays["triangle"] = pack(split_triangle(scale, d), d, 3 * d)
    else:
        arrays["diagonal"] = pad(scale, d)
    model = abi.Model(
        dim=dim, hidden=hidden, layers=layers, classes=spec.num_classes, dim_padded=d, hidden_padded=h,
        num_steps=len(spec.rows), folded=int(folded),
        guidance=spec.guidance, floor=spec.floor, seed=spec.seed,
    )  # fmt: skip
    return model, arrays
