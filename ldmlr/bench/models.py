"""Random models to measure with, and the operations they need."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ldmlr.diffusion.schedule import make_schedule
from ldmlr.diffusion.solvers import LAMBDA_MIN, step_rows
from ldmlr.diffusion.tables import DenoiserTables
from ldmlr.sampler.spec import SamplerSpec


def random_spec(
    dim: int,
    hidden: int,
    layers: int = 2,
    *,
    steps: int = 10,
    guidance: float = 1.5,
    classes: int = 10,
    seed: int = 0,
    solver: str = "dpmpp2m",
    prediction: str = "v",
    eta: float = 0.0,
    diagonal: bool = False,
    floor: float = 0.0,
) -> SamplerSpec:
    """Return a sampler of the recipe's shape with random weights, whose signals stay of order one.

    Parameters
    ----------
    dim, hidden, layers
        D, H and L.
    steps
        Solver steps.
    guidance
        1 evaluates the class alone.
    classes
        C.
    seed
        Seed of the weights and of the noise.
    solver, prediction, eta
        As `ldmlr.diffusion.solvers.step_rows` takes them.
    diagonal
        Scale rows by a diagonal instead of a triangle.
    floor
        Smallest value of a row.
    """
    rng = np.random.default_rng(seed)

    def normal(*shape: int, scale: float) -> npt.NDArray[np.float32]:
        values: npt.NDArray[np.float32] = rng.standard_normal(shape, np.float32) * np.float32(scale)
        return values

    # An estimate of x0 from eps divides by alpha: a later start keeps the amplification small.
    start = -2.0 if prediction == "eps" else LAMBDA_MIN
    schedule = make_schedule("cosine")
    rows = step_rows(solver, steps, schedule, prediction, eta, clip=8.0, lambda_min=start)
    tables = DenoiserTables(
        w_in=normal(hidden, dim, scale=dim**-0.5),
        b_in=normal(hidden, scale=0.1),
        w1=normal(layers, hidden, hidden, scale=hidden**-0.5),
        w2=normal(layers, hidden, hidden, scale=0.5 * hidden**-0.5),
        b2=normal(layers, hidden, scale=0.1),
        w_out=normal(dim, hidden, scale=0.5 * hidden**-0.5),
        b_out=normal(dim, scale=0.1),
        bias_step=normal(len(rows), layers, hidden, scale=0.5),
        bias_class=normal(classes + 1, layers, hidden, scale=0.5),
    )
    lower = np.tril(rng.standard_normal((dim, dim)), -1) * 0.3 * dim**-0.5
    scale = np.diag(0.5 + rng.random(dim)) + lower
    mean = rng.random((classes, dim))
    return SamplerSpec(tables, rows, mean, np.diag(scale) if diagonal else scale, 1.41, floor, guidance, seed)


def random_labels(spec: SamplerSpec, rows: int) -> npt.NDArray[np.int64]:
    """Return sorted random labels ``[rows]``, as a generation plan has them."""
    return np.sort(np.random.default_rng(1).integers(0, spec.num_classes, rows))


def operations_per_row(spec: SamplerSpec) -> int:
    """Return the operations of one row, a multiply-add counted as two: the fewest the network needs.

    Both evaluations of guidance share the products before the first class bias, the two maps
    before it are one where that is cheaper, and the last product is evaluated once because f is
    linear in it. Activation, noise and transform count as nothing.
    """
    assert isinstance(spec.tables, DenoiserTables)
    hidden, dim = spec.tables.w_in.shape
    layers = len(spec.tables.w1)
    evaluations = 1 if spec.guidance == 1 else 2
    shared = dim * hidden + min(dim, hidden) * hidden
    blocks = (2 * layers - 1) * hidden * hidden
    return int(2 * len(spec.rows) * (shared + evaluations * blocks + hidden * dim))
