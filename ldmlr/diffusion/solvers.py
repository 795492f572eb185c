"""Solvers as tables of plain numbers: one row per evaluation of the denoiser.

A sampler of any kind (this package's reference, the compiled one) runs, for each row,

    x0     = clamp(p * x + q * f, lo, hi)             f = output of the denoiser at (x, t)
    x_next = a * x + b * x0 + c * x0_previous + s * z   z = standard normal noise

and knows no solver: a solver is a function that fills in a, b, c and s in float64. What
the denoiser predicts (v, eps or x0) is folded into p and q.

Every solver starts at ``lambda_min`` and ends at t = 0, where alpha = 1 and sigma = 0. The
start is clipped because the cosine schedule reaches lambda = -36 at t = 1, and a grid in
lambda would spend most of its steps where there is only noise.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from ldmlr.diffusion.schedule import Schedule
from ldmlr.errors import UsageError, nearest, opt

Array = npt.NDArray[np.float64]

LAMBDA_MIN = -5.1
# A grid in lambda has its last evaluation at half a step of the uniform grid in t. Going nearer to t = 0,
# where lambda is infinite, takes steps from where they are needed: with 10 steps the error of 2M on a
# Gaussian mixture is .062 so, and .099 with the last evaluation at t = 0.001.
LAST_TIME = 0.5


@dataclasses.dataclass(frozen=True)
class StepRows:
    """The solver table: nine float64 arrays ``[S]``, one entry per evaluation of the denoiser.

    Attributes
    ----------
    t
        Time at which the denoiser is evaluated.
    p, q, lo, hi
        ``x0 = clamp(p x + q f, lo, hi)``.
    a, b, c, s
        ``x_next = a x + b x0 + c x0_previous + s z``.
    """

    t: Array
    p: Array
    q: Array
    lo: Array
    hi: Array
    a: Array
    b: Array
    c: Array
    s: Array

    def __len__(self) -> int:
        return len(self.t)

    def table(self) -> Array:
        """Return the columns p, q, lo, hi, a, b, c, s as one array ``[S, 8]``."""
        columns = (self.p, self.q, self.lo, self.hi, self.a, self.b, self.c, self.s)
        return np.ascontiguousarray(np.stack(columns, axis=1))


@dataclasses.dataclass(frozen=True)
class _Grid:
    """Amplitudes at the S + 1 times of a grid; the last is t = 0."""

    t: Array
    alpha: Array
    sigma: Array
    lam: Array

    @classmethod
    def at(cls, schedule: Schedule, t: Array) -> _Grid:
        return cls(t, schedule.alpha(t), schedule.sigma(t), schedule.log_snr(t))

    def first_order(self) -> tuple[Array, Array]:
        """Return a = sigma'/sigma and b = alpha' - alpha sigma'/sigma of every step."""
        a = self.sigma[1:] / self.sigma[:-1]
        return a, self.alpha[1:] - self.alpha[:-1] * a


# A solver returns the times of its evaluations and the columns a, b, c, s.
_Columns = tuple[Array, Array, Array, Array, Array]


def _uniform_time(schedule: Schedule, steps: int, lambda_min: float) -> _Grid:
    start = float(schedule.time(lambda_min))
    return _Grid.at(schedule, start * np.arange(steps, -1, -1) / steps)


def _uniform_log_snr(schedule: Schedule, steps: int, lambda_min: float) -> _Grid:
    low = max(lambda_min, float(schedule.log_snr(1.0)))
    lam = np.linspace(low, float(schedule.log_snr(LAST_TIME / steps)), steps)
    return _Grid.at(schedule, np.append(schedule.time(lam), 0.0))


def _ddim(schedule: Schedule, steps: int, eta: float, lambda_min: float) -> _Columns:
    """DDIM, Song et al. (2021), equation 12; eta 1 is the ancestral sampler of DDPM."""
    grid = _uniform_time(schedule, steps, lambda_min)
    alpha, sigma, after, sigma_after = grid.alpha[:-1], grid.sigma[:-1], grid.alpha[1:], grid.sigma[1:]
    # sigma^2 alpha'^2 - sigma'^2 alpha^2 = sigma^2 - sigma'^2 when alpha^2 + sigma^2 = 1.
    s = eta * sigma_after / sigma * np.sqrt(np.maximum(sigma**2 - sigma_after**2, 0.0)) / after
    a = np.sqrt(np.maximum(sigma_after**2 - s**2, 0.0)) / sigma
    return grid.t[:-1], a, after - alpha * a, np.zeros(steps), s


def _ddpm(schedule: Schedule, steps: int, eta: float, lambda_min: float) -> _Columns:
    """DDPM's ancestral sampler, Ho et al. (2020), algorithm 2, with the posterior variance."""
    return _ddim(schedule, steps, 1.0, lambda_min)


