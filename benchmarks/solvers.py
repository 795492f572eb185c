"""Error of the solvers against the converged trajectory, on a Gaussian mixture with its exact score.

No network and no training: the denoiser is known in closed form, so what is measured is the
solver alone. Prints the root mean square error per dimension for the same number of evaluations.

    python benchmarks/solvers.py
"""

from __future__ import annotations

import argparse

import numpy as np
import numpy.typing as npt

from ldmlr.diffusion.schedule import SCHEDULES, Schedule, make_schedule
from ldmlr.diffusion.solvers import StepRows, step_rows
from ldmlr.sampler.solve import solve
from ldmlr.text import table

Array = npt.NDArray[np.float64]


class Mixture:
    """Equally likely Gaussians of one standard deviation around given means ``[K, D]``."""

    def __init__(self, means: Array, std: float) -> None:
        self.means, self.std = means, std

    def denoise(self, x: Array, alpha: float, sigma: float) -> Array:
        """Return the exact expectation of x0 given x ``[N, D]``."""
        variance = alpha**2 * self.std**2 + sigma**2
        distance = (x**2).sum(1)[:, None] - 2 * alpha * x @ self.means.T + alpha**2 * (self.means**2).sum(1)
        logits = -distance / (2 * variance)
        weights = np.exp(logits - logits.max(1, keepdims=True))
        mean = weights @ self.means / weights.sum(1, keepdims=True)
        return np.asarray(mean + alpha * self.std**2 / variance * (x - alpha * mean))


def solved(rows: StepRows, schedule: Schedule, mixture: Mixture, x: Array) -> Array:
    """Run the table of a deterministic solver, made for ``x0``, from the noise x ``[N, D]`` to t = 0."""
    alpha, sigma = schedule.alpha(rows.t).tolist(), schedule.sigma(rows.t).tolist()
    return solve(rows, x, lambda x, step: mixture.denoise(x, alpha[step], sigma[step]), np.zeros_like)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--schedule", choices=sorted(SCHEDULES), default="cosine")
    parser.add_argument("--components", type=int, default=100)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--std", type=float, default=0.7, help="standard deviation of means and components")
    parser.add_argument("--rows", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    generator = np.random.default_rng(options.seed)
    schedule = make_schedule(options.schedule)
    means = generator.standard_normal((options.components, options.dim)) * options.std
    mixture = Mixture(means, options.std)
    noise = generator.standard_normal((options.rows, options.dim))
    converged = solved(step_rows("heun", 1000, schedule, "x0"), schedule, mixture, noise)
    columns = {
        "DDIM": ("ddim", -5.1),
        "2M, not clipped": ("dpmpp2m", -np.inf),
        "2M, clipped at -5.1": ("dpmpp2m", -5.1),
        "Heun": ("heun", -5.1),
    }
    body = []
    for evaluations in (10, 15, 20, 30, 60):
        cells = [str(evaluations)]
        for solver, lambda_min in columns.values():
            # Heun evaluates twice a step but for the last one.
            steps = (evaluations + 1) // 2 if solver == "heun" else evaluations
            low = max(lambda_min, float(schedule.log_snr(0.999)))
            rows = step_rows(solver, steps, schedule, "x0", lambda_min=low)
            found = solved(rows, schedule, mixture, noise)
            cells.append(f"{np.sqrt(np.mean((found - converged) ** 2)):.4f}")
        body.append(cells)
    print(table(["evaluations", *columns], body))


if __name__ == "__main__":
    main()
