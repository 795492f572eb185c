"""A denoiser of your own, drawn from by the fused solver step.

    python examples/own_denoiser.py

The data are points on a ring, and the network is three layers. What is ldmlr's is the schedule, the
table of the solver, the noise and the step: one pass over the rows instead of a dozen.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from ldmlr.diffusion.schedule import make_schedule
from ldmlr.diffusion.solvers import step_rows
from ldmlr.ops import denoise_step, initial_noise

SCHEDULE = make_schedule("cosine")


def ring(rows: int, generator: torch.Generator) -> Tensor:
    """Return points near the circle of radius 1.4, with a variance of about one."""
    angle = 2 * np.pi * torch.rand(rows, generator=generator)
    return 1.4 * torch.stack([angle.cos(), angle.sin()], 1) + 0.05 * torch.randn(rows, 2, generator=generator)


def train(iterations: int) -> nn.Module:
    """Return a network that predicts v = alpha eps - sigma x0 from x and the time."""
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 128), nn.SiLU(), nn.Linear(128, 128), nn.SiLU(), nn.Linear(128, 2))
    optimiser = torch.optim.Adam(network.parameters(), lr=3e-3)
    for _ in range(iterations):
        x0, t = ring(512, generator), torch.rand(512, generator=generator)
        eps = torch.randn(512, 2, generator=generator)
        alpha, sigma = (torch.tensor(f(t.numpy())).float()[:, None] for f in (SCHEDULE.alpha, SCHEDULE.sigma))
        found = network(torch.cat([alpha * x0 + sigma * eps, t[:, None]], 1))
        loss = (found - (alpha * eps - sigma * x0)).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return network


@torch.no_grad()
def sample(network: nn.Module, rows: int, steps: int = 20, seed: int = 0, first_row: int = 0) -> Tensor:
    """Draw rows; row i is the same whatever else is drawn with it."""
    solver = step_rows("dpmpp2m", steps, SCHEDULE)
    table = torch.from_numpy(solver.table())
    x, x0 = initial_noise(seed, first_row, rows, 2), torch.zeros(rows, 2)
    for step, t in enumerate(solver.t):
        prediction = network(torch.cat([x, torch.full((rows, 1), float(t))], 1))
        denoise_step(x, x0, prediction, table, step, seed, first_row)
    return x


if __name__ == "__main__":
    print(f"mean radius {sample(train(1500), 1000).norm(dim=1).mean():.3f}, of the data 1.4")
