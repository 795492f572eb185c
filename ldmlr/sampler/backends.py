"""The backends: which of them can run a model, and a model prepared for one.

A backend is a name with two functions, `Backend.refuses` and `Backend.prepare`. Rows come as a tensor on the
CPU from all of them, and stay one on their way to the caller.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch

from ldmlr.device import Machine, resolve_device, thread_number
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

Labels = npt.NDArray[np.int64]
# (labels, first_row, name of a type) -> rows [N, D] on the CPU in the type
Draw = Callable[[Labels, int, str], torch.Tensor]


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A model that is ready to be drawn from: how, by which kernels, and the sampler if it is on a device."""

    draw: Draw
    kernels: str
    on_cuda: CudaSampler | None = None


@dataclasses.dataclass(frozen=True)
class Backend:
    """A way to draw rows.

    Attributes
    ----------
    prepare
        Prepares a model for a device, CPU threads and a type of weights.
    refuses
        Returns why this backend cannot run models with such tables on a device, or None if it can.
    weights
        The types of weights it has beside ``auto``.
    """

    prepare: Callable[[SamplerSpec, torch.device, int, str], Prepared]
    refuses: Callable[[type[Tables], torch.device], str | None]
    weights: tuple[str, ...]


def _reference(spec: SamplerSpec, device: torch.device, threads: int, weights: str) -> Prepared:
    def draw(labels: Labels, first_row: int, dtype: str) -> torch.Tensor:
        rows = reference.sample(spec, labels, first_row, threads=threads, device=device)
        return rows.to(getattr(torch, dtype))

    return Prepared(draw, f"PyTorch {device.type} float32")


def _native(spec: SamplerSpec, device: torch.device, threads: int, weights: str) -> Prepared:
    sampler = native.NativeSampler(spec, weights=weights)

    def draw(labels: Labels, first_row: int, dtype: str) -> torch.Tensor:
        rows = sampler(labels, first_row, threads=threads, dtype=dtype)
        return torch.from_numpy(rows).view(getattr(torch, dtype))  # bfloat16 comes as bit patterns

    return Prepared(draw, f"{sampler.isa} {sampler.weights}")


def _native_refuses(network: type[Tables], device: torch.device) -> str | None:
    return native.refuses(network) if device.type == "cpu" else f"it computes on the CPU, not on {device}"


def _cuda(spec: SamplerSpec, device: torch.device, threads: int, weights: str) -> Prepared:
    sampler = CudaSampler(spec, device)

    def draw(labels: Labels, first_row: int, dtype: str) -> torch.Tensor:
        return sampler(labels, first_row, dtype=dtype).cpu()

    name = torch.cuda.get_device_name(sampler.device)
    return Prepared(draw, f"{name} {sampler.tier.name} bfloat16", sampler)


# In the order in which ``auto`` tries them.
BACKENDS: dict[str, Backend] = {
    "cuda": Backend(_cuda, cuda_refuses, ("bfloat16",)),
    "native": Backend(_native, _native_refuses, tuple(native.WEIGHTS)),
    "reference": Backend(_reference, lambda network, device: None, ("float32",)),
}


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
        The backend that runs: ``reference``, ``native`` or ``cuda``.
    prepared
        The model as this backend has it; without the widening per class, which comes after it (`widen`).
    """

    spec: SamplerSpec
    backend: str
    prepared: Prepared

    @property
    def kernels(self) -> str:
        """Instruction set or device, and type of weights: rows are the same to the bit where these are."""
        return self.prepared.kernels

    @property
    def on_cuda(self) -> CudaSampler | None:
        """The sampler on the device, for the ``cuda`` backend: it draws plain rows, before `widen`."""
        return self.prepared.on_cuda

    def __call__(self, labels: Labels, first_row: int = 0, dtype: str = "float32") -> torch.Tensor:
        """Draw one row per label: a pure function of (spec, labels, first_row).

        Parameters
        ----------
        labels
            Class of each row, int64 ``[N]``; `ldmlr.arguments.check_labels` makes them of what a user gives.
        first_row
            Global number of the first row. Drawing rows 0 .. 99 and rows 100 .. 199 gives the
            same rows as drawing all 200.
        dtype
            ``float32``, ``float16`` or ``bfloat16``.

        Returns
        -------
        Features ``[N, D]`` on the CPU.
        """
        # Rows that are finished here are rounded once, after that.
        kind = dtype if self.spec.class_k is None else "float32"
        rows = widen(self.spec, self.prepared.draw(labels, first_row, kind), labels)
        return rows.to(getattr(torch, dtype))


def prepare(spec: SamplerSpec, machine: Machine | None = None, weights: str = "auto") -> Sampler:
    """Prepare a model for drawing.

    Parameters
    ----------
    spec
        Denoiser, solver table, transform, guidance and seed.
    machine
        What draws, where and with how many threads; None: the fastest there is.
    weights
        What the network is multiplied in: ``float32``, ``bfloat16``, ``int8``, or ``auto``, the
        fastest of the first two that the backend has on this machine.

    Raises
    ------
    UsageError
        Unknown options, or a backend that cannot run this.
    """
    machine = machine or Machine()
    device, threads = resolve_device(machine.device), thread_number(machine.threads)
    chosen = choose_backend(machine.backend, type(spec.tables), device, weights)
    return Sampler(spec, chosen, BACKENDS[chosen].prepare(plain_spec(spec), device, threads, weights))
