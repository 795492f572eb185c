"""Sampling: checks the request, chooses the backend and returns the rows with its name."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ldmlr.arguments import check_first_row, type_name
from ldmlr.device import resolve_device, thread_number
from ldmlr.diffusion.tables import Tables
from ldmlr.errors import UsageError, nearest, opt
from ldmlr.sampler import reference
from ldmlr.sampler.config import WEIGHTS
from ldmlr.sampler.cpu import sampler as native
from ldmlr.sampler.cuda.sampler import CudaSampler
from ldmlr.sampler.cuda.sampler import refuses as cuda_refuses
from ldmlr.sampler.spec import SamplerSpec
from ldmlr.sampler.widen import plain_spec, widen

BACKEND_NAMES = ("auto", "reference", "native", "cuda")
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}

# (labels, first_row, threads, dtype) -> rows [N, D] on the CPU in the dtype
Draw = Callable[[npt.NDArray[np.int64], int, int, str], torch.Tensor]


@dataclasses.dataclass(frozen=True)
class Backend:
    """A way to draw rows.

    Attributes
    ----------
    prepare
        Prepares a model for drawing on a device, with a type of weights; returns how to draw, and
        the kernels that will run.
    refuses
        Returns why this backend cannot run models with such tables on a device, or None if it can.
    weights
        The types of weights it has beside ``auto``.
    """

    prepare: Callable[[SamplerSpec, torch.device, str], tuple[Draw, str]]
    refuses: Callable[[type[Tables], torch.device], str | None]
    weights: tuple[str, ...]


def _reference(spec: SamplerSpec, device: torch.device, weights: str) -> tuple[Draw, str]:
    def draw(labels: npt.NDArray[np.int64], first_row: int, threads: int, dtype: str) -> torch.Tensor:
        return reference.sample(spec, labels, first_row, threads=threads, device=device).to(DTYPES[dtype])

    return draw, f"PyTorch {device.type} float32"


def _native(spec: SamplerSpec, device: torch.device, weights: str) -> tuple[Draw, str]:
    sampler = native.NativeSampler(spec, weights=weights)

    def draw(labels: npt.NDArray[np.int64], first_row: int, threads: int, dtype: str) -> torch.Tensor:
        return torch.from_numpy(sampler(labels, first_row, threads=threads, dtype=dtype)).view(DTYPES[dtype])

    return draw, f"{sampler.isa} {sampler.weights}"


def _native_refuses(network: type[Tables], device: torch.device) -> str | None:
    return native.refuses(network) if device.type == "cpu" else f"it computes on the CPU, not on {device}"


@dataclasses.dataclass(frozen=True)
class _OnCuda:
    """Draws on a CUDA device."""

    sampler: CudaSampler

    def __call__(
        self, labels: npt.NDArray[np.int64], first_row: int, threads: int, dtype: str
    ) -> torch.Tensor:
        return self.sampler(labels, first_row, dtype=dtype).cpu()


def _cuda(spec: SamplerSpec, device: torch.device, weights: str) -> tuple[Draw, str]:
    sampler = CudaSampler(spec, device)
    return _OnCuda(sampler), f"{torch.cuda.get_device_name(sampler.device)} {sampler.tier.name} bfloat16"


# In the order in which ``auto`` tries them.
BACKENDS: dict[str, Backend] = {
    "cuda": Backend(_cuda, cuda_refuses, ("bfloat16",)),
    "native": Backend(_native, _native_refuses, tuple(native.WEIGHTS)),
    "reference": Backend(_reference, lambda network, device: None, ("float32",)),
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


def choose_backend(name: str, network: type[Tables], device: torch.device, weights: str = "auto") -> str:
    """Return the backend that will run: the one named, or for ``auto`` the first that can.

    What a backend can run depends on the tables of the network, not on their sizes.

    Raises
    ------
    UsageError
        The name is unknown, not in this build, or the backend cannot run this model with these weights.
    """
    if name not in BACKEND_NAMES:
        raise UsageError(f"{opt('backend')}: unknown value {name!r}; {nearest(name, BACKEND_NAMES)}")
    if weights not in WEIGHTS:
        raise UsageError(f"{opt('weights')}: unknown value {weights!r}; {nearest(weights, WEIGHTS)}")
    if name == "auto":
        reasons = {found: _reason(found, network, device, weights) for found in BACKENDS}
        able = [found for found, reason in reasons.items() if reason is None]
        if not able:
            listed = "; ".join(f"{found}: {reason}" for found, reason in reasons.items())
            raise UsageError(f"{opt('weights')}: no backend can run this with {weights} ({listed}); use auto")
        return able[0]
    if name not in BACKENDS:
        raise UsageError(
            f"{opt('backend')}: {name} is not available in this build; use {', '.join(BACKENDS)} or auto"
        )
    reason = _reason(name, network, device, weights)
    if reason:
        raise UsageError(f"{opt('backend')}: {name} cannot run this: {reason}; use auto")
    return name


def _reason(name: str, network: type[Tables], device: torch.device, weights: str) -> str | None:
    backend = BACKENDS[name]
    if weights != "auto" and weights not in backend.weights:
        return f"it has no {weights} weights"
    return backend.refuses(network, device)


@dataclasses.dataclass(frozen=True)
class Sampler:
    """A model prepared for one backend, to draw from as often as needed.

    Attributes
    ----------
    spec
        What is drawn from.
    backend
        The backend that runs.
    kernels
        Its instruction set and type of weights: rows are the same to the bit where these are.
    """

    spec: SamplerSpec
    backend: str
    kernels: str
    _draw: Draw

    @property
    def on_cuda(self) -> CudaSampler | None:
        """The sampler on the device, for the ``cuda`` backend: it draws plain rows, before `widen`."""
        return self._draw.sampler if isinstance(self._draw, _OnCuda) else None

    def __call__(
        self,
        labels: npt.ArrayLike | torch.Tensor,
        first_row: int = 0,
        *,
        dtype: str = "float32",
        threads: int | None = None,
    ) -> Drawn:
        """Draw one row per label, as `sample` does."""
        dtype = type_name(dtype)
        if dtype not in DTYPES:
            raise UsageError(f"{opt('dtype')}: unknown value {dtype!r}; {nearest(dtype, DTYPES)}")
        classes = check_labels(labels, self.spec.num_classes)
        first_row = check_first_row(first_row, len(classes))
        count = thread_number(threads)
        # Rows that are finished here are rounded once, after that.
        kind = dtype if self.spec.class_k is None else "float32"
        rows = widen(self.spec, self._draw(classes, first_row, count, kind), classes)
        return Drawn(rows.to(DTYPES[dtype]), self.backend)


def prepare(
    spec: SamplerSpec, *, backend: str = "auto", weights: str = "auto", device: str = "auto"
) -> Sampler:
    """Prepare a model for drawing; arguments and errors are those of `sample`."""
    where = resolve_device(device)
    chosen = choose_backend(backend, type(spec.tables), where, weights)
    draw, kernels = BACKENDS[chosen].prepare(plain_spec(spec), where, weights)
    return Sampler(spec, chosen, kernels, draw)


def sample(
    spec: SamplerSpec,
    labels: npt.ArrayLike | torch.Tensor,
    *,
    first_row: int = 0,
    backend: str = "auto",
    weights: str = "auto",
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
    weights
        What the network is multiplied in: ``float32``, ``bfloat16``, ``int8``, or ``auto``, the
        fastest of the first two that the backend has on this machine.
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
    sampler = prepare(spec, backend=backend, weights=weights, device=device)
    return sampler(labels, first_row, dtype=dtype, threads=threads)


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
