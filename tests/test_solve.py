"""The solver loop of `ldmlr.sampler.solve` beside the papers' algorithms, written in their own notation."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch

from ldmlr.diffusion.schedule import make_schedule
from ldmlr.diffusion.solvers import step_rows
from ldmlr.sampler.noise import standard_normal
from ldmlr.sampler.solve import solve

COSINE = make_schedule("cosine")
Array = npt.NDArray[np.float64]
NOISE = standard_normal(5, 0, 40, 3).astype(np.float64)


def eps(x: Array, t: float) -> Array:
    """A denoiser that is no exact one: any function of x and t will do."""
    return np.tanh(x + 0.3) * COSINE.sigma(t) + 0.1 * np.roll(x, 1, axis=1)


def z(step: int) -> Array:
    return standard_normal(5, 0, *NOISE.shape, stream=1, step=step).astype(np.float64)


def grid(solver: str, steps: int) -> tuple[Array, Array, Array, Array]:
    t = np.append(step_rows(solver, steps, COSINE).t, 0.0)
    return t, COSINE.alpha(t), COSINE.sigma(t), COSINE.log_snr(t)


def ddim(steps: int, eta: float) -> Array:
    """Song et al. (2021), equation 12."""
    t, alpha, sigma, _ = grid("ddim", steps)
    x = NOISE
    for i in range(steps):
        e = eps(x, t[i])
        x0 = (x - sigma[i] * e) / alpha[i]
        ratio = alpha[i] / alpha[i + 1]
        s = eta * sigma[i + 1] / sigma[i] * np.sqrt(1 - ratio**2)
        x = alpha[i + 1] * x0 + np.sqrt(sigma[i + 1] ** 2 - s**2) * e + s * z(i)
    return x


def dpmpp2m(steps: int) -> Array:
    """Lu et al. (2022), algorithm 2, first-order at both ends."""
    t, alpha, sigma, lam = grid("dpmpp2m", steps)
    x, before, h_before = NOISE, None, 0.0
    for i in range(steps):
        x0 = (x - sigma[i] * eps(x, t[i])) / alpha[i]
        h = lam[i + 1] - lam[i]
        d = x0
        if before is not None and i < steps - 1:
            r = h_before / h
            d = (1 + 1 / (2 * r)) * x0 - 1 / (2 * r) * before
        x = sigma[i + 1] / sigma[i] * x - alpha[i + 1] * np.expm1(-h) * d
        before, h_before = x0, h
    return x


def heun(steps: int) -> Array:
    """Predictor and corrector of the exponential form, x0 linear in lambda between the ends."""
    t = np.append(step_rows("heun", steps, COSINE).t[::2], 0.0)
    alpha, sigma, lam = COSINE.alpha(t), COSINE.sigma(t), COSINE.log_snr(t)
    x = NOISE
    for i in range(steps):
        x0 = (x - sigma[i] * eps(x, t[i])) / alpha[i]
        after = sigma[i + 1] / sigma[i] * x + (alpha[i + 1] - alpha[i] * sigma[i + 1] / sigma[i]) * x0
        if i < steps - 1:
            h = lam[i + 1] - lam[i]
            slope = (after - sigma[i + 1] * eps(after, t[i + 1])) / alpha[i + 1] - x0
            after = after + alpha[i + 1] * (h - 1 + np.exp(-h)) / h * slope
        x = after
    return x


@pytest.mark.parametrize("steps", [1, 2, 7])
@pytest.mark.parametrize(
    ("solver", "eta", "paper"),
    [
        ("ddim", 0.0, lambda steps: ddim(steps, 0.0)),
        ("ddim", 0.6, lambda steps: ddim(steps, 0.6)),
        ("ddpm", 0.0, lambda steps: ddim(steps, 1.0)),
        ("dpmpp2m", 0.0, dpmpp2m),
        ("heun", 0.0, heun),
    ],
)
def test_the_loop_over_a_table_is_the_papers_algorithm(solver, eta, paper, steps) -> None:
    rows = step_rows(solver, steps, COSINE, prediction="eps", eta=eta)
    found = solve(rows, NOISE, lambda x, step: eps(x, rows.t[step]), z)
    np.testing.assert_allclose(found, paper(steps), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("prediction", ["v", "eps", "x0"])
def test_what_the_network_predicts_does_not_matter(prediction: str) -> None:
    rows = step_rows("dpmpp2m", 6, COSINE, prediction)

    def network(x: Array, step: int) -> Array:
        alpha, sigma = COSINE.alpha(rows.t[step]), COSINE.sigma(rows.t[step])
        e = eps(x, rows.t[step])
        x0 = (x - sigma * e) / alpha
        return {"v": alpha * e - sigma * x0, "eps": e, "x0": x0}[prediction]

    np.testing.assert_allclose(solve(rows, NOISE, network, z), dpmpp2m(6), rtol=1e-9, atol=1e-9)


def test_estimates_are_clipped_and_tensors_are_as_arrays() -> None:
    rows = step_rows("ddim", 5, COSINE, "x0", eta=1.0, clip=0.5)
    array = solve(rows, NOISE, lambda x, step: 3 * x, z)
    tensor = solve(rows, torch.from_numpy(NOISE), lambda x, step: 3 * x, lambda s: torch.from_numpy(z(s)))
    assert np.abs(array).max() == 0.5
    assert np.array_equal(tensor.numpy(), array)


def test_the_noise_given_stays_as_it_is_and_is_not_asked_for_in_vain() -> None:
    before = NOISE.copy()
    solve(
        step_rows("dpmpp2m", 4, COSINE), NOISE, lambda x, step: x, lambda step: pytest.fail("no noise here")
    )
    assert np.array_equal(NOISE, before)
