"""A widening of its own for every class, around a sampler that has one for all.

The samplers apply one factor k to the residual of every row. Rows with a factor per class are drawn with
k = 1 and without the floor, in float32, and finished here: ``max(floor, mean[y] + k[y] (row - mean[y]))``.
That is exact up to the rounding of float32 and, being a function of the row and its class alone, keeps
the promise of the samplers: the same rows whatever the batch.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt
import torch

from ldmlr.sampler.spec import SamplerSpec


def plain_spec(spec: SamplerSpec) -> SamplerSpec:
    """Return the spec that a sampler runs: k = 1 and no floor where every class has a factor of its own."""
    if spec.class_k is None:
        return spec
    return dataclasses.replace(spec, k=1.0, floor=-np.inf, class_k=None)


def widen(spec: SamplerSpec, rows: torch.Tensor, labels: npt.NDArray[np.int64]) -> torch.Tensor:
    """Finish rows ``[N, D]`` that were drawn with `plain_spec`; rows of other specs stay as they are.

    Parameters
    ----------
    spec
        The spec that was asked for.
    rows
        Float32 rows of `plain_spec`; changed in place.
    labels
        Their classes ``[N]``.
    """
    if spec.class_k is None:
        return rows
    index = torch.from_numpy(labels)
    mean = torch.from_numpy(spec.mean).to(rows.dtype)[index]
    factor = torch.from_numpy(spec.class_k).to(rows.dtype)[index]
    return rows.sub_(mean).mul_(factor[:, None]).add_(mean).clamp_min_(spec.floor)
