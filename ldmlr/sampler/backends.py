"""The backends: which of them can run a model, and a model prepared for one.

A backend is a name with two functions, `Backend.refuses` and `Backend.prepare`. Rows come as NumPy arrays
from all of them, and stay so on their way to the caller. Torch is imported by the backends that compute
with it; ``native`` does not, so that drawing on the CPU starts at once and goes on in forked processes, which
torch's threads do not survive.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ldmlr.device import Machine, device_name, thread_number
from ldmlr.diffusion.tables import Tables
from ldmlr.errors import UsageError, nearest, opt
from ldmlr.floats import encode
from ldmlr.sampler.config import WEIGHTS
from ldmlr.sampler.cpu import sampler as native
from ldmlr.sampler.spec import SamplerSpec
from ldmlr.sampler.widen import plain_spec, widen

if TYPE_CHECKING:
    from ldmlr.sampler.cuda.sampler import CudaSampler

BACKEND_NAMES = ("auto", "reference", "native", "cuda")

Labels = npt.NDArray[np.int64]
# (labels, first_row, name of a type) -> rows [N, D] in the type, bfloat16 as bit patterns
Draw = Callable[[Labels, int, str], npt.NDArray[Any]]


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
        Prepares a model for a device (``cpu``, ``cuda`` or ``cuda:N``), CPU threads and a type of weights.
    refuses
        Returns why this backend cannot run models with such tables on a device, or None if it can.
    weights
        The types of weights it has beside ``auto``.
    """

    prepare: Callable[[SamplerSpec, str, int, str], Prepared]
    refuses: Callable[[type[Tables], str], str | None]
    weights: tuple[str, ...]


def _reference(spec: SamplerSpec, device: str, threads: int, weights: str) -> Prepared:
    from ldmlr.sampler import reference

    def draw(labels: Labels, first_row: int, dtype: str) -> npt.NDArray[Any]:
        rows = reference.sample(spec, labels, first_row, threads=threads, device=device)
        return encode(rows.numpy(), dtype)

    return Prepared(draw, f"PyTorch {device.partition(':')[0]} float32")


def _native(spec: SamplerSpec, device: str, threads: int, weights: str) -> Prepared:
    sampler = native.NativeSampler(spec, weights=weights)

    def draw(labels: Labels, first_row: int, dtype: str) -> npt.NDArray[Any]:
        return sampler(labels, first_row, threads=threads, dtype=dtype)

    return Prepared(draw, f"{sampler.isa} {sampler.weights}")


def _native_refuses(network: type[Tables], device: str) -> str | None:
    return native.refuses(network) if device == "cpu" else f"it computes on the CPU, not on {device}"


def _cuda(spec: SamplerSpec, device: str, threads: int, weights: str) -> Prepared:
    import torch

    from ldmlr.sampler.cuda.sampler import CudaSampler

    sampler = CudaSampler(spec, device)

    def draw(labels: Labels, first_row: int, dtype: str) -> npt.NDArray[Any]:
        rows = sampler(labels, first_row, dtype=dtype).cpu()
        return np.asarray((rows.view(torch.uint16) if dtype == "bfloat16" else rows).numpy())

    name = torch.cuda.get_device_name(sampler.device)
    return Prepared(draw, f"{name} {sampler.tier.name} bfloat16", sampler)


def _cuda_refuses(network: type[Tables], device: str) -> str | None:
    if device == "cpu":
        return "it computes on a CUDA device, not on cpu"
    import torch

    from ldmlr.sampler.cuda.sampler import refuses

    return refuses(network, torch.device(device))


# In the order in which ``auto`` tries them.
BACKENDS: dict[str, Backend] = {
    "cuda": Backend(_cuda, _cuda_refuses, ("bfloat16",)),
    "native": Backend(_native, _native_refuses, tuple(native.WEIGHTS)),
    "reference": Backend(_reference, lambda network, device: None, ("float32",)),
}


def choose_backend(name: str, network: type[Tables], device: Any = "cpu", weights: str = "auto") -> str:
    """Return the backend that will run: the one named, or for ``auto`` the first that can.

    What a backend can run depends on the tables of the network, not on their sizes.

    Parameters
    ----------
    name
        ``auto``, ``reference``, ``native`` or ``cuda``.
    network
        The tables of the network.
    device
        ``cpu``, ``cuda`` or ``cuda:N``, as a name or a device of torch.
    weights
        ``auto``, ``float32``, ``bfloat16`` or ``int8``.

    Raises
    ------
    UsageError
        The name is unknown, not in this build, or the backend cannot run this model with these weights.
    """
    if name not in BACKEND_NAMES:
        raise UsageError(f"{opt('backend')}: unknown value {name!r}; {nearest(name, BACKEND_NAMES)}")
    if weights not in WEIGHTS:
        raise UsageError(f"{opt('weights')}: unknown value {weights!r}; {nearest(weights, WEIGHTS)}")
    device = str(device)
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


def _reason(name: str, network: type[Tables], device: str, weights: str) -> str | None:
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

    def __call__(self, labels: Labels, first_row: int = 0, dtype: str = "float32") -> npt.NDArray[Any]:
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
        Features ``[N, D]``; bfloat16, which NumPy lacks, as bit patterns in uint16.
        """
        # Rows that are finished here are rounded once, after that.
        if self.spec.class_k is None:
            return self.prepared.draw(labels, first_row, dtype)
        return encode(widen(self.spec, self.prepared.draw(labels, first_row, "float32"), labels), dtype)


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
        faster of the first two for the backend on this machine.

    Raises
    ------
    UsageError
        Unknown options, or a backend that cannot run this.
    """
    machine = machine or Machine()
    device, threads = device_name(machine.device), thread_number(machine.threads)
    chosen = choose_backend(machine.backend, type(spec.tables), device, weights)
    return Sampler(spec, chosen, BACKENDS[chosen].prepare(plain_spec(spec), device, threads, weights))