def _dpmpp2m(schedule: Schedule, steps: int, eta: float, lambda_min: float) -> _Columns:
    """DPM-Solver++(2M), Lu et al. (2022), algorithm 2; first and last step are first-order."""
    grid = _uniform_log_snr(schedule, steps, lambda_min)
    a, first = grid.first_order()
    b, c = first.copy(), np.zeros(steps)
    h = np.diff(grid.lam)
    for i in range(1, steps - 1):
        r = h[i - 1] / h[i]
        b[i], c[i] = first[i] * (1 + 1 / (2 * r)), -first[i] / (2 * r)
    return grid.t[:-1], a, b, c, np.zeros(steps)


def _heun(schedule: Schedule, steps: int, eta: float, lambda_min: float) -> _Columns:
    """Heun's method in its exponential form, two rows per step; the last step is first-order.

    The predictor is a DDIM step to x'. The corrector takes x0 as linear in lambda between both
    ends, so ``a x + b x0 + w (x0' - x0)`` with ``w = alpha' (h - 1 + exp(-h)) / h``; with ``a x = x' - b x0``
    that is ``x' + w x0' - w x0`` (Hochbruck & Ostermann, "Exponential integrators" (2010), section 2.2).
    """
    grid = _uniform_time(schedule, steps, lambda_min)
    a, b = grid.first_order()
    rows: list[tuple[float, float, float, float]] = []
    for i in range(steps - 1):
        h = grid.lam[i + 1] - grid.lam[i]
        w = grid.alpha[i + 1] * (h + np.expm1(-h)) / h
        rows += [(grid.t[i], a[i], b[i], 0.0), (grid.t[i + 1], 1.0, w, -w)]
    rows.append((grid.t[steps - 1], a[-1], b[-1], 0.0))
    t, a, b, c = np.array(rows, np.float64).T
    return t, a, b, c, np.zeros(len(t))


SOLVERS: dict[str, Callable[[Schedule, int, float, float], _Columns]] = {
    "ddpm": _ddpm,
    "ddim": _ddim,
    "dpmpp2m": _dpmpp2m,
    "heun": _heun,
}


def step_rows(
    solver: str,
    steps: int,
    schedule: Schedule,
    prediction: str = "v",
    eta: float = 0.0,
    clip: float = np.inf,
    lambda_min: float = LAMBDA_MIN,
) -> StepRows:
    """Return the table of a solver.

    Parameters
    ----------
    solver
        ``ddpm``, ``ddim``, ``dpmpp2m`` or ``heun``.
    steps
        Solver steps. All solvers evaluate the denoiser once a step, ``heun`` 2 steps - 1 times.
    schedule
        The noise schedule the denoiser was trained with.
    prediction
        What the denoiser returns: ``v = alpha eps - sigma x0``, ``eps`` or ``x0``.
    eta
        Share of the ancestral noise of ``ddim``: 0 is deterministic, 1 is ``ddpm``.
    clip
        Largest absolute value of an x0 estimate.
    lambda_min
        Log-SNR at the first evaluation.

    Raises
    ------
    UsageError
        Unknown solver or prediction, steps below 1, or eta given to a solver without it.
    """
    if solver not in SOLVERS:
        raise UsageError(f"{opt('solver')}: unknown value {solver!r}; {nearest(solver, SOLVERS)}")
    if steps < 1:
        raise UsageError(f"{opt('steps')}: must be at least 1, not {steps}")
    if not 0 <= eta <= 1:
        raise UsageError(f"{opt('eta')}: must be between 0 and 1, not {eta:g}")
    if eta and solver != "ddim":
        raise UsageError(
            f"{opt('eta')}: only ddim has it; drop it or use {opt('solver', 'ddim')} instead of {solver}"
        )
    t, a, b, c, s = SOLVERS[solver](schedule, steps, eta, lambda_min)
    p, q = _prediction(prediction, schedule.alpha(t), schedule.sigma(t))
    bound = np.full(len(t), float(clip))
    return StepRows(t, p, q, -bound, bound, a, b, c, s)


def _prediction(prediction: str, alpha: Array, sigma: Array) -> tuple[Array, Array]:
    """Return p and q of ``x0 = p x + q f``."""
    if prediction == "v":
        return alpha, -sigma
    if prediction == "eps":
        return 1 / alpha, -sigma / alpha
    if prediction == "x0":
        return np.zeros_like(alpha), np.ones_like(alpha)
    raise UsageError(
        f"{opt('prediction')}: unknown value {prediction!r}; {nearest(prediction, ('v', 'eps', 'x0'))}"
    )
