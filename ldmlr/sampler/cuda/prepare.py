"""A sampler's arrays as the CUDA kernels read them: units, sizes and order; still on the host."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ldmlr import _native
from ldmlr.diffusion.tables import DenoiserTables
from ldmlr.sampler.cuda.packing import pack_stream, pad, split_matrix
from ldmlr.sampler.cuda.tiers import Tier, padded_features
from ldmlr.sampler.spec import SamplerSpec
from ldmlr.sampler.units import kernel_tables

Arrays = dict[str, npt.NDArray[np.generic]]


def prepare(spec: SamplerSpec, tier: Tier) -> tuple[_native.CudaModel, Arrays]:
    """Return the sizes and numbers of a model, and its arrays by the name of their address.

    Parameters
    ----------
    spec
        Denoiser (additive), solver table, transform, guidance and seed.
    tier
        The kernels that will run.

    Returns
    -------
    A `CudaModel` without addresses, and the arrays to put on the device.
    """
    tables = spec.tables
    assert isinstance(tables, DenoiserTables)
    hidden, latent = tables.w_in.shape
    layers = len(tables.w1)
    # Two linear maps in a row are one; the cheaper of both ways runs where there is a choice.
    folded = tier.fused or latent < hidden
    w = kernel_tables(tables, folded)
    d, k, h = padded_features(spec.dim), tier.latent, tier.hidden
    arrays: Arrays
    pack = tier.packing
    if tier.fused:
        arrays = {"input": pack_stream(w.input, w.first, list(w.w1), list(w.w2), w.output, k, h)}
    else:
        arrays = {
            "input": pack(w.input, h, k),
            "first": pack(w.first, h, k if folded else h),
            "w1": np.array([pack(matrix, h, h) for matrix in w.w1]),
            "w2": np.array([pack(matrix, h, h) for matrix in w.w2]),
            "output": pack(w.output, k, h),
        }
    arrays |= {
        "mean": pad(spec.mean, d),
        "floor": pad(np.broadcast_to(np.asarray(spec.floor, np.float64), spec.dim), d),
        "b_in": pad(w.b_in, h),
        "b2": pad(w.b2, h),
        "b_out": pad(w.b_out, k),
        "bias_step": pad(w.bias_step, h),
        "bias_class": pad(w.bias_class, h),
        "steps": spec.rows.table().astype(np.float32),
    }
    scale = spec.k * spec.scale
    if scale.ndim == 2:
        arrays["matrix"] = pack(split_matrix(scale, d, k), d, 3 * k)
    else:
        arrays["diagonal"] = pad(scale, d)
    if spec.psi is not None:
        arrays["psi"] = pad(spec.k * spec.psi, d)
    if spec.bend is not None:
        arrays["slope"], arrays["curve"] = pad(spec.bend[0], d), pad(spec.bend[1], d)
    if spec.gain is not None:
        arrays["gain"] = spec.gain.astype(np.float32)
    model = _native.CudaModel(
        dim=spec.dim, latent=latent, hidden=hidden, layers=layers, classes=spec.num_classes,
        dim_padded=d, latent_padded=k, hidden_padded=h, num_steps=len(spec.rows), folded=int(folded),
        guidance=spec.guidance, seed=spec.seed,
    )  # fmt: skip
    return model, arrays
