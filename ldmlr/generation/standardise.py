"""Dimensions with zeros, standardised by what a trained model draws there (`ldmlr.diffusion.zeros`)."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from ldmlr.device import Machine
from ldmlr.diffusion.transform import Transform
from ldmlr.diffusion.zeros import Draw, Space
from ldmlr.sampler.backends import prepare
from ldmlr.sampler.spec import SamplerSpec


def standardise(
    transform: Transform,
    spec: SamplerSpec,
    z: npt.NDArray[np.float32],
    labels: npt.NDArray[np.int64],
    counts: npt.NDArray[np.int64],
    threads: int | None,
) -> Transform:
    """Return a transform whose zeros are those of the model: a function of the model and its training rows.

    Parameters
    ----------
    transform
        As it was fitted, with axes and zeros.
    spec
        The model without guidance, which moves classes on purpose.
    z, labels
        The training rows in the space of the diffusion ``[N, K]`` and their classes.
    counts
        Training rows per class ``[C]``.
    threads
        CPU threads: the rows are drawn there wherever the model was trained.
    """
    assert transform.zeros
    assert transform.axes
    classes, latent = len(counts), transform.latent
    # z itself as the rows.
    inner = dataclasses.replace(
        spec, mean=np.zeros((classes, latent)), scale=np.ones(latent), psi=None, floor=-np.inf, k=1.0,
        class_k=None, bend=None,
    )  # fmt: skip

    def drawer(which: SamplerSpec) -> Draw:
        return prepare(which, Machine(device="cpu", threads=threads), "float32")

    silent = dataclasses.replace(inner, gain=np.zeros((len(spec.rows), classes)))
    weight = counts[labels] ** -0.5
    space = Space(
        mean=transform.class_means(classes), scale=transform.scale,
        psi=np.zeros(transform.dim) if transform.psi is None else transform.psi,
        whitening=transform.axes.whitening,
        variance=np.einsum("nk,nk,n->k", z, z, weight, dtype=np.float64) / weight.sum(),
        weight=np.sqrt(counts, dtype=np.float64),
    )  # fmt: skip
    return dataclasses.replace(
        transform, zeros=transform.zeros.standardised(space, drawer(inner), drawer(silent))
    )
