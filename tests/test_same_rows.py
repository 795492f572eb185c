"""The same rows from the same seeds, version after version: draws that were recorded once.

``fixtures/draws.npz`` has four small models as plain arrays and their exact rows; ``fixtures/draws.json`` a
sha256 of what each instruction set, type of weights and type of rows drew from them. A change of these is
a change of everybody's generated rows.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from ldmlr import isa as cpu
from ldmlr.diffusion.solvers import StepRows
from ldmlr.diffusion.tables import DenoiserTables
from ldmlr.sampler import reference
from ldmlr.sampler.cpu.sampler import NativeSampler
from ldmlr.sampler.noise import standard_normal, standard_normal_reference
from ldmlr.sampler.spec import SamplerSpec

FIXTURES = Path(__file__).parent / "fixtures"
DRAWS = json.loads((FIXTURES / "draws.json").read_text(encoding="utf-8"))
CASES = sorted(DRAWS["cases"])
KERNELS = sorted({key.rpartition(" ")[0] for case in DRAWS["cases"].values() for key in case["sha256"]})
LABELS, FIRST_ROW = np.array(DRAWS["labels"], np.int64), DRAWS["first_row"]


def sha256(array: npt.NDArray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


@pytest.fixture(scope="module")
def arrays() -> dict[str, npt.NDArray]:
    with np.load(FIXTURES / "draws.npz") as file:
        return dict(file)


def recorded_spec(name: str, arrays: dict[str, npt.NDArray]) -> SamplerSpec:
    """Return the model of a case."""

    def fields(kind: type, prefix: str) -> dict[str, npt.NDArray]:
        return {field.name: arrays[f"{name}.{prefix}.{field.name}"] for field in dataclasses.fields(kind)}

    case = DRAWS["cases"][name]
    return SamplerSpec(
        DenoiserTables(**fields(DenoiserTables, "tables")), StepRows(**fields(StepRows, "rows")),
        arrays[f"{name}.mean"], arrays[f"{name}.scale"], k=case["k"],
        floor=-np.inf if case["floor"] is None else case["floor"], guidance=case["guidance"],
        seed=case["seed"],
    )  # fmt: skip


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("name", CASES)
def test_the_native_sampler_draws_what_it_drew(name: str, kernels: str, arrays: dict) -> None:
    isa, weights = kernels.split()
    if isa not in [entry.name for entry in cpu.instruction_sets() if entry.available]:
        pytest.skip(f"this processor, or this build, has no {isa}")
    sampler = NativeSampler(recorded_spec(name, arrays), weights=weights, isa=isa)
    for dtype in ("float32", "float16", "bfloat16"):
        expected = DRAWS["cases"][name]["sha256"][f"{kernels} {dtype}"]
        for threads in (1, 2, 3):
            assert sha256(sampler(LABELS, FIRST_ROW, threads=threads, dtype=dtype)) == expected
        parts = [sampler(LABELS[i:j], FIRST_ROW + i, dtype=dtype) for i, j in ((0, 1), (1, 20), (20, 37))]
        assert sha256(np.concatenate(parts)) == expected


@pytest.mark.parametrize("isa", [entry.name for entry in cpu.instruction_sets()])
def test_every_instruction_set_is_recorded_or_said_to_be_absent(isa: str) -> None:
    if isa not in {kernels.split()[0] for kernels in KERNELS}:
        pytest.skip(f"the recorded draws have none of {isa}: no machine with it was at hand")
    assert f"{isa} float32" in KERNELS


# Epsilons of the type, of the largest value, that a row may be off: the order in which a library sums is not
# ours to fix.
ROUNDINGS = 16


@pytest.mark.parametrize("precision", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", CASES)
def test_the_reference_draws_the_recorded_rows(name: str, precision: torch.dtype, arrays: dict) -> None:
    exact = arrays[f"{name}.reference"]
    spec = recorded_spec(name, arrays)
    for threads in (1, 2):
        found = reference.sample(spec, LABELS, FIRST_ROW, precision=precision, threads=threads).numpy()
        allowed = ROUNDINGS * torch.finfo(precision).eps * np.abs(exact).max()
        assert np.abs(found - exact).max() <= allowed


def test_the_noise_is_the_recorded_one() -> None:
    arguments = (2**63 + 9, 2**34 + 1, 33, 13, 1, 6)
    assert sha256(standard_normal(*arguments)) == DRAWS["noise"]
    assert sha256(standard_normal_reference(*arguments)) == DRAWS["noise"]
