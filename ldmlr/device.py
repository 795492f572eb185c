"""Where computation runs: the device and the number of threads."""

from __future__ import annotations

import dataclasses
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ldmlr.arguments import whole_number
from ldmlr.errors import UsageError, opt
from ldmlr.ranks import local

if TYPE_CHECKING:
    import torch

# More threads than any machine has cores: beyond, libraries hang or end the process.
MAX_THREADS = 4096
# What Linux has where a GPU may be used: NVIDIA's driver, on a board too, Windows' Linux, and AMD's driver.
DRIVERS = ("/dev/nvidiactl", "/dev/nvhost-ctrl", "/dev/dxg", "/dev/kfd")


@dataclasses.dataclass(frozen=True)
class Machine:
    """What computes: as options of the command line have it, checked where it is used.

    Attributes
    ----------
    device
        ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
    threads
        CPU threads; None: all usable cores.
    backend
        What draws rows: ``auto``, ``reference``, ``native`` or ``cuda``.
    others
        Further CUDA devices that draw beside the first.
    """

    device: str = "auto"
    threads: int | None = None
    backend: str = "auto"
    others: tuple[str, ...] = ()


def device_names(name: str) -> tuple[str, ...]:
    """Return the devices of a list such as ``cuda:0,cuda:1``; of anything else the one of `device_name`.

    Raises
    ------
    UsageError
        As `device_name`; or the list names one twice, or another than CUDA devices by number.
    """
    named = [part.strip() for part in name.split(",")]
    if len(named) > 1 and (len(set(named)) < len(named) or not all(one.startswith("cuda:") for one in named)):
        raise UsageError(f"{opt('device')}: expected a list such as cuda:0,cuda:1, each once, not {name!r}")
    return tuple(device_name(one) for one in named)


def device_name(name: Any = "auto") -> str:
    """Return ``cpu``, ``cuda`` or ``cuda:N`` for ``auto``, such a name or a device of torch.

    Torch is imported only where there may be a CUDA device. Of several ranks on a machine each gets a device
    of its own, as long as there are enough.

    Raises
    ------
    UsageError
        The name is unknown, or names a CUDA device that is not there.
    """
    chosen = str(name)
    rank, size = local()
    if chosen in ("auto", "cuda") and size > 1 and (count := cuda_devices()):
        return f"cuda:{rank % count}"
    if chosen == "auto":
        return "cuda" if cuda_devices() else "cpu"
    if not re.fullmatch(r"cpu|cuda(:\d+)?", chosen):
        raise UsageError(f"{opt('device')}: unknown value {chosen!r}; choose auto, cpu, cuda or cuda:N")
    if chosen != "cpu" and int(chosen.partition(":")[2] or 0) >= (count := cuda_devices()):
        raise UsageError(f"{opt('device')}: {chosen!r} is not there ({count} CUDA devices visible); use cpu")
    return chosen


def resolve_device(name: str | torch.device = "auto") -> torch.device:
    """Return the torch device that `device_name` names.

    Raises
    ------
    UsageError
        As there.
    """
    import torch

    return torch.device(device_name(name))


def cuda_devices() -> int:
    """Return the number of CUDA devices; asks torch only where the system has a driver for one."""
    if sys.modules.get("torch") is None and sys.platform == "linux" and not any(map(os.path.exists, DRIVERS)):
        return 0
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def thread_number(threads: int | None) -> int:
    """Return the number of CPU threads: that given, or for None all usable cores, shared with other ranks."""
    if threads is None:
        return max(1, len(os.sched_getaffinity(0)) // local()[1])
    number = whole_number(threads)
    if number is None or not 1 <= number <= MAX_THREADS:
        raise UsageError(f"{opt('threads')}: must be a whole number from 1 to {MAX_THREADS}, not {threads!r}")
    return number


def set_threads(threads: int | None) -> int:
    """Set the number of CPU threads torch uses (None: all usable cores) and return it."""
    import torch

    count = thread_number(threads)
    torch.set_num_threads(count)
    return count


@contextmanager
def torch_threads(count: int | None) -> Iterator[None]:
    """Set the CPU threads of torch for a block and restore them; None leaves them as they are."""
    import torch

    before = torch.get_num_threads()
    if count is not None:
        set_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Compute NumPy's products on one thread for a block: their last bits depend on the number of threads."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1, user_api="blas"):
        yield


@contextmanager
def fastest_algorithms(device: torch.device) -> Iterator[None]:
    """Have cuDNN time its convolutions and take the fastest; for many steps of the same shapes."""
    from torch.backends import cudnn

    before = cudnn.benchmark
    cudnn.benchmark = before or device.type == "cuda"
    try:
        yield
    finally:
        cudnn.benchmark = before
