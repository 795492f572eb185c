"""ldmlr.sampler.cpu.int8: equal to a twin with the same rounding; what rounding would hide is refused."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_limits

from ldmlr import isa as cpu
from ldmlr.bench.models import random_spec
from ldmlr.device import Machine
from ldmlr.diffusion.tables import AdaLNTables
from ldmlr.errors import UsageError
from ldmlr.generation.latent import LatentDiffusion
from ldmlr.sampler import backends as sampling
from ldmlr.sampler.cpu.int8 import GRID, activation_ranges
from ldmlr.sampler.cpu.sampler import NativeSampler
from ldmlr.sampler.noise import standard_normal_reference
from ldmlr.sampler.solve import solve
from ldmlr.sampler.spec import SamplerSpec

SETS = [entry.name for entry in cpu.instruction_sets() if entry.available and entry.int8]
CPU = Machine("cpu", 1)
needs_int8 = pytest.mark.skipif(not SETS, reason="this processor has no int8 products (AVX-512 VNNI)")


def rounded(values: np.ndarray, scale: np.ndarray | float) -> np.ndarray:
    """Round to multiples of scale within the range of int8."""
    return np.clip(np.rint(values / scale), -128, 127) * scale


def twin(spec: SamplerSpec, labels: np.ndarray, first_row: int) -> np.ndarray:
    """The sampler in float64, operands and weights of every product rounded as int8 does."""
    w = {f.name: getattr(spec.tables, f.name).astype(np.float64) for f in dataclasses.fields(spec.tables)}
    ranges, layers = activation_ranges(spec), len(w["w1"])

    def product(operand: np.ndarray, matrix: np.ndarray, index: int) -> np.ndarray:
        scale = np.maximum(np.abs(matrix).max(1, keepdims=True) / 127, 1e-30)
        return rounded(operand, ranges[index] / 127) @ rounded(matrix, scale).T

    def silu(x: np.ndarray) -> np.ndarray:
        return x / (1 + np.exp(-x))

    def activations(x: np.ndarray, step: int, classes: np.ndarray) -> np.ndarray:
        h = product(x, w["w_in"], 0) + w["b_in"]
        for layer in range(layers):
            if layer == 0 and spec.dim < len(w["b_in"]):  # two linear maps in a row are one
                u = product(x, w["w1"][0] @ w["w_in"], 0) + w["w1"][0] @ w["b_in"]
            else:
                u = product(h, w["w1"][layer], 1 + 2 * layer)
            u = silu(u + w["bias_step"][step, layer] + w["bias_class"][classes, layer])
            h = h + product(u, w["w2"][layer], 2 + 2 * layer) + w["b2"][layer]
        return silu(h)

    def guided(x: np.ndarray, step: int) -> np.ndarray:
        null = activations(x, step, np.full_like(labels, spec.num_classes))
        mixed = null + spec.guidance * (activations(x, step, labels) - null)
        return product(mixed, w["w_out"], 2 * layers + 1) + w["b_out"]

    def noise(stream: int, step: int) -> np.ndarray:
        rows = standard_normal_reference(spec.seed, first_row, len(labels), spec.dim, stream, step)
        return rows.astype(np.float64)

    x = solve(spec.rows, noise(0, 0), guided, lambda step: noise(1, step))
    return np.maximum(spec.floor, spec.mean[labels] + spec.k * x @ spec.scale.T)


@needs_int8
@pytest.mark.parametrize("isa", SETS)
@pytest.mark.parametrize(
    ("dim", "hidden", "layers", "steps"),
    [(64, 128, 2, 2), (17, 33, 3, 2), (100, 80, 1, 2), (128, 64, 2, 1), (1, 1, 1, 3), (70, 250, 2, 2)],
)
def test_equal_to_a_twin_that_rounds_alike(isa: str, dim: int, hidden: int, layers: int, steps: int) -> None:
    spec = random_spec(dim, hidden, layers, steps=steps, classes=3)
    labels = np.arange(40) % 3
    expected = twin(spec, labels, 7)
    found = NativeSampler(spec, weights="int8", isa=isa)(labels, 7)
    difference = np.abs(found - expected) / expected.std()
    # A value that lies between two steps may be rounded the other way: few, and by one step of 1/127.
    assert np.median(difference) < 2e-5
    assert difference.max() < 0.05


def test_ranges_hold_every_operand_and_lie_on_the_grid() -> None:
    spec = random_spec(20, 48, 3, classes=5)
    ranges = activation_ranges(spec)
    assert ranges.shape == (8,)
    assert np.allclose(np.log2(ranges) * GRID, np.rint(np.log2(ranges) * GRID), atol=1e-9)
    # The first x is a standard normal draw of a thousand rows.
    assert 3 < ranges[0] < 8
    other = dataclasses.replace(spec, seed=99)
    assert np.array_equal(activation_ranges(other), ranges)


def test_ranges_do_not_depend_on_the_threads_of_the_matrix_product() -> None:
    spec = random_spec(64, 200, 2)
    found = []
    for threads in (1, 2):
        with threadpool_limits(threads):
            found.append(activation_ranges(spec))
    assert np.array_equal(*found)


@pytest.mark.parametrize("name", ["w1", "b_out", "bias_class"])
def test_a_broken_model_is_refused_not_rounded(name: str) -> None:
    spec = random_spec(8, 16)
    array = getattr(spec.tables, name).copy()
    array.reshape(-1)[0] = np.nan
    broken = dataclasses.replace(spec, tables=dataclasses.replace(spec.tables, **{name: array}))
    with pytest.raises(UsageError, match="needs a finite model"):
        activation_ranges(broken)


def test_a_network_of_zeros_draws_the_gaussian() -> None:
    spec = random_spec(24, 32, guidance=1.0)
    tables = spec.tables
    zeros = {f.name: np.zeros_like(getattr(tables, f.name)) for f in dataclasses.fields(tables)}
    silent = dataclasses.replace(spec, tables=type(tables)(**zeros))
    labels = np.arange(50) % 10
    expected = NativeSampler(silent, weights="float32")(labels)
    for isa in SETS:
        assert np.array_equal(NativeSampler(silent, weights="int8", isa=isa)(labels), expected)


@needs_int8
def test_weights_of_sampling() -> None:
    spec = random_spec(16, 32)
    labels = np.arange(30) % 10
    rows = sampling.prepare(spec, CPU, "int8")(labels)
    assert np.array_equal(rows, NativeSampler(spec, weights="int8")(labels))
    assert sampling.prepare(spec, CPU, "int8").kernels == f"{cpu.choose().name} int8"
    assert sampling.prepare(spec, CPU, "float32").kernels == f"{cpu.choose().name} float32"


def test_wrong_weights_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = random_spec(8, 16)
    with pytest.raises(UsageError, match="weights: unknown value 'int7'; did you mean 'int8'"):
        sampling.prepare(spec, CPU, "int7")
    with pytest.raises(UsageError, match="reference cannot run this: it has no int8 weights"):
        sampling.prepare(spec, Machine("cpu", 1, "reference"), "int8")
    monkeypatch.setenv("LDMLR_ISA", "baseline")
    with pytest.raises(UsageError, match="baseline has no int8 products; use float32"):
        sampling.prepare(spec, CPU, "int8")
    with pytest.raises(UsageError, match="no backend can run this with bfloat16"):
        sampling.choose_backend("auto", AdaLNTables, torch.device("cpu"), "bfloat16")


@needs_int8
def test_generate_with_int8(run_cli, tmp_path) -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], [30, 20, 10])
    features = rng.random((60, 8), np.float32) + labels[:, None]
    model = LatentDiffusion(hidden=16, iterations=20, seed=0).fit(features, labels)
    model.save(tmp_path / "model.safetensors")
    done = run_cli(
        "generate",
        tmp_path / "model.safetensors",
        "--weights",
        "int8",
        "--out",
        tmp_path / "rows.h5",
        "--json",
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["config"]["weights"] == "int8"
    assert document["kernels"] == f"{cpu.choose().name} int8"
    refused = run_cli(
        "generate", tmp_path / "model.safetensors", "--weights", "int8", "--backend", "reference",
        "--out", tmp_path / "other.h5",
    )  # fmt: skip
    assert refused.returncode == 2
    assert "no int8 weights" in refused.stderr
    assert not (tmp_path / "other.h5").exists()
