"""ldmlr.sampler.backends: which backend runs, what it draws, and what is refused."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from ldmlr.bench.models import random_labels, random_spec
from ldmlr.device import Machine
from ldmlr.diffusion.tables import AdaLNTables, DenoiserTables
from ldmlr.errors import UsageError
from ldmlr.sampler import backends, reference
from ldmlr.sampler.cpu.sampler import NativeSampler

CPU, REFERENCE = Machine("cpu", 1), Machine("cpu", 1, "reference")
SPEC = random_spec(5, 16)
LABELS = random_labels(SPEC, 300)


def test_a_sampler_names_its_backend_and_kernels() -> None:
    sampler = backends.prepare(SPEC, REFERENCE)
    assert (sampler.backend, sampler.kernels, sampler.on_cuda) == ("reference", "PyTorch cpu float32", None)
    assert np.array_equal(sampler(LABELS, 7), reference.sample(SPEC, LABELS, 7).numpy())
    assert backends.prepare(SPEC).backend in backends.BACKENDS


def test_the_native_backend_is_the_native_sampler() -> None:
    spec = random_spec(64, 64)
    sampler, kernels = backends.prepare(spec, CPU), NativeSampler(spec)
    assert (sampler.backend, sampler.kernels) == ("native", f"{kernels.isa} {kernels.weights}")
    rows = sampler(LABELS, 5)
    assert np.array_equal(rows, kernels(LABELS, 5))
    exact = backends.prepare(spec, REFERENCE)(LABELS, 5)
    assert np.abs(rows - exact).max() < 16 * 2.0**-9 * np.abs(exact).max()


@pytest.mark.parametrize("machine", [CPU, REFERENCE], ids=lambda machine: machine.backend)
@pytest.mark.parametrize(("dtype", "bits"), [("float16", 11), ("bfloat16", 8)])
def test_half_types_are_the_rounded_rows(machine: Machine, dtype: str, bits: int) -> None:
    sampler = backends.prepare(SPEC, machine)
    whole = torch.from_numpy(sampler(LABELS))
    # What NumPy has no type for comes as its bit patterns.
    half = torch.from_numpy(sampler(LABELS, dtype=dtype)).view(getattr(torch, dtype))
    assert torch.equal(half, whole.to(half.dtype))
    assert (half.float() - whole).abs().max() <= 2.0**-bits * whole.abs().max()


def test_a_backend_that_is_not_in_this_build_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "BACKENDS", {"reference": backends.BACKENDS["reference"]})
    for name in ("native", "cuda"):
        with pytest.raises(UsageError, match=f"{name} is not available in this build"):
            backends.prepare(SPEC, Machine(backend=name))


def test_auto_takes_the_first_backend_that_can(monkeypatch: pytest.MonkeyPatch) -> None:
    other = backends.BACKENDS["reference"]
    picky = dataclasses.replace(other, refuses=lambda network, device: "too small")
    monkeypatch.setattr(backends, "BACKENDS", {"native": picky, "reference": other})
    assert backends.prepare(SPEC).backend == "reference"
    with pytest.raises(UsageError, match="native cannot run this: too small"):
        backends.prepare(SPEC, Machine(backend="native"))


def test_what_a_backend_cannot_run_is_named() -> None:
    cpu = torch.device("cpu")
    assert backends.choose_backend("auto", AdaLNTables, cpu) == "reference"
    with pytest.raises(UsageError, match="AdaLN"):
        backends.choose_backend("native", AdaLNTables, cpu)
    assert "CPU" in str(backends.BACKENDS["native"].refuses(DenoiserTables, torch.device("cuda")))


@pytest.mark.parametrize(
    ("machine", "message"),
    [
        (Machine(backend="nativ"), "did you mean 'native'"),
        (Machine(device="gpu"), "device: unknown value"),
        (Machine(threads=0), "threads: must be a whole number from 1"),
    ],
)
def test_a_machine_that_there_is_not_is_named(machine: Machine, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        backends.prepare(SPEC, machine)
