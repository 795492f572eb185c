"""The CUDA kernels on emulated threads: the library of ``csrc/tests/emulated.cpp``, called by address."""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np
import torch

from ldmlr import _native
from ldmlr.sampler import reference
from ldmlr.sampler.cuda.prepare import prepare
from ldmlr.sampler.cuda.sampler import OUTPUTS
from ldmlr.sampler.cuda.tiers import Tier
from ldmlr.sampler.spec import SamplerSpec

SOURCE = Path(__file__).resolve().parent.parent.parent / "csrc" / "tests" / "emulated.cpp"
FLAGS = ("-std=c++17", "-O1", "-U_FORTIFY_SOURCE", "-ffp-contract=off", "-DLDMLR_EMULATE", "-shared", "-fPIC")
# Deviation allowed from float64, in unit roundoffs of bfloat16: (maximum, RMS), as for the CPU.
EPSILON, ALLOWED = 2.0**-9, (16, 3)
KINDS = {"float32": np.float32, "float16": np.float16, "bfloat16": np.uint16}
Struct = (
    _native.CudaModel
    | _native.CudaRows
    | _native.CudaCall
    | _native.CudaTrainCall
    | _native.StepParams
    | _native.NoiseParams
)


def at(struct: Struct) -> ctypes.c_void_p:
    """Return where a struct of the extension lies: the emulated kernels read that very memory."""
    return ctypes.c_void_p(struct.address)


def canary(size: int) -> np.ndarray:
    """Return `size` bytes that start at a multiple of 256, all ones: NaN as any type of float."""
    room = np.full(size + 512, 0xFF, np.uint8)
    start = -room.ctypes.data % 256
    return room[start : start + size]


class Emulator:
    """The library of csrc/tests/emulated.cpp."""

    def __init__(self, path: Path) -> None:
        self.library = ctypes.CDLL(str(path))
        self.library.emulated_scratch.restype = ctypes.c_int64

    def sample(
        self,
        spec: SamplerSpec,
        labels: np.ndarray,
        tier: Tier,
        first_row: int = 0,
        *,
        dtype: str = "float32",
        slab: int = 256,
        multiprocessors: int = 2,
    ) -> np.ndarray:
        model, arrays = prepare(spec, tier)
        kept = []
        for name, array in arrays.items():
            if array.nbytes:
                kept.append(canary(array.nbytes))
                kept[-1][:] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
                setattr(model, name, kept[-1].ctypes.data)
        kind = np.dtype(KINDS[dtype])
        bytes_out = len(labels) * spec.dim * kind.itemsize
        out = canary(bytes_out + 256)
        scratch = canary(self.library.emulated_scratch(at(model), ctypes.c_int64(slab)))
        rows = _native.CudaRows(
            first_row=first_row, count=len(labels), labels=labels.ctypes.data, out=out.ctypes.data,
            out_dtype=OUTPUTS[dtype],
        )  # fmt: skip
        call = _native.CudaCall(
            model=model, rows=rows, tier=tier.code, slab=slab, scratch=scratch.ctypes.data
        )
        assert self.library.emulated_sample(at(call), multiprocessors) == 0
        assert (out[bytes_out:] == 0xFF).all(), "a write beyond the output"
        return out[:bytes_out].view(kind).reshape(len(labels), spec.dim)


def classes_of(spec: SamplerSpec, rows: int) -> np.ndarray:
    return np.random.default_rng(rows).integers(0, spec.num_classes, rows)


def check(emulator: Emulator, spec: SamplerSpec, tier: Tier, rows: int, first_row: int = 11) -> None:
    labels = classes_of(spec, rows)
    exact = reference.sample(spec, labels, first_row, precision=torch.float64).numpy()
    deviation = emulator.sample(spec, labels, tier, first_row) - exact
    amplified = EPSILON * max(1.0, np.abs(spec.rows.q).max())
    assert np.abs(deviation).max() < ALLOWED[0] * amplified * np.abs(exact).max()
    assert np.sqrt(np.mean(deviation**2) / np.mean(exact**2)) < ALLOWED[1] * amplified
