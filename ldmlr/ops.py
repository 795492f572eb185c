"""The solver step as a PyTorch operation, for people with a denoiser of their own.

`denoise_step` fuses the estimate of x0, its clamp, the solver's update and fresh noise into one
pass over the rows. With the tables of `ldmlr.diffusion.solvers.step_rows` a sampler is a loop:

    x, x0 = initial_noise(seed, 0, n, dim), torch.zeros(n, dim)
    rows = torch.from_numpy(step_rows("dpmpp2m", 10, schedule).table())
    for step in range(len(rows)):
        denoise_step(x, x0, denoiser(x, step, labels), rows, step, seed)

It is registered with `torch.library` (``torch.ops.ldmlr.denoise_step``), so it runs under
`torch.compile` without a graph break.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ldmlr import _native
from ldmlr import isa as cpu
from ldmlr.errors import UsageError
from ldmlr.sampler.cuda import elementwise
from ldmlr.sampler.noise import standard_normal

# Elements per thread below which starting a thread costs more than it gains.
GRAIN = 1 << 18


def initial_noise(
    seed: int, first_row: int, rows: int, dim: int, *, device: torch.device | str = "cpu"
) -> Tensor:
    """Return the normals that rows ``first_row .. first_row + rows - 1`` start from, ``[rows, dim]``.

    They are the same to the bit on the CPU and on CUDA devices.
    """
    if torch.device(device).type == "cuda":
        return elementwise.standard_normal(seed, first_row, rows, dim, device=device)
    return torch.from_numpy(standard_normal(seed, first_row, rows, dim))


@torch.library.custom_op("ldmlr::denoise_step", mutates_args=("x", "x0"), device_types="cpu")
def denoise_step(
    x: Tensor, x0: Tensor, output: Tensor, rows: Tensor, step: int, seed: int, first_row: int = 0
) -> None:
    """Take one solver step in place.

    ``x0 <- clamp(p x + q output, lo, hi)`` and ``x <- a x + b x0 + c x0_before + s z`` with the
    coefficients of row `step` of the table, and z the counter-based normals of (seed, global row,
    step): the result for a row does not depend on the batch it is in.

    Parameters
    ----------
    x
        State ``[N, D]``, float32, contiguous, on the CPU or a CUDA device; replaced by the next state.
    x0
        Estimate of the step before (zeros at the first), like x; replaced by the new estimate.
    output
        What the denoiser returned for x, like x and on its device. Conditions, guidance included, are
        in it.
    rows
        Solver table ``[S, 8]``, float64 on the CPU: columns p, q, lo, hi, a, b, c, s.
    step
        Number of the step, 0 .. S - 1.
    seed, first_row
        Seed of the noise, and the global number of the first row: below 2^63, as an operator of torch
        takes whole numbers.

    Raises
    ------
    UsageError
        Tensors of another type, shape, layout or device, or numbers out of range.
    """
    params = _params(x, x0, output, rows, step, seed, first_row)
    if x.numel():
        threads = max(1, min(torch.get_num_threads(), x.numel() // GRAIN))
        _native.denoise_step(cpu.choose().name, params, threads)


@denoise_step.register_kernel("cuda")
def _(x: Tensor, x0: Tensor, output: Tensor, rows: Tensor, step: int, seed: int, first_row: int = 0) -> None:
    params = _params(x, x0, output, rows, step, seed, first_row)
    if x.numel():
        elementwise.denoise_step(params, x.device)


@denoise_step.register_fake
def _(x: Tensor, x0: Tensor, output: Tensor, rows: Tensor, step: int, seed: int, first_row: int = 0) -> None:
    return None


def _params(
    x: Tensor, x0: Tensor, output: Tensor, rows: Tensor, step: int, seed: int, first_row: int
) -> _native.StepParams:
    """Return what the extension is told of a step, once everything has been checked."""
    _check(x, x0, output, rows, step, seed, first_row)
    return _native.StepParams(
        row=rows[step].tolist(), x=x.data_ptr(), x0=x0.data_ptr(), f=output.data_ptr(),
        rows=x.shape[0], dim=x.shape[1], seed=seed, first_row=first_row, step=step,
    )  # fmt: skip


def _check(x: Tensor, x0: Tensor, output: Tensor, rows: Tensor, step: int, seed: int, first_row: int) -> None:
    for name, tensor in (("x", x), ("x0", x0), ("output", output)):
        if tensor.dtype != torch.float32 or tensor.ndim != 2 or tensor.shape != x.shape:
            raise UsageError(
                f"{name}: expected float32 {list(x.shape)}, not {tensor.dtype} {list(tensor.shape)}"
            )
        if tensor.device != x.device:
            raise UsageError(f"{name}: is on {tensor.device}, x on {x.device}; move it there")
        if not tensor.is_contiguous():
            raise UsageError(f"{name}: expected a contiguous tensor; pass {name}.contiguous()")
    if rows.device.type != "cpu":
        raise UsageError("rows: the solver table stays on the CPU; pass rows.cpu()")
    if rows.dtype != torch.float64 or rows.ndim != 2 or rows.shape[1] != 8:
        raise UsageError(f"rows: expected float64 [S, 8], not {rows.dtype} {list(rows.shape)}")
    if not 0 <= step < len(rows):
        raise UsageError(f"step: must be from 0 to {len(rows) - 1}, not {step}")
    if seed < 0 or first_row < 0:
        raise UsageError("seed and first_row: must be at least 0")
    if x.untyped_storage().data_ptr() == x0.untyped_storage().data_ptr() and x.numel():
        raise UsageError("x0: shares its memory with x; pass a tensor of its own")
