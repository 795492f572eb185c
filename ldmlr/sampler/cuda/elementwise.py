"""The solver step and the counter-based normals on CUDA tensors."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import torch

from ldmlr import _native
from ldmlr.errors import UsageError
from ldmlr.sampler.cuda import abi
from ldmlr.sampler.cuda import device as devices
from ldmlr.sampler.noise import check_counter


def require(device: torch.device) -> None:
    """Raise `UsageError` if the kernels cannot run on a device."""
    reason = devices.unavailable(device)
    if reason:
        raise UsageError(f"{device}: {reason}")


def denoise_step(
    row: Sequence[float],
    x: torch.Tensor,
    x0: torch.Tensor,
    output: torch.Tensor,
    step: int,
    seed: int,
    first_row: int,
) -> None:
    """Take one solver step in place; tensors as `ldmlr.ops.denoise_step` has checked them."""
    require(x.device)
    params = abi.StepParams(
        row=(ctypes.c_float * 8)(*row), x=x.data_ptr(), x0=x0.data_ptr(), f=output.data_ptr(),
        rows=x.shape[0], dim=x.shape[1], seed=seed, first_row=first_row, step=step,
    )  # fmt: skip
    stream = devices.stream_of(x.device)
    devices.checked(_native.cuda_denoise_step, ctypes.addressof(params), x.device.index, stream)


def standard_normal(
    seed: int,
    first_row: int,
    rows: int,
    dim: int,
    stream: int = 0,
    step: int = 0,
    *,
    device: torch.device | str = "cuda",
) -> torch.Tensor:
    """Return what `ldmlr.sampler.noise.standard_normal` returns, bit for bit, computed on a CUDA device.

    Returns
    -------
    float32 ``[rows, dim]`` on the device.
    """
    check_counter(seed, first_row, rows, dim, stream, step)
    require(torch.device(device))
    where = devices.indexed(torch.device(device))
    out = torch.empty((rows, dim), device=where)
    if rows:
        params = abi.NoiseParams(
            seed=seed, first_row=first_row, rows=rows, dim=dim, stride=dim, stream=stream, step=step
        )
        devices.checked(
            _native.cuda_normals,
            ctypes.addressof(params),
            out.data_ptr(),
            where.index,
            devices.stream_of(where),
        )
    return out
