"""The part ``sample`` of ``ldmlr bench``: drawing rows, on the CPU or on a CUDA device."""

from __future__ import annotations

from collections.abc import Callable

from ldmlr import cuda_device
from ldmlr.bench import cpu
from ldmlr.bench.parts import Row, Settings

text = cpu.text


def jobs(settings: Settings) -> list[Callable[[], Row]]:
    """Return the measurements, each giving one row of the benchmark table."""
    device = cuda_device.usable(settings.device)
    if device is None:
        return cpu.jobs(settings.threads, settings.repeats, settings.compiled, quick=settings.quick)
    from ldmlr.bench import cuda

    return cuda.jobs(device, settings.repeats, settings.compiled and not settings.quick)
