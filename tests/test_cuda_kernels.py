"""The CUDA kernels on emulated threads: the device code itself, compiled for the host, beside float64.

What this cannot show is what only the hardware has: timing, races it would meet, its own rounding.
"""

from __future__ import annotations

import contextlib
import ctypes
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.emulator import Emulator, at, canary, check, classes_of
from support.solvers import SOLVERS

from ldmlr import _native
from ldmlr import cuda_device as devices
from ldmlr.bench.models import random_spec
from ldmlr.floats import bfloat16_bits, from_bfloat16
from ldmlr.ops import denoise_step
from ldmlr.sampler.cuda import tiers
from ldmlr.sampler.cuda.packing import (
    pack,
    pack_stream,
    pack_swizzled,
    split_matrix,
)
from ldmlr.sampler.cuda.sampler import CudaSampler
from ldmlr.sampler.cuda.tiers import SHAPES, Tier, shared_bytes
from ldmlr.sampler.noise import noise_params, standard_normal_reference

SMALL = {
    "resident": Tier("resident", 64, 64),
    "streamed": Tier("streamed", 64, 128),  # the guided case of two passes is in test_widths
    "layered": Tier("layered", 64, 64),
    "warpgroup": Tier("warpgroup", 64, 128),
    "bulk": Tier("bulk", 64, 128),
}


# Layouts


def test_structs_are_those_of_the_kernels(emulator: Emulator) -> None:
    """The extension was built from the sources that the emulated kernels are compiled from."""
    kinds = (
        _native.CudaModel, _native.CudaRows, _native.CudaCall, _native.StepParams, _native.NoiseParams,
        _native.TrainParams, _native.CudaTrainCall,
    )  # fmt: skip
    sizes = (ctypes.c_int64 * len(kinds))()
    emulator.library.emulated_sizes(sizes)
    assert list(sizes) == [kind.size for kind in kinds]


