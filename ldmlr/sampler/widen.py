"""A widening of its own for every class, around a sampler that has one for all.

The samplers apply one factor k to the residual of every row. Rows with a factor per class are drawn with
k = 1 and without the floor, in float32, and finished here: ``max(floor, mean[y] + k[y] (row - mean[y]))``.
That is exact up to the rounding of float32 and, being a function of the row and its class alone, keeps
the promise of the samplers: the same rows whatever the batch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch

from ldmlr.classes import Key, class_number
from ldmlr.errors import UsageError, opt
from ldmlr.sampler.spec import SamplerSpec

AT_A_TIME = 1024  # rows


def class_scales(
    factors: Mapping[Key, float], scale: float, num_classes: int, class_names: Sequence[str] | None = None
) -> npt.NDArray[np.float64] | None:
    """Return the widening of every class ``[C]``, or None where no class has one of its own.

    Classes that are not named have `scale`.

    Raises
    ------
    UsageError
        A class is not there, is not clear or is named twice.
    """
    if not factors:
        return None
    found: dict[int, float] = {}
    for key, factor in factors.items():
        number = class_number(key, num_classes, class_names, opt("class_scale"))
        if number in found:
            raise UsageError(f"{opt('class_scale')}: names class {number} twice; leave one out")
        found[number] = factor
    every = np.full(num_classes, float(scale))
    every[list(found)] = list(found.values())
    return every


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
    mean = torch.from_numpy(spec.mean).to(rows.dtype)
    factor = torch.from_numpy(spec.class_k).to(rows.dtype)
    floor = torch.from_numpy(spec.floor).to(rows.dtype) if isinstance(spec.floor, np.ndarray) else spec.floor
    # Some at a time: the mean of every row would take as much memory as the rows.
    for start in range(0, len(rows), AT_A_TIME):
        classes = torch.from_numpy(labels[start : start + AT_A_TIME])
        centre = mean[classes]
        part = rows[start : start + AT_A_TIME]
        part.sub_(centre).mul_(factor[classes, None]).add_(centre).clamp_min_(floor)
    return rows
