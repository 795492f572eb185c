"""The compiled sampler: all denoising steps of a tile of rows in one call of the extension.

`NativeSampler` prepares a model once (weights in the units and the order in which the kernels
read them; csrc/params.h) and then draws any number of rows. It needs no torch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from ldmlr import _native
from ldmlr import isa as cpu
from ldmlr.diffusion.tables import DenoiserTables, Tables
from ldmlr.errors import UsageError, nearest, opt
from ldmlr.processor import number_type
from ldmlr.sampler.cpu.int8 import activation_ranges
from ldmlr.sampler.noise import check_counter
from ldmlr.sampler.spec import SamplerSpec
from ldmlr.sampler.units import KAPPA, kernel_tables

ALIGNMENT = 64
WEIGHTS = {
    "float32": _native.Dtype.float32,
    "bfloat16": _native.Dtype.bfloat16,
    "int8": _native.Dtype.int8,
}
# bfloat16, which NumPy lacks, is returned as its bit patterns.
OUTPUTS: dict[str, tuple[_native.Dtype, type[Any]]] = {
    "float32": (_native.Dtype.float32, np.float32),
    "float16": (_native.Dtype.float16, np.float16),
    "bfloat16": (_native.Dtype.bfloat16, np.uint16),
}

Floats = npt.NDArray[np.float32]


def build_info() -> dict[str, str]:
    """Return how the extension was built and which kernels run on this processor."""
    sets = cpu.instruction_sets()
    return {
        "compiler": _native.compiler,
        "instruction_sets": " ".join(entry.name for entry in sets),
        "available": " ".join(entry.name for entry in sets if entry.available),
        "chosen": cpu.choose().name,
        "cuda": " ".join(f"sm_{arch}" for arch in _native.cuda_architectures.split()) or "not built",
    }


def refuses(network: type[Tables]) -> str | None:
    """Return why the native sampler cannot run models with such tables, or None if it can."""
    if network is not DenoiserTables:
        return f"its AdaLN network normalises activations row by row; train with {opt('network', 'additive')}"
    return None


class NativeSampler:
    """A model prepared for the compiled sampler.

    Parameters
    ----------
    spec
        Denoiser, solver table, transform, guidance and seed.
    weights
        ``float32``, ``bfloat16``, ``int8`` or ``auto``: bfloat16 where this processor multiplies it faster
        than float32 (`ldmlr.processor`).
        int8 rounds weights and activations to 8 bits, with ranges measured on a draw of its own.
    isa
        Instruction set; None: the fastest, or that of ``LDMLR_ISA``.

    Attributes
    ----------
    isa, weights
        What runs.

    Raises
    ------
    UsageError
        The network is not additive, or the instruction set or the type of the weights is not there.
    """

    def __init__(self, spec: SamplerSpec, *, weights: str = "auto", isa: str | None = None) -> None:
        reason = refuses(type(spec.tables))
        if reason:
            raise UsageError(f"the native sampler cannot run this model: {reason}")
        chosen = cpu.choose(isa)
        if weights not in (*WEIGHTS, "auto"):
            raise UsageError(
                f"{opt('weights')}: unknown value {weights!r}; {nearest(weights, (*WEIGHTS, 'auto'))}"
            )
        if weights in ("bfloat16", "int8") and not getattr(chosen, weights):
            other = number_type(chosen).name
            raise UsageError(f"{opt('weights')}: {chosen.name} has no {weights} products; use {other}")
        if weights == "auto":
            weights = number_type(chosen).name
        self.isa, self.weights = chosen.name, weights
        self.dim, self.num_classes = spec.dim, spec.num_classes
        self._arrays: list[npt.NDArray[Any]] = []  # what the addresses below point into
        self._params = _native.SampleParams()
        self._params.net = self._network(spec)
        self._params.transform = self._transform(spec)
        self._params.steps = self._keep(spec.rows.table())
        self._params.num_steps = len(spec.rows)
        self._params.guidance = spec.guidance
        if spec.gain is not None:
            self._params.gain = self._keep(spec.gain)
        self._params.seed = spec.seed

    def __call__(
        self,
        labels: npt.NDArray[np.int64],
        first_row: int = 0,
        *,
        threads: int = 1,
        dtype: str = "float32",
        progress: Callable[[int], object] | None = None,
    ) -> npt.NDArray[Any]:
        """Draw one row per label; a row does not depend on the other rows of the call.

        Parameters
        ----------
        labels
            Class of each row, int64 ``[N]`` in C order, 0 .. C - 1.
        first_row
            Global number of the first row.
        threads
            Threads for this call; none is alive after it.
        dtype
            Type of the result: ``float32``, ``float16`` or ``bfloat16`` (as uint16).
        progress
            Called now and then, about every 50 ms, with the number of rows drawn so far. An
            exception it raises, or Ctrl-C, ends the call.

        Returns
        -------
        Features ``[N, D]``.

        Raises
        ------
        UsageError
            Wrong labels, an unknown type, or numbers out of range.
        """
        check_counter(0, first_row, len(labels), self.dim)
        if dtype not in OUTPUTS:
            raise UsageError(f"dtype: unknown value {dtype!r}; {nearest(dtype, OUTPUTS)}")
        if threads < 1:
            raise UsageError(f"threads: must be at least 1, not {threads}")
        if labels.dtype != np.int64 or labels.ndim != 1 or not labels.flags.c_contiguous:
            raise UsageError(
                "labels: expected int64 [N] in C order; pass np.ascontiguousarray(labels, np.int64)"
            )
        code, kind = OUTPUTS[dtype]
        out = np.empty((len(labels), self.dim), kind)
        if not len(labels):
            return out
        if labels.min() < 0 or labels.max() >= self.num_classes:
            raise UsageError(f"labels: expected 0 .. {self.num_classes - 1} of this model")
        params = _native.SampleParams(self._params)
        params.first_row, params.rows = first_row, len(labels)
        params.labels, params.out, params.out_dtype = labels.ctypes.data, out.ctypes.data, code
        threads = min(threads, len(labels))
        weights = WEIGHTS[self.weights]
        scratch = np.empty(_native.sample_scratch(self.isa, params.net, weights, threads), np.uint8)
        _native.sample(self.isa, params, weights, threads, scratch.ctypes.data, progress)
        return out

    def _network(self, spec: SamplerSpec) -> _native.Denoiser:
        tables = spec.tables
        assert isinstance(tables, DenoiserTables)
        hidden, latent = tables.w_in.shape
        net = _native.Denoiser()
        net.latent, net.hidden, net.layers = latent, hidden, len(tables.w1)
        net.classes = len(tables.bias_class) - 1
        net.folded = int(latent < hidden)
        w = kernel_tables(tables, latent < hidden)
        factors = self._factors(spec)
        net.quantise = self._keep(factors)
        of_h, of_u = factors[1:-1:2], factors[2:-1:2]
        net.input = self._pack(w.input, factors=factors[:1])
        net.first = self._pack(w.first, factors=factors[:1] if net.folded else of_h[:1])
        net.w1, net.w2 = self._pack(*w.w1, factors=of_h[1:]), self._pack(*w.w2, factors=of_u)
        net.output = self._pack(w.output, factors=factors[-1:])
        net.b_in, net.b2, net.b_out = self._pad(w.b_in), self._pad(w.b2), self._pad(w.b_out)
        net.bias_step, net.bias_class = self._pad(w.bias_step), self._pad(w.bias_class)
        return net

    def _transform(self, spec: SamplerSpec) -> _native.Transform:
        transform = _native.Transform(dim=spec.dim, triangular=int(spec.triangular))
        transform.mean = self._pad(spec.mean)
        transform.floor = self._pad(np.broadcast_to(spec.floor, spec.dim))
        scale = spec.k * spec.scale
        if scale.ndim == 2:
            transform.matrix = self._pack(scale, weights="float32")
        else:
            transform.diagonal = self._pad(scale)
        if spec.psi is not None:
            transform.psi = self._pad(spec.k * spec.psi)
        if spec.bend is not None:
            transform.slope, transform.curve = self._pad(spec.bend[0]), self._pad(spec.bend[1])
        return transform

    def _factors(self, spec: SamplerSpec) -> npt.NDArray[np.float32]:
        """Return the factors that make operands integers of int8 ``[2 L + 2]``; ones for other types."""
        assert isinstance(spec.tables, DenoiserTables)
        if self.weights != "int8":
            return np.ones(2 * len(spec.tables.w1) + 2, np.float32)
        ranges = activation_ranges(spec)
        ranges[1:] *= abs(KAPPA)  # all but x are in the kernels' units
        return (127 / ranges).astype(np.float32)

    def _keep(self, array: npt.NDArray[np.floating]) -> int:
        """Return the address of a float32 copy that lives as long as the sampler."""
        kept = np.ascontiguousarray(array, np.float32)
        self._arrays.append(kept)
        return int(kept.ctypes.data)

    def _pad(self, array: npt.NDArray[np.floating]) -> int:
        """Return the address of a float32 copy whose last dimension is padded with zeros."""
        width = -(-array.shape[-1] // _native.padding) * _native.padding
        copy = np.zeros((*array.shape[:-1], width), np.float32)
        copy[..., : array.shape[-1]] = array
        return self._keep(copy)

    def _pack(
        self,
        *matrices: npt.NDArray[np.floating],
        weights: str | None = None,
        factors: npt.NDArray[np.float32] | None = None,
    ) -> int:
        """Return the address of matrices [outputs, inputs] of one shape, packed one after the other.

        ``factors`` are those of the inputs of each matrix, for int8.
        """
        if not matrices:
            return 0
        kind = WEIGHTS[weights or self.weights]
        outputs, inputs = matrices[0].shape
        size = _native.packed_size(outputs, inputs, kind)
        buffer = np.empty(size * len(matrices) + ALIGNMENT, np.uint8)
        self._arrays.append(buffer)
        address = int(-(-buffer.ctypes.data // ALIGNMENT) * ALIGNMENT)
        for number, matrix in enumerate(matrices):
            source = np.ascontiguousarray(matrix, np.float32)
            target = address + number * size
            factor = 1.0 if factors is None else float(factors[number])
            _native.pack(self.isa, source.ctypes.data, outputs, inputs, kind, factor, target)
        return address
