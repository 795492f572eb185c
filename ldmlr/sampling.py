"""Sampling: checks the request, chooses the backend and returns the rows with its name."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ldmlr import native
from ldmlr.device import resolve_device
from ldmlr.diffusion import reference
from ldmlr.diffusion.spec import SamplerSpec
from ldmlr.errors import UsageError, nearest

BACKEND_NAMES = ("auto", "reference", "native", "cuda")
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}

# (spec, labels, first_row, threads, device, dtype) -> rows [N, D] on the CPU in the dtype
Run = Callable[[SamplerSpec, npt.NDArray[np.int64], int, int, torch.device, torch.dtype], torch.Tensor]


@dataclasses.dataclass(frozen=True)
class Backend:
    """A way to draw rows.

    Attributes
    ----------
    run
        Draws the rows.
    refuses
        Returns why this backend cannot run a spec on a device, or None if it can.
    """

    run: Run
    refuses: Callable[[SamplerSpec, torch.device], str | None]


def _reference(
    spec: SamplerSpec,
    labels: npt.NDArray[np.int64],
    first_row: int,
    threads: int,
    device: torch.device,
    dtype: torch.dtype,
) -> torch.Tensor:
    return reference.sample(spec, labels, first_row, threads=threads, device=device).to(dtype)


def _native(
    spec: SamplerSpec,
    labels: npt.NDArray[np.int64],
    first_row: int,
    threads: int,
    device: torch.device,
    dtype: torch.dtype,
) -> torch.Tensor:
    name = next(name for name, entry in DTYPES.items() if entry == dtype)
    rows = torch.from_numpy(native.NativeSampler(spec)(labels, first_row, threads=threads, dtype=name))
    return rows.view(dtype)


def _native_refuses(spec: SamplerSpec, device: torch.device) -> str | None:
    return native.refuses(spec) if device.type == "cpu" else f"it computes on the CPU, not on {device}"


# In the order in which ``auto`` tries them.
BACKENDS: dict[str, Backend] = {
    "native": Backend(_native, _native_refuses),
    "reference": Backend(_reference, lambda spec, device: None),
}


@dataclasses.dataclass(frozen=True)
class Drawn:
    """Rows and the backend that drew them.

    Attributes
    ----------
    rows
        Features ``[N, D]``, a tensor on the CPU.
    backend
        ``reference``, ``native`` or ``cuda``.
    """

    rows: torch.Tensor
    backend: str

    def numpy(self) -> npt.NDArray[Any]:
        """Return the rows as an array; bfloat16, which NumPy lacks, as its uint16 bit patterns."""
        if self.rows.dtype == torch.bfloat16:
            return self.rows.view(torch.uint16).numpy()
        return self.rows.numpy()


def choose_backend(name: str, spec: SamplerSpec, device: torch.device) -> str:
    """Return the backend that will run: the one named, or for ``auto`` the first that can.

    Raises
    ------
    UsageError
        The name is unknown, not in this build, or the backend cannot run this model.
    """
    if name not in BACKEND_NAMES:
        raise UsageError(f"--backend: unknown value {name!r}; {nearest(name, BACKEND_NAMES)}")
    if name == "auto":
        return next(found for found, backend in BACKENDS.items() if backend.refuses(spec, device) is None)
    if name not in BACKENDS:
        raise UsageError(
            f"--backend: {name} is not available in this build; use {', '.join(BACKENDS)} or auto"
        )
    reason = BACKENDS[name].refuses(spec, device)
    if reason:
        raise UsageError(f"--backend: {name} cannot run this: {reason}; use auto")
    return name


def sample(
    spec: SamplerSpec,
    labels: npt.ArrayLike | torch.Tensor,
    *,
    first_row: int = 0,
    backend: str = "auto",
    dtype: str = "float32",
    device: str = "auto",
    threads: int | None = None,
) -> Drawn:
    """Draw one row per label: a pure function of (spec, labels, first_row).

    Parameters
    ----------
    spec
        Denoiser, solver table, transform, guidance and seed.
    labels
        Class of each row ``[N]``, 0 .. C - 1.
    first_row
        Global number of the first row. Drawing rows 0 .. 99 and rows 100 .. 199 gives the
        same rows as drawing all 200.
    backend
        ``auto``, ``reference``, ``native`` or ``cuda``.
    dtype
        ``float32``, ``float16`` or ``bfloat16``.
    device
        ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
    threads
        CPU threads; None: all usable cores.

    Raises
    ------
    UsageError
        Unknown options, labels out of range, or a backend that cannot run.
    """
    if dtype not in DTYPES:
        raise UsageError(f"--dtype: unknown value {dtype!r}; {nearest(dtype, DTYPES)}")
    classes = check_labels(labels, spec.num_classes)
    if first_row < 0 or first_row + len(classes) > 2**64:
        raise UsageError(f"first_row: must be at least 0 and below 2^64, not {first_row}")
    where = resolve_device(device)
    chosen = choose_backend(backend, spec, where)
    count = threads or len(os.sched_getaffinity(0))
    return Drawn(BACKENDS[chosen].run(spec, classes, first_row, count, where, DTYPES[dtype]), chosen)


def check_labels(labels: npt.ArrayLike | torch.Tensor, num_classes: int) -> npt.NDArray[np.int64]:
    """Return labels as an int64 array ``[N]``, or raise an error that names the first wrong one."""
    array = labels.detach().cpu().numpy() if isinstance(labels, torch.Tensor) else np.asarray(labels)
    if array.ndim != 1:
        raise UsageError(f"labels: expected one dimension, not shape {list(array.shape)}")
    if array.size and not np.issubdtype(array.dtype, np.integer):
        raise UsageError(f"labels: expected whole numbers, not {array.dtype}")
    wrong = np.flatnonzero((array < 0) | (array >= num_classes))
    if len(wrong):
        raise UsageError(
            f"labels: row {wrong[0]} is {array[wrong[0]]}, outside 0 .. {num_classes - 1} of this model"
        )
    return np.ascontiguousarray(array, np.int64)
