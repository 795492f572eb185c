"""ldmlr.diffusion.solvers, measured where the exact denoiser is known: Gaussians and their mixtures."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ldmlr.diffusion.schedule import SCHEDULES, make_schedule
from ldmlr.diffusion.solvers import SOLVERS, StepRows, step_rows
from ldmlr.errors import UsageError
from ldmlr.sampler.noise import standard_normal
from ldmlr.sampler.solve import solve

COSINE = make_schedule("cosine")
solver_names = pytest.mark.parametrize("solver", sorted(SOLVERS))


def run(rows: StepRows, denoise, x: np.ndarray, seed: int = 0) -> np.ndarray:
    """Follow a table with an exact denoiser x0(x, t)."""
    plain = dataclasses.replace(rows, p=np.zeros(len(rows)), q=np.ones(len(rows)))
    return solve(
        plain, x, lambda x, step: denoise(x, rows.t[step]),
        lambda step: standard_normal(seed, 0, *x.shape, stream=1, step=step),
    )  # fmt: skip


def gaussian(std: float, schedule=COSINE):
    """Return the exact denoiser of N(0, std^2)."""

    def denoise(x, t):
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        return alpha * std**2 / (alpha**2 * std**2 + sigma**2) * x

    return denoise


def mixture(means: np.ndarray, std: float, schedule=COSINE):
    """Return the exact denoiser of an even mixture of N(mean, std^2)."""

    def denoise(x, t):
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        variance = alpha**2 * std**2 + sigma**2
        logits = -((x[:, None] - alpha * means) ** 2).sum(2) / (2 * variance)
        weights = np.exp(logits - logits.max(1, keepdims=True))
        mean = weights @ means / weights.sum(1, keepdims=True)
        return mean + alpha * std**2 / variance * (x - alpha * mean)

    return denoise


@solver_names
@pytest.mark.parametrize("schedule", sorted(SCHEDULES))
@pytest.mark.parametrize("steps", [1, 2, 3, 10])
def test_the_last_step_returns_the_estimate(solver, schedule, steps):
    rows = step_rows(solver, steps, make_schedule(schedule))
    assert len(rows) == (2 * steps - 1 if solver == "heun" else steps)
    assert (rows.a[-1], rows.b[-1], rows.c[-1], rows.s[-1]) == (0, 1, 0, 0)
    assert np.isfinite(rows.table()).sum() == rows.table().size - 2 * len(rows)  # lo and hi are open
    assert rows.table().shape == (len(rows), 8)


@solver_names
@given(steps=st.integers(1, 60), lambda_min=st.floats(-8, -2))
def test_a_point_mass_is_hit(solver, steps, lambda_min):
    """If the data are one point, every solver ends there: a x + b x0 keeps (x - alpha x0) / sigma."""
    rows = step_rows(solver, steps, COSINE, lambda_min=lambda_min)
    point = np.array([[3.0, -2.0]])
    assert run(rows, lambda x, t: point, np.ones((1, 2))) == pytest.approx(point, abs=1e-12)


@pytest.mark.parametrize("solver", ["ddim", "dpmpp2m", "heun"])
def test_deterministic_solvers_converge_to_the_known_flow_of_a_gaussian(solver):
    """The flow of N(0, std^2) scales x by std / sqrt(alpha^2 std^2 + sigma^2) of the start."""
    std = 0.5
    start = float(COSINE.time(-5.1))
    spread = np.sqrt(COSINE.alpha(start) ** 2 * std**2 + COSINE.sigma(start) ** 2)
    x = np.linspace(-2, 2, 9)[:, None]
    errors = []
    for steps in (8, 16, 32, 64):
        found = run(step_rows(solver, steps, COSINE), gaussian(std), x)
        errors.append(np.abs(found - x * std / spread).max())
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    assert errors[-1] < {"ddim": 0.03, "dpmpp2m": 2e-3, "heun": 5e-3}[solver]
    # The last step of every solver is first-order; on the uniform grid of heun it shows.
    assert orders[-1] > {"ddim": 0.8, "dpmpp2m": 1.8, "heun": 1.4}[solver]


def test_second_order_solvers_beat_ddim_on_a_mixture():
    generator = np.random.default_rng(0)
    denoise = mixture(generator.standard_normal((50, 16)) * 0.7, 0.7)
    x = generator.standard_normal((200, 16))
    exact = run(step_rows("heun", 300, COSINE), denoise, x)

    def error(solver, steps):
        return np.sqrt(np.mean((run(step_rows(solver, steps, COSINE), denoise, x) - exact) ** 2))

    assert error("dpmpp2m", 20) < 0.8 * error("ddim", 20)
    assert error("heun", 10) < 0.8 * error("ddim", 19)
    assert error("dpmpp2m", 40) < 0.5 * error("dpmpp2m", 20)


def test_clipping_the_log_snr_grid_pays():
    generator = np.random.default_rng(1)
    denoise = mixture(generator.standard_normal((50, 16)) * 0.7, 0.7)
    x = generator.standard_normal((200, 16))
    exact = run(step_rows("heun", 300, COSINE), denoise, x)
    open_ended = float(COSINE.log_snr(0.999))
    errors = [
        np.sqrt(np.mean((run(step_rows("dpmpp2m", 10, COSINE, lambda_min=low), denoise, x) - exact) ** 2))
        for low in (-5.1, open_ended)
    ]
    assert errors[0] < errors[1]


@pytest.mark.parametrize(("solver", "eta"), [("ddpm", 0.0), ("ddim", 1.0), ("ddim", 0.5)])
def test_ancestral_solvers_keep_the_variance_of_a_gaussian(solver, eta):
    std = 0.6
    x = standard_normal(7, 0, 4000, 4).astype(np.float64)
    found = run(step_rows(solver, 200, COSINE, eta=eta), gaussian(std), x, seed=7)
    assert found.std() == pytest.approx(std, rel=0.03)


def test_ddpm_is_ddim_with_full_noise_and_ddim_without_is_deterministic():
    ddpm, ddim = step_rows("ddpm", 25, COSINE), step_rows("ddim", 25, COSINE, eta=1.0)
    assert np.array_equal(ddpm.table(), ddim.table())
    assert not step_rows("ddim", 25, COSINE).s.any()


def test_ddpm_has_the_posterior_of_the_forward_process():
    """Ho et al. (2020), equation 7, in amplitudes."""
    rows = step_rows("ddpm", 10, COSINE)
    t = np.append(rows.t, 0.0)
    for i in range(9):
        alpha, after = COSINE.alpha(t[i]), COSINE.alpha(t[i + 1])
        ratio = alpha / after  # sqrt of the step's alpha
        beta = 1 - ratio**2
        variance = COSINE.sigma(t[i + 1]) ** 2 / COSINE.sigma(t[i]) ** 2 * beta
        assert rows.s[i] == pytest.approx(np.sqrt(variance), rel=1e-9)
        assert rows.a[i] == pytest.approx(
            ratio * COSINE.sigma(t[i + 1]) ** 2 / COSINE.sigma(t[i]) ** 2, rel=1e-9
        )
        assert rows.b[i] == pytest.approx(after * beta / COSINE.sigma(t[i]) ** 2, rel=1e-9)


@given(t=st.floats(0.01, 0.99), x0=st.floats(-5, 5), eps=st.floats(-5, 5))
def test_every_prediction_gives_back_x0(t, x0, eps):
    alpha, sigma = COSINE.alpha(t), COSINE.sigma(t)
    x = alpha * x0 + sigma * eps
    from ldmlr.diffusion.solvers import _prediction

    for name, f in (("v", alpha * eps - sigma * x0), ("eps", eps), ("x0", x0)):
        p, q = _prediction(name, np.asarray(alpha), np.asarray(sigma))
        assert p * x + q * f == pytest.approx(x0, abs=1e-9)


def test_first_and_last_steps_of_2m_are_first_order():
    rows = step_rows("dpmpp2m", 6, COSINE)
    assert rows.c[0] == 0
    assert rows.c[-1] == 0
    assert (rows.c[1:-1] < 0).all()


def test_clip_is_the_bound_of_the_estimate():
    rows = step_rows("ddim", 3, COSINE, clip=8.0)
    assert (rows.lo == -8).all()
    assert (rows.hi == 8).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"solver": "dpmpp"}, "did you mean 'dpmpp2m'"),
        ({"solver": "ddim", "steps": 0}, "steps: must be at least 1"),
        ({"solver": "heun", "eta": 0.5}, "only ddim has it"),
        ({"solver": "ddim", "eta": 1.5}, "between 0 and 1"),
        ({"solver": "ddim", "prediction": "w"}, "prediction: unknown value 'w'"),
    ],
)
def test_wrong_requests_are_named(arguments, message):
    with pytest.raises(UsageError, match=message):
        step_rows(**{"steps": 4, "schedule": COSINE, **arguments})