@settings(max_examples=10)
@given(
    outputs=st.integers(1, 40), inputs=st.integers(1, 40), chained=st.booleans(), seed=st.integers(0, 2**32)
)
def test_packed_blocks_multiply_as_the_matrix(outputs: int, inputs: int, chained: bool, seed: int) -> None:
    """Do by hand what a warp does: who holds which value is written down here a second time."""
    rng = np.random.default_rng(seed)
    matrix = rng.integers(-8, 9, (outputs, inputs)).astype(np.float32)
    x = rng.integers(-8, 9, (16, inputs)).astype(np.float32)
    n, k = -(-outputs // 16) * 16, -(-inputs // 16) * 16
    blocks = from_bfloat16(pack(matrix, n, k, chained=chained)).reshape(n // 16, k // 16, 32, 2, 2, 2)
    padded = np.zeros((16, k), np.float32)
    padded[:, :inputs] = x
    result = np.zeros((16, n), np.float32)
    for group in range(n // 16):
        for block in range(k // 16):
            for half in range(2):
                b = np.zeros((16, 8), np.float32)  # the right operand of mma.m16n8k16
                a = np.zeros((16, 16), np.float32)
                for lane in range(32):
                    g, t = divmod(lane, 4)
                    for r in range(2):
                        for e in range(2):
                            b[8 * r + 2 * t + e, g] = blocks[group, block, lane, half, r, e]
                            # Inputs that come from registers are the adjacent columns of their lane.
                            source = 4 * t + 2 * r + e if chained else 8 * r + 2 * t + e
                            a[:, 8 * r + 2 * t + e] = padded[:, 16 * block + source]
                product = a @ b
                for t in range(4):
                    for e in range(2):
                        result[:, 16 * group + 4 * t + 2 * half + e] += product[:, 2 * t + e]
    assert np.array_equal(result[:, :outputs], x @ matrix.T)
    assert not result[:, outputs:].any()


def test_bfloat16_is_rounded_as_torch_rounds() -> None:
    bits = np.random.default_rng(0).integers(0, 2**32, 100_000, np.uint32)
    ties = np.float32([0, -0.0, np.inf, -np.inf, 1 + 2**-8, 1 + 3 * 2**-8, 3.4e38])
    values = np.concatenate([bits.view(np.float32), ties])
    values = values[~np.isnan(values)]
    expected = torch.from_numpy(values).to(torch.bfloat16).view(torch.uint16).numpy()
    assert np.array_equal(bfloat16_bits(values), expected)
    assert np.isnan(from_bfloat16(bfloat16_bits(np.float32([np.nan])))).all()


def test_a_stream_has_every_weight_once() -> None:
    rng = np.random.default_rng(0)
    d, h, layers = 64, 128, 3
    w_in, first, w_out = rng.random((h, d)), rng.random((h, d)), rng.random((d, h))
    w1, w2 = list(rng.random((layers - 1, h, h))), list(rng.random((layers, h, h)))
    stream = pack_stream(w_in, first, w1, w2, w_out, d, h)
    every = np.concatenate([m.ravel() for m in (w_in, first, w_out, *w1, *w2)])
    assert np.array_equal(np.sort(stream), np.sort(bfloat16_bits(every)))


@settings(max_examples=5)
@given(st.integers(1, 3), st.integers(1, 3), st.integers(0, 2**32))
def test_swizzled_matrices_multiply_as_the_matrix(groups: int, steps: int, seed: int) -> None:
    outputs, inputs = 64 * groups - 5, 64 * steps - 9
    rng = np.random.default_rng(seed)
    matrix = rng.integers(-8, 9, (outputs, inputs)).astype(np.float32)
    x = rng.integers(-8, 9, inputs).astype(np.float32)
    n, k = 64 * groups, 64 * steps
    image = from_bfloat16(pack_swizzled(matrix, n, k)).reshape(-1)
    result = np.zeros(n)
    for position in range(n):
        group, half, g = position // 16, position // 8 % 2, position % 8
        column = 16 * group + 4 * (g // 2) + 2 * half + g % 2
        for step in range(steps):
            row = 128 * (step * n + position)  # bytes
            for i in range(min(64, inputs - 64 * step)):
                address = row + 2 * i
                address ^= (address >> 7 & 7) << 4
                result[column] += image[address // 2] * x[64 * step + i]
    assert np.array_equal(result[:outputs], matrix @ x)
    assert not result[outputs:].any()


def test_a_matrix_in_parts_is_precise() -> None:
    matrix = np.random.default_rng(0).standard_normal((48, 20))
    high, again, low = np.split(split_matrix(matrix, 64, 32).astype(np.float64), 3, axis=1)
    assert np.array_equal(high, again)
    assert np.array_equal(high, from_bfloat16(bfloat16_bits(high)))
    both = high + from_bfloat16(bfloat16_bits(low))
    assert np.abs(both[:48, :20] - matrix).max() < 2.0**-16 * np.abs(matrix).max()
    assert not both[48:].any()
    assert not both[:, 20:].any()


# Tiers


@pytest.mark.parametrize("layers", [1, 2, 5])
@pytest.mark.parametrize("guided", [False, True])
def test_shared_memory_of_the_table_is_that_of_the_kernels(
    emulator: Emulator, layers: int, guided: bool
) -> None:
    found = []
    values = (ctypes.c_int64 * 4)()
    while emulator.library.emulated_shape(len(found), layers, int(guided), values):
        found.append(tuple(values))
    names = {int(code): name for name, code in tiers.TIERS.items()}
    assert {(names[code], dim, hidden) for code, dim, hidden, _ in found} == set(SHAPES)
    for code, dim, hidden, size in found:
        assert size == shared_bytes(names[code], dim, hidden, layers, guided)


# Kernels


@pytest.mark.parametrize("rows", [1, 7, 63, 65, 140])
@pytest.mark.parametrize("name", SMALL)
def test_numbers_of_rows(emulator: Emulator, name: str, rows: int) -> None:
    check(emulator, random_spec(10, 32, 1, steps=2, classes=3), SMALL[name], rows)


@pytest.mark.parametrize(
    ("tier", "dim", "hidden", "layers"),
    [
        (Tier("resident", 64, 64), 1, 1, 1),
        (Tier("resident", 64, 64), 64, 33, 3),
        (Tier("resident", 64, 128), 64, 128, 2),
        (Tier("resident", 64, 128), 37, 100, 1),
        (Tier("streamed", 64, 128), 50, 100, 4),
        (Tier("streamed", 64, 256), 64, 200, 2),
        (Tier("streamed", 128, 128), 100, 90, 2),
        (Tier("streamed", 128, 256), 128, 256, 1),
        (Tier("layered", 128, 192), 100, 130, 3),
        (Tier("layered", 128, 64), 100, 40, 2),
        (Tier("layered", 64, 512), 64, 512, 1),
        (Tier("warpgroup", 128, 128), 100, 40, 3),
        (Tier("warpgroup", 192, 256), 130, 150, 1),
    ],
)
@pytest.mark.parametrize("guidance", [1.5, 1.0])
def test_widths(emulator: Emulator, tier: Tier, dim: int, hidden: int, layers: int, guidance: float) -> None:
    check(emulator, random_spec(dim, hidden, layers, steps=2, classes=3, guidance=guidance), tier, rows=13)


@pytest.mark.parametrize("classes", [1, 8142])
@pytest.mark.parametrize("name", SMALL)
def test_numbers_of_classes(emulator: Emulator, name: str, classes: int) -> None:
    check(emulator, random_spec(10, 32, steps=2, classes=classes), SMALL[name], rows=40)


@pytest.mark.parametrize("guidance", [0.0, 1.0, 3.0])
@pytest.mark.parametrize(("solver", "eta", "prediction"), SOLVERS)
@pytest.mark.parametrize("name", SMALL)
def test_solvers_and_guidance(
    emulator: Emulator, name: str, solver: str, eta: float, prediction: str, guidance: float
) -> None:
    spec = random_spec(
        18, 40, 1, steps=2, classes=3, solver=solver, eta=eta, prediction=prediction, guidance=guidance
    )
    check(emulator, spec, SMALL[name], rows=20)


@pytest.mark.parametrize("diagonal", [False, True])
@pytest.mark.parametrize("floor", [0.0, -np.inf])
@pytest.mark.parametrize("name", SMALL)
def test_transforms_and_types(emulator: Emulator, name: str, diagonal: bool, floor: float) -> None:
    for dim in (13, 16):
        spec = random_spec(dim, 40, 1, steps=2, classes=3, diagonal=diagonal, floor=floor)
        check(emulator, spec, SMALL[name], rows=9)
        labels = classes_of(spec, 9)
        single = emulator.sample(spec, labels, SMALL[name])
        assert single.min() >= floor
        half = emulator.sample(spec, labels, SMALL[name], dtype="float16")
        assert np.array_equal(half, single.astype(np.float16))
        assert np.array_equal(
            emulator.sample(spec, labels, SMALL[name], dtype="bfloat16"), bfloat16_bits(single)
        )


@pytest.mark.parametrize("name", SMALL)
def test_same_bits_however_it_is_split(emulator: Emulator, name: str) -> None:
    spec = random_spec(30, 48, 1 if name in tiers.IN_LAYERS else 2, steps=2, classes=3, solver="ddpm")
    labels, first = classes_of(spec, 150), 2**32 - 50
    whole = emulator.sample(spec, labels, SMALL[name], first)
    for processors, slab in ((1, 512), (5, 256)):
        again = emulator.sample(spec, labels, SMALL[name], first, multiprocessors=processors, slab=slab)
        assert np.array_equal(again, whole)
    for start, stop in ((0, 1), (1, 8), (8, 70), (70, 150)):
        part = emulator.sample(spec, labels[start:stop].copy(), SMALL[name], first + start)
        assert np.array_equal(part, whole[start:stop])


@pytest.mark.parametrize("name", SMALL)
def test_a_broken_network_shows_and_large_activations_do_not_break_it(emulator: Emulator, name: str) -> None:
    spec = random_spec(10, 32, steps=2, classes=3)
    labels = classes_of(spec, 20)
    spec.tables.bias_class[:] *= np.float32(1e4)
    assert np.isfinite(emulator.sample(spec, labels, SMALL[name])).all()
    spec.tables.b_out[:] = np.nan
    assert np.isnan(emulator.sample(spec, labels, SMALL[name])).all()


@pytest.fixture
def emulated_device(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> torch.device:
    """Return the processor as if it were a device of sm_90: its kernels are the emulated ones."""
    device = torch.device("cpu", 0)

    def run(call: _native.CudaCall) -> None:
        assert call.device == device.index
        # Memory of a device starts at a multiple of 256 bytes, which the kernels count on.
        scratch = canary(emulated_scratch(call.model, call.slab))
        call.scratch = scratch.ctypes.data
        assert emulator.library.emulated_sample(at(call), 2) == 0

    def emulated_scratch(model: _native.CudaModel, slab: int) -> int:
        return emulator.library.emulated_scratch(at(model), ctypes.c_int64(slab))

    monkeypatch.setattr(_native, "cuda_sample", run)
    monkeypatch.setattr(_native, "cuda_scratch_bytes", emulated_scratch)
    for name, answer in (
        ("unavailable", None), ("indexed", device), ("shared_limit", 227 << 10), ("has_wgmma", True),
        ("stream_of", 0),
    ):  # fmt: skip
        monkeypatch.setattr(devices, name, lambda *arguments, answer=answer: answer)
    monkeypatch.setattr(torch.cuda, "device", lambda device: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: mock.Mock())
    return device


@pytest.mark.parametrize("name", SMALL)
def test_the_sampler_tells_the_kernels_what_to_do(
    emulator: Emulator, emulated_device: torch.device, name: str
) -> None:
    """`CudaSampler` itself, from its arrays to its call, where no device is needed."""
    spec = random_spec(10, 40, 2, steps=2, classes=3)
    labels = classes_of(spec, 300)
    sampler = CudaSampler(spec, emulated_device, tier=name, slab=256)
    for dtype, bits in (("float32", torch.float32), ("bfloat16", torch.uint16)):
        rows = sampler(labels, 2**40, dtype=dtype).view(bits).numpy()
        assert np.array_equal(rows, emulator.sample(spec, labels, sampler.tier, 2**40, dtype=dtype))


@pytest.mark.parametrize("dim", [1, 6, 64])
def test_normals_are_those_of_the_reference_to_the_bit(emulator: Emulator, dim: int) -> None:
    out = np.full((9, dim), np.nan, np.float32)
    params = noise_params(2**63 + 5, 2**32 - 3, 9, dim, 1, 7)
    pointer = ctypes.c_void_p(out.ctypes.data)
    assert emulator.library.emulated_normals(at(params), pointer) == 0
    assert np.array_equal(out, standard_normal_reference(2**63 + 5, 2**32 - 3, 9, dim, 1, 7))


@pytest.mark.parametrize("dim", [5, 8])
def test_one_step_is_that_of_the_cpu(emulator: Emulator, dim: int) -> None:
    spec = random_spec(dim, 16, solver="ddpm", steps=4)
    rng = np.random.default_rng(0)
    x, x0, output = (rng.standard_normal((70, dim)).astype(np.float32) for _ in range(3))
    expected, expected_x0 = torch.from_numpy(x.copy()), torch.from_numpy(x0.copy())
    rows = torch.from_numpy(spec.rows.table())
    denoise_step(expected, expected_x0, torch.from_numpy(output), rows, 2, 5, 100)
    params = _native.StepParams(
        row=rows[2].tolist(), x=x.ctypes.data, x0=x0.ctypes.data, f=output.ctypes.data,
        rows=70, dim=dim, seed=5, first_row=100, step=2,
    )  # fmt: skip
    assert emulator.library.emulated_denoise_step(at(params)) == 0
    # Instruction sets without a fused multiply-add round twice.
    assert np.allclose(x, expected.numpy(), rtol=1e-6, atol=1e-6)
    assert np.allclose(x0, expected_x0.numpy(), rtol=1e-6, atol=1e-6)
