"""Ranges of a denoiser's activations, for the sampler that multiplies integers of 8 bits."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from ldmlr.diffusion.tables import DenoiserTables
from ldmlr.errors import UsageError, opt
from ldmlr.sampler.noise import Stream, standard_normal
from ldmlr.sampler.solve import solve
from ldmlr.sampler.spec import SamplerSpec

# Rows of the calibrating draw: at most so many, fewer where they would take over a second or so.
ROWS, OPERATIONS = 1024, 2e10
# The calibrating draw has noise of its own, the same for every seed: ranges belong to the model and
# its solver, not to the rows.
SEED = 0
# Ranges are rounded up to sixteenths of a power of two, so that the last bits of a matrix product,
# which differ between processors and numbers of threads, do not matter.
GRID = 16

Doubles = npt.NDArray[np.float64]


def silu(x: Doubles) -> Doubles:
    """Return ``x sigmoid(x)``."""
    with np.errstate(over="ignore"):
        value: Doubles = x / (1 + np.exp(-x))
    return value


def activation_ranges(spec: SamplerSpec) -> Doubles:
    """Return the largest absolute value of every operand of a product, over a calibrating draw.

    One range holds for all steps, rows and classes: a range per batch would make a row depend on
    its neighbours. Values beyond it, of rows that were not in the draw, saturate.

    Parameters
    ----------
    spec
        The model and its solver; the additive network.

    Returns
    -------
    ``[2 L + 2]``: of x, of h and u = silu(W1 h + ..) of each layer, of the last activation.

    Raises
    ------
    UsageError
        A value is not finite: rounding would hide it.
    """
    assert isinstance(spec.tables, DenoiserTables)
    fields = dataclasses.fields(spec.tables)
    w = {field.name: np.asarray(getattr(spec.tables, field.name), np.float64) for field in fields}
    count = _calibrating_rows(spec)
    labels = np.linspace(0, spec.num_classes - 1, count).round().astype(np.int64)
    null = np.full_like(labels, spec.num_classes)
    layers = len(w["w1"])
    found = np.zeros(2 * layers + 2)

    def seen(index: int, operand: Doubles) -> Doubles:
        found[index] = np.maximum(found[index], np.abs(operand).max())
        return operand

    def activations(x: Doubles, step: int, classes: npt.NDArray[np.int64]) -> Doubles:
        h = x @ w["w_in"].T + w["b_in"]
        for layer in range(layers):
            bias = w["bias_step"][step, layer] + w["bias_class"][classes, layer]
            u = seen(2 + 2 * layer, silu(seen(1 + 2 * layer, h) @ w["w1"][layer].T + bias))
            h = h + u @ w["w2"][layer].T + w["b2"][layer]
        return silu(h)

    def guided(x: Doubles, step: int) -> Doubles:
        mixed = activations(seen(0, x), step, labels)
        if spec.guidance != 1:
            without = activations(x, step, null)
            mixed = without + spec.guidance * (mixed - without)
        f = np.asarray(seen(2 * layers + 1, mixed) @ w["w_out"].T + w["b_out"])
        return f if spec.gain is None else f * spec.gain[step, labels, None]

    def noise(step: int) -> Doubles:
        return standard_normal(SEED, 0, count, spec.latent, Stream.CALIBRATION, step).astype(np.float64)

    solve(spec.rows, noise(0), guided, lambda step: noise(step + 1))
    if not np.isfinite(found).all() or not all(np.isfinite(array).all() for array in w.values()):
        raise UsageError(f"{opt('weights')}: int8 needs a finite model, and this one is not; train it again")
    ranges: Doubles = np.exp2(np.ceil(np.log2(np.where(found > 0, found, 1.0)) * GRID) / GRID)
    return ranges


def _calibrating_rows(spec: SamplerSpec) -> int:
    """Return how many rows the calibrating draw has."""
    assert isinstance(spec.tables, DenoiserTables)
    layers, hidden, dim = len(spec.tables.w1), len(spec.tables.b_in), spec.latent
    work = 4 * len(spec.rows) * hidden * (dim + 2 * layers * hidden)
    return int(np.clip(OPERATIONS / work, 32, ROWS))
