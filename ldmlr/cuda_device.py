"""What the extension was compiled for, and whether a device can run it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import torch

from ldmlr import _native
from ldmlr.device import resolve_device
from ldmlr.errors import LdmlrError, UsageError, opt

# Compute capability, such as 80 for 8.0, that the kernels need.
OLDEST = 80


def architectures() -> tuple[str, ...]:
    """Return the targets of the CUDA kernels in this build, such as ``sm_80``; none without CUDA."""
    return tuple(f"sm_{arch}" for arch in _native.cuda_architectures.split())


def unavailable(device: torch.device) -> str | None:
    """Return why the CUDA kernels cannot run on a device, or None if they can."""
    if device.type != "cuda":
        return f"it computes on a CUDA device, not on {device}"
    if not architectures():
        return "this build has no CUDA kernels; install with LDMLR_CUDA=1 where nvcc is"
    if not torch.cuda.is_available():
        return "no CUDA device is visible"
    major, minor = torch.cuda.get_device_capability(device)
    if _covered(10 * major + minor):
        return None
    name, number = torch.cuda.get_device_name(device), f"{major}{minor}"
    if 10 * major + minor < OLDEST:
        return f"{name} is sm_{number}; the kernels need sm_{OLDEST}"
    return (
        f"{name} is sm_{number}, and this build has kernels for {', '.join(architectures())}; "
        f"install with LDMLR_CUDA_ARCHS={number}"
    )


def _covered(device: int) -> bool:
    """Tell whether the build has code for a device, such as 90 for compute capability 9.0.

    The smallest target without a letter is there as PTX too, which all later devices compile; with a
    letter the code runs on that device alone, with "f" on the later ones of its generation ("CUDA C++
    Programming Guide", compatibility; setup.py).
    """
    for target in architectures():
        number, letter = int(re.sub(r"\D", "", target)), target[-1]
        later = letter.isdigit() or (letter == "f" and number // 10 == device // 10)
        if number == device or (later and number < device):
            return True
    return False


def usable(name: str) -> torch.device | None:
    """Return the CUDA device that a ``--device`` option means, or None where it means the CPU.

    ``auto`` is the CPU where the kernels cannot run.

    Raises
    ------
    UsageError
        A CUDA device is named that is not there or cannot run the kernels.
    """
    device = resolve_device(name)
    if device.type != "cuda":
        return None
    reason = unavailable(device)
    if reason is None:
        return indexed(device)
    if name == "auto":
        return None
    raise UsageError(f"{opt('device')} {name}: {reason}; or use {opt('device', 'cpu')}")


def indexed(device: torch.device) -> torch.device:
    """Return the device with its number: the current one, where none is given."""
    index: int | None = device.index
    return torch.device("cuda", torch.cuda.current_device() if index is None else index)


def shared_limit(device: torch.device) -> int:
    """Return the bytes of shared memory that a block may have on a device."""
    properties: Any = torch.cuda.get_device_properties(device)
    # Older versions of torch do not say; sm_80 and the sm_9x and sm_10x have these.
    known = {(8, 0): 163 << 10, (8, 7): 163 << 10, (9, 0): 227 << 10, (10, 0): 227 << 10, (10, 3): 227 << 10}
    fallback = known.get(torch.cuda.get_device_capability(device), 99 << 10)
    return int(getattr(properties, "shared_memory_per_block_optin", fallback))


def has_wgmma(device: torch.device) -> bool:
    """Return whether the kernels of sm_90a were built and can run on a device."""
    return "sm_90a" in architectures() and torch.cuda.get_device_capability(device)[0] == 9


def stream_of(device: torch.device) -> int:
    """Return the handle of torch's current stream on a device."""
    return int(torch.cuda.current_stream(device).cuda_stream)


def checked(call: Callable[..., object], *arguments: object) -> None:
    """Call the extension; what the CUDA runtime reports becomes an error of one line."""
    try:
        call(*arguments)
    except RuntimeError as error:
        raise LdmlrError(f"the CUDA kernels failed: {error}") from None
