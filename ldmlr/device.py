"""Where computation runs: the device and the number of threads."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ldmlr.arguments import whole_number
from ldmlr.errors import UsageError, opt

if TYPE_CHECKING:
    import torch

# More threads than any machine has cores: beyond, libraries hang or end the process.
MAX_THREADS = 4096


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
    """

    device: str = "auto"
    threads: int | None = None
    backend: str = "auto"


def resolve_device(name: str | torch.device = "auto") -> torch.device:
    """Return the torch device for ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or a device of torch.

    Raises
    ------
    UsageError
        The name is unknown, or names a CUDA device that is not there.
    """
    import torch

    name = str(name)
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise UsageError(f"{opt('device')}: unknown value {name!r}; choose auto, cpu, cuda or cuda:N")
    device = torch.device(name)
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise UsageError(
                f"{opt('device')}: {name!r} is not there ({count} CUDA devices visible); use cpu"
            )
    return device


def thread_number(threads: int | None) -> int:
    """Return the number of CPU threads: that given, or for None all usable cores."""
    if threads is None:
        return len(os.sched_getaffinity(0))
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
def fastest_algorithms(device: torch.device) -> Iterator[None]:
    """Have cuDNN time its convolutions and take the fastest; for many steps of the same shapes."""
    from torch.backends import cudnn

    before = cudnn.benchmark
    cudnn.benchmark = before or device.type == "cuda"
    try:
        yield
    finally:
        cudnn.benchmark = before
