"""The solver step and the counter-based normals on CUDA tensors."""

from __future__ import annotations

import torch

from ldmlr import _native
from ldmlr import cuda_device as devices
from ldmlr.errors import UsageError
from ldmlr.sampler.noise import check_counter, noise_params


def require(device: torch.device) -> None:
    """Raise `UsageError` if the kernels cannot run on a device."""
    reason = devices.unavailable(device)
    if reason:
        raise UsageError(f"{device}: {reason}")


def denoise_step(params: _native.StepParams, device: torch.device) -> None:
    """Take one solver step in place, on arrays of a device that `ldmlr.ops.denoise_step` has checked."""
    require(device)
    devices.checked(_native.cuda_denoise_step, params, device.index, devices.stream_of(device))


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
        params = noise_params(seed, first_row, rows, dim, stream, step)
        devices.checked(
            _native.cuda_standard_normal, params, out.data_ptr(), where.index, devices.stream_of(where)
        )
    return out
