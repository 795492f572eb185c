"""A widening of its own for every class, around a sampler that has one for all.

The samplers apply one factor k to the residual of every row. Rows with a factor per class are drawn with
k = 1 and without floor and bend, in float32, and finished here:
``max(floor, mean[y] + k[y] (row - mean[y]))``, bent as they are. That is exact up to the rounding of float32
and, being a function of the row and its class alone, keeps the promise of the samplers: the same rows
whatever the batch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from ldmlr.classes import Key, class_number
from ldmlr.errors import UsageError, opt
from ldmlr.sampler.spec import SamplerSpec

AT_A_TIME = 1024  # rows

Floats = npt.NDArray[np.float32]


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
    """Return the spec that a sampler runs: k = 1, no floor, no bend, where classes have their own factors."""
    if spec.class_k is None:
        return spec
    return dataclasses.replace(spec, k=1.0, floor=-np.inf, class_k=None, bend=None)


def widen(spec: SamplerSpec, rows: Floats, labels: npt.NDArray[np.int64]) -> Floats:
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
    mean, factor = spec.mean.astype(rows.dtype), spec.class_k.astype(rows.dtype)
    floor = np.asarray(spec.floor, rows.dtype)
    bend = None if spec.bend is None else spec.bend.astype(rows.dtype)
    # Some at a time: the mean of every row would take as much memory as the rows.
    for start in range(0, len(rows), AT_A_TIME):
        classes = labels[start : start + AT_A_TIME]
        centre = mean[classes]
        part = rows[start : start + AT_A_TIME]
        part -= centre
        part *= factor[classes, None]
        part += centre
        np.maximum(part, floor, out=part)
        if bend is not None:
            part *= bend[0, classes] + bend[1, classes] * part
    return rows
