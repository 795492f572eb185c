"""pytest-benchmark suite of the native sampler and the counter-based normals.

    pytest benchmarks/bench_sampler.py

Compares instruction sets, types and shapes run by run; `sampler.py` measures the shares of the
ceilings that are quoted.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from ldmlr import isa as cpu
from ldmlr.bench.models import operations_per_row, random_labels, random_spec
from ldmlr.bench.torch_sampler import TorchSampler
from ldmlr.sampler.cpu.sampler import NativeSampler
from ldmlr.sampler.noise import standard_normal

AVAILABLE = [entry for entry in cpu.instruction_sets() if entry.available]
KERNELS = [(entry.name, "float32") for entry in AVAILABLE]
KERNELS += [(entry.name, "bfloat16") for entry in AVAILABLE if entry.bfloat16]
KERNELS += [(entry.name, "int8") for entry in AVAILABLE if entry.int8]
SHAPES = [(64, 64), (64, 128), (64, 256), (512, 512)]


@pytest.mark.parametrize(("isa", "weights"), KERNELS)
@pytest.mark.parametrize(("dim", "hidden"), SHAPES)
def test_sampler(benchmark: Any, isa: str, weights: str, dim: int, hidden: int) -> None:
    spec = random_spec(dim, hidden)
    sampler = NativeSampler(spec, weights=weights, isa=isa)
    count = max(48, int(2e9 / operations_per_row(spec)) // 48 * 48)
    labels = random_labels(spec, count)
    rows = benchmark(sampler, labels)
    benchmark.extra_info["gflop"] = count * operations_per_row(spec) * 1e-9
    assert rows.shape == (count, dim)


def test_one_row(benchmark: Any) -> None:
    sampler = NativeSampler(random_spec(64, 128))
    rows = benchmark(sampler, np.zeros(1, np.int64))
    assert rows.shape == (1, 64)


def test_preparation(benchmark: Any) -> None:
    assert benchmark(NativeSampler, random_spec(64, 128)).dim == 64


@pytest.mark.parametrize("hidden", [64, 128])
def test_eager_pytorch(benchmark: Any, hidden: int) -> None:
    torch.set_num_threads(1)
    spec = random_spec(64, hidden)
    assert benchmark(TorchSampler(spec), random_labels(spec, 4096)) == 4096


@pytest.mark.parametrize("isa", [entry.name for entry in AVAILABLE])
def test_normals(benchmark: Any, isa: str) -> None:
    out = np.empty((2000, 64), np.float32)
    benchmark(standard_normal, 1, 0, 2000, 64, out=out, isa=isa)
    assert np.isfinite(out).all()
