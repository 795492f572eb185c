"""Random samplers whose solver works on fewer axes than a row has features."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from ldmlr.bench.models import random_spec
from ldmlr.sampler.spec import SamplerSpec


def latent_spec(
    dim: int,
    latent: int,
    hidden: int = 32,
    layers: int = 1,
    *,
    psi: bool = True,
    floors: bool = True,
    gain: bool = True,
    bend: bool = True,
    **options: Any,
) -> SamplerSpec:
    """Return a model with a full matrix [D, K], and what else there may be.

    A third of the floors is -inf, the others lie within the rows; gains are from 0 (the Gaussian alone) to 1.
    Rows are bent where the dimension is odd, and as they are elsewhere.
    `options` are those of `random_spec`.
    """
    spec = random_spec(latent, hidden, layers, **{"steps": 3, "classes": 3, **options})
    rng = np.random.default_rng(dim * 5000 + latent)
    some_floors = np.where(rng.random(dim) < 1 / 3, -np.inf, rng.normal(size=dim))
    some_gains = rng.random((len(spec.rows), spec.num_classes)) * (np.arange(spec.num_classes) > 0)
    bent = np.stack([np.ones((spec.num_classes, dim)), np.zeros((spec.num_classes, dim))])
    bent[:, :, 1::2] = rng.random((2, spec.num_classes, dim))[:, :, 1::2]
    return dataclasses.replace(
        spec,
        mean=rng.normal(size=(spec.num_classes, dim)),
        scale=rng.standard_normal((dim, latent)) * latent**-0.5,
        psi=rng.random(dim) if psi else None,
        floor=some_floors if floors else -np.inf,
        gain=some_gains if gain else None,
        bend=bent if bend else None,
    )
