"""ldmlr.ops: the fused solver step as a PyTorch operation."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

from ldmlr import isa as cpu
from ldmlr.diffusion.schedule import make_schedule
from ldmlr.diffusion.solvers import step_rows
from ldmlr.errors import UsageError
from ldmlr.ops import denoise_step, initial_noise
from ldmlr.sampler.noise import standard_normal_reference

ROWS = torch.from_numpy(step_rows("ddpm", 6, make_schedule("cosine"), clip=3.0).table())
AVAILABLE = [entry.name for entry in cpu.instruction_sets() if entry.available]


def state(count: int = 5, dim: int = 7) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(count)
    x, x0, output = torch.randn(3, count, dim, generator=generator).unbind()
    return x.clone(), x0.clone(), output.clone()


def exact(x: torch.Tensor, x0: torch.Tensor, output: torch.Tensor, step: int, seed: int, first: int) -> tuple:
    p, q, lo, hi, a, b, c, s = ROWS[step].tolist()
    z = torch.from_numpy(standard_normal_reference(seed, first, *x.shape, stream=1, step=step)).double()
    new = (p * x.double() + q * output.double()).clamp(lo, hi)
    return a * x.double() + b * new + c * x0.double() + s * z, new


@pytest.mark.parametrize("isa", AVAILABLE)
@pytest.mark.parametrize(("count", "dim"), [(1, 1), (7, 10), (63, 64), (65, 100), (3, 2048), (1000, 600)])
def test_equals_the_formula(monkeypatch: pytest.MonkeyPatch, isa: str, count: int, dim: int) -> None:
    monkeypatch.setenv("LDMLR_ISA", isa)
    for step in (0, 3, 5):
        x, x0, output = state(count, dim)
        expected, expected_x0 = exact(x, x0, output, step, 9, 2**33)
        denoise_step(x, x0, output, ROWS, step, 9, 2**33)
        assert (x - expected).abs().max() < 16 * 2.0**-24 * (1 + expected.abs().max())
        assert (x0 - expected_x0).abs().max() < 16 * 2.0**-24 * (1 + expected_x0.abs().max())


def test_rows_do_not_depend_on_the_batch() -> None:
    x, x0, output = state(40, 33)
    parts = [tensor.clone() for tensor in (x, x0)]
    denoise_step(x, x0, output, ROWS, 2, 5, 100)
    for start, stop in ((0, 1), (1, 18), (18, 40)):
        a, b = (part[start:stop] for part in parts)
        denoise_step(a, b, output[start:stop], ROWS, 2, 5, 100 + start)
    assert torch.equal(parts[0], x)
    assert torch.equal(parts[1], x0)


def test_opcheck() -> None:
    x, x0, output = state()
    torch.library.opcheck(denoise_step, (x, x0, output, ROWS, 1, 7, 3))


def test_runs_under_compile() -> None:
    def two_steps(x: torch.Tensor, x0: torch.Tensor) -> torch.Tensor:
        for step in range(2):
            denoise_step(x, x0, 0.5 * x, ROWS, step, 7)
        return x + 1

    x, x0, _ = state()
    eager = two_steps(x.clone(), x0.clone())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compiled = torch.compile(two_steps, backend="aot_eager", fullgraph=True)
        assert torch.equal(compiled(x.clone(), x0.clone()), eager)


def test_a_sampler_is_a_loop() -> None:
    """With the exact denoiser of a standard normal, samples are standard normal."""
    schedule = make_schedule("cosine")
    table = step_rows("dpmpp2m", 40, schedule)
    rows = torch.from_numpy(table.table())
    x, x0 = initial_noise(3, 0, 4000, 8), torch.zeros(4000, 8)
    for step in range(len(rows)):
        denoise_step(x, x0, torch.zeros_like(x), rows, step, 3)
    # v = 0 is that denoiser: its trajectory leaves every point where it is.
    assert abs(float(x.std()) - 1) < 0.03
    assert np.isfinite(x.numpy()).all()


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"x0": torch.zeros(5, 7, dtype=torch.float64)}, "x0"),
        ({"output": torch.zeros(4, 7)}, "output"),
        ({"output": torch.zeros(7, 5).T}, "contiguous"),
        ({"rows": ROWS.float()}, "rows"),
        ({"rows": ROWS[0]}, "rows"),
        ({"step": 6}, "step"),
        ({"step": -1}, "step"),
        ({"seed": -1}, "seed"),
    ],
)
def test_wrong_arguments_are_named(change: dict, word: str) -> None:
    x, x0, output = state()
    arguments = {"x": x, "x0": x0, "output": output, "rows": ROWS, "step": 0, "seed": 0, **change}
    with pytest.raises(UsageError, match=word):
        denoise_step(**arguments)


def test_shared_memory_is_refused() -> None:
    x, _, output = state()
    with pytest.raises((UsageError, RuntimeError)):
        denoise_step(x, x, output, ROWS, 0, 0)


def test_no_rows() -> None:
    x = torch.zeros(0, 4)
    denoise_step(x, torch.zeros(0, 4), torch.zeros(0, 4), ROWS, 0, 0)
    assert x.shape == (0, 4)
