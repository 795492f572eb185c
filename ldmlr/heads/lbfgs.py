"""L-BFGS for smooth losses: a limited memory of curvature, and a line search by bisection.

Why an own one: that of PyTorch keeps its state between calls in its own way, that of SciPy copies to float64
and back. Here the vectors stay float32, as large as a head; dot products are summed in float64. Nothing is
random, so equal input gives equal output.

Source: Nocedal and Wright, Numerical Optimization (2006), algorithms 7.4 and 7.5; line search: Lewis and
Overton, Mathematical Programming 2013 (weak Wolfe conditions).
"""

from __future__ import annotations

import dataclasses
import math
from collections import deque
from collections.abc import Callable

import torch

# Pairs of steps and changes of the gradient that are remembered.
MEMORY = 12
# Sufficient decrease, and how much of the slope must be gone.
DECREASE, SLOPE = 1e-4, 0.9
# Trials of one line search: where float32 sees no decrease any more, more trials find none either.
TRIALS = 20

Objective = Callable[[torch.Tensor], tuple[float, torch.Tensor]]


@dataclasses.dataclass(frozen=True)
class Minimum:
    """Where a minimisation ended.

    Parameters
    ----------
    x
        The point.
    value
        The objective there.
    iterations, evaluations
        What it took.
    converged
        Whether the gradient is small, or no step makes the objective smaller in float32.
    """

    x: torch.Tensor
    value: float
    iterations: int
    evaluations: int
    converged: bool


def minimise(
    objective: Objective, start: torch.Tensor, *, tolerance: float = 1e-5, iterations: int = 500
) -> Minimum:
    """Return a local minimum of a smooth function.

    Parameters
    ----------
    objective
        Point -> value and gradient (a new tensor of the same shape).
    start
        First point; it is not changed.
    tolerance
        The largest component of the gradient at which to stop.
    iterations
        Steps, at most.
    """
    x = start.clone()
    value, gradient = objective(x)
    evaluations = 1
    steps: deque[tuple[torch.Tensor, torch.Tensor, float]] = deque(maxlen=MEMORY)
    for done in range(iterations):
        if float(gradient.abs().max()) <= tolerance:
            return Minimum(x, value, done, evaluations, True)
        direction = _direction(gradient, steps)
        slope = _dot(gradient, direction)
        if not slope < 0:
            # Rounding has spoilt the memory: begin anew with the steepest descent.
            steps.clear()
            direction = -gradient
            slope = -_dot(gradient, gradient)
        first = 1.0 if steps else min(1.0, 1.0 / float(gradient.abs().sum()))
        found = _search(objective, x, value, direction, slope, first)
        evaluations += found.evaluations
        if found.length == 0.0:
            if not steps:
                return Minimum(x, value, done, evaluations, True)
            steps.clear()
            continue
        step = found.length * direction
        change = found.gradient - gradient
        curvature = _dot(step, change)
        if curvature > 1e-10 * _dot(change, change):
            steps.append((step, change, curvature))
        x, value, gradient = x + step, found.value, found.gradient
    return Minimum(x, value, iterations, evaluations, False)


@dataclasses.dataclass(frozen=True)
class _Step:
    length: float
    value: float
    gradient: torch.Tensor
    evaluations: int


def _search(
    objective: Objective, x: torch.Tensor, value: float, direction: torch.Tensor, slope: float, first: float
) -> _Step:
    """Return a step that meets the weak Wolfe conditions, or the best that decreases; length 0: none does."""
    low, high, length = 0.0, math.inf, first
    best = _Step(0.0, value, direction, 0)
    for trial in range(1, TRIALS + 1):
        there, gradient = objective(x + length * direction)
        if not there <= value + DECREASE * length * slope:
            high = length
        else:
            best = _Step(length, there, gradient, trial)
            if _dot(gradient, direction) >= SLOPE * slope:
                return best
            low = length
        length = (low + high) / 2 if math.isfinite(high) else 4 * low
        if high - low <= 1e-3 * low:
            break
    return dataclasses.replace(best, evaluations=trial)


def _direction(
    gradient: torch.Tensor, steps: deque[tuple[torch.Tensor, torch.Tensor, float]]
) -> torch.Tensor:
    """Return minus the approximate inverse Hessian times the gradient (the two-loop recursion)."""
    q = gradient.neg()
    shares = []
    for step, change, curvature in reversed(steps):
        share = _dot(step, q) / curvature
        shares.append(share)
        q.sub_(change, alpha=share)
    if steps:
        _, change, curvature = steps[-1]
        q.mul_(curvature / _dot(change, change))
    for (step, change, curvature), share in zip(steps, reversed(shares), strict=True):
        q.add_(step, alpha=share - _dot(change, q) / curvature)
    return q


def _dot(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a * b).sum(dtype=torch.float64))
