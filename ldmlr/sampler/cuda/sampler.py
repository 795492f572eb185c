"""`CudaSampler`: a model on a CUDA device, prepared once, that draws any number of rows."""

from __future__ import annotations

import dataclasses
import itertools
import weakref

import numpy as np
import numpy.typing as npt
import torch

from ldmlr import _native
from ldmlr import cuda_device as devices
from ldmlr.diffusion.tables import DenoiserTables, Tables
from ldmlr.errors import UsageError, nearest, opt
from ldmlr.sampler.cuda import tiers
from ldmlr.sampler.cuda.prepare import Arrays, prepare
from ldmlr.sampler.noise import check_counter
from ldmlr.sampler.spec import SamplerSpec

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
OUTPUTS = {
    "float32": _native.Dtype.float32,
    "float16": _native.Dtype.float16,
    "bfloat16": _native.Dtype.bfloat16,
}
ALIGNMENT = 256  # bytes
_keys = itertools.count(1)


def refuses(network: type[Tables], device: torch.device) -> str | None:
    """Return why the CUDA sampler cannot run models with such tables on a device, or None if it can."""
    reason = devices.unavailable(device)
    if reason is None and network is not DenoiserTables:
        return f"its AdaLN network normalises activations row by row; train with {opt('network', 'additive')}"
    return reason


@dataclasses.dataclass(frozen=True)
class _Plan:
    """Scratch memory of the layered kernels for one stream and slab, and the key of its graph."""

    scratch: torch.Tensor
    key: int


class CudaSampler:
    """A model on a CUDA device.

    Rows are computed on torch's current stream with torch's memory: calls return as soon as the work
    is queued. Weights and activations are bfloat16, sums and the state float32. A sampler whose calls
    were captured into a graph must live as long as the graph.

    Parameters
    ----------
    spec
        Denoiser, solver table, transform, guidance and seed.
    device
        A CUDA device; several samplers may use several devices.
    tier
        Kernels to run (`ldmlr.sampler.cuda.tiers`); None: the table's choice, or that of ``LDMLR_CUDA_TIER``.
    slab
        Rows that go through the layers together in the layered kernels, a multiple of 256; None:
        what fits the second-level cache.

    Attributes
    ----------
    device, tier
        What runs where.

    Raises
    ------
    UsageError
        The device or the model cannot be used, or the tier is not there.
    """

    def __init__(
        self,
        spec: SamplerSpec,
        device: torch.device | str = "cuda",
        *,
        tier: str | None = None,
        slab: int | None = None,
    ) -> None:
        where = torch.device(device)
        reason = refuses(type(spec.tables), where)
        if reason:
            raise UsageError(f"the CUDA sampler cannot run this: {reason}")
        self.device = devices.indexed(where)
        self.dim, self.num_classes = spec.dim, spec.num_classes
        tables = spec.tables
        assert isinstance(tables, DenoiserTables)
        guided = spec.guidance != 1
        self.tier = tiers.choose(
            spec.latent, len(tables.w_in), len(tables.w1), guided, devices.shared_limit(self.device), tier,
            wgmma=devices.has_wgmma(self.device),
        )  # fmt: skip
        if slab is not None and (slab < tiers.ROWS_MULTIPLE or slab % tiers.ROWS_MULTIPLE):
            raise UsageError(f"slab: expected a multiple of {tiers.ROWS_MULTIPLE}, not {slab}")
        self._slab = slab or tiers.largest_slab(self.tier, guided)
        self._model, arrays = prepare(spec, self.tier)
        self._memory = self._upload(arrays)
        self._streams = {devices.stream_of(self.device)}
        self._plans: dict[tuple[int, int], _Plan] = {}
        self._captured: list[torch.Tensor] = []

    def _upload(self, arrays: Arrays) -> torch.Tensor:
        """Put the arrays on the device, in one piece, and their addresses into the model."""
        offsets: dict[str, int] = {}
        size = 0
        for name, array in arrays.items():
            if array.nbytes:
                offsets[name], size = size, -(-(size + array.nbytes) // ALIGNMENT) * ALIGNMENT
        host = np.zeros(size, np.uint8)
        for name, offset in offsets.items():
            octets = np.ascontiguousarray(arrays[name]).reshape(-1).view(np.uint8)
            host[offset : offset + len(octets)] = octets
        memory = torch.from_numpy(host).to(self.device)
        for name, offset in offsets.items():
            setattr(self._model, name, memory.data_ptr() + offset)
        # The copy ran on the stream of this moment; later calls may use another.
        torch.cuda.current_stream(self.device).synchronize()
        return memory

    def __call__(
        self,
        labels: torch.Tensor | npt.NDArray[np.int64],
        first_row: int = 0,
        *,
        dtype: str = "float32",
        out: torch.Tensor | None = None,
        check: bool = True,
    ) -> torch.Tensor:
        """Draw one row per label; a row does not depend on the other rows of the call.

        Parameters
        ----------
        labels
            Class of each row, int64 ``[N]``, 0 .. C - 1, as an array or as a tensor on the device.
        first_row
            Global number of the first row.
        dtype
            Type of the result: ``float32``, ``float16`` or ``bfloat16``.
        out
            Tensor ``[N, D]`` of that type on the device to write to, contiguous.
        check
            Look whether all labels are of the model, which waits for the device if they are there.
            Without it a wrong label reads memory that is not a class. A stream that is being captured
            is never waited for: its labels are taken as they are.

        Returns
        -------
        Features ``[N, D]`` on the device; `out` if it was given.

        Raises
        ------
        UsageError
            Wrong labels, types, shapes or numbers.
        LdmlrError
            The CUDA runtime failed.
        """
        check_counter(0, first_row, len(labels), self.dim)
        if dtype not in DTYPES:
            raise UsageError(f"dtype: unknown value {dtype!r}; {nearest(dtype, DTYPES)}")
        with torch.cuda.device(self.device):
            capturing = torch.cuda.is_current_stream_capturing()
            classes = self._labels(labels, check, capturing)
            rows = self._out(len(classes), DTYPES[dtype], out)
            if len(classes):
                self._queue(classes, first_row, rows, OUTPUTS[dtype], capturing)
        return rows

    def _queue(
        self,
        labels: torch.Tensor,
        first_row: int,
        out: torch.Tensor,
        dtype: _native.Dtype,
        capturing: bool,
    ) -> None:
        rows = _native.CudaRows(
            first_row=first_row, count=len(labels), labels=labels.data_ptr(), out=out.data_ptr(),
            out_dtype=dtype,
        )  # fmt: skip
        stream = devices.stream_of(self.device)
        if stream not in self._streams and not capturing:
            # Should the sampler go while its rows are still being drawn, its memory stays that long.
            self._memory.record_stream(torch.cuda.current_stream(self.device))
            self._streams.add(stream)
        call = _native.CudaCall(
            model=self._model, rows=rows, tier=self.tier.code, device=self.device.index, stream=stream
        )
        if not self.tier.fused:
            call.slab, plan = self._room(stream, len(labels), capturing)
            call.scratch, call.graph_key = plan.scratch.data_ptr(), plan.key
        devices.checked(_native.cuda_sample, call)

    def _room(self, stream: int, rows: int, capturing: bool) -> tuple[int, _Plan]:
        """Return slab and scratch for some rows; where the device's memory is short, smaller slabs do."""
        while True:
            slab = tiers.slab_for(rows, self._slab)
            try:
                return slab, self._plan(stream, slab, capturing)
            except torch.OutOfMemoryError:
                if slab <= tiers.SLAB_SMALLEST or slab // 2 % tiers.ROWS_MULTIPLE:
                    raise
                self._slab = slab // 2

    def _plan(self, stream: int, slab: int, capturing: bool) -> _Plan:
        plan = None if capturing else self._plans.get((stream, slab))
        if plan is None:
            size = _native.cuda_scratch_bytes(self._model, slab)
            plan = _Plan(torch.empty(size, dtype=torch.uint8, device=self.device), next(_keys))
            if capturing:
                # The caller's graph writes there whenever it is replayed, as long as this sampler lives.
                self._captured.append(plan.scratch)
            else:
                self._plans[stream, slab] = plan
                weakref.finalize(self, _native.cuda_forget, plan.key).atexit = False
        return plan

    def _labels(
        self, labels: torch.Tensor | npt.NDArray[np.int64], check: bool, capturing: bool
    ) -> torch.Tensor:
        if isinstance(labels, np.ndarray):
            if capturing:
                raise UsageError("labels: while a graph is captured, give a tensor on the device")
            if labels.dtype != np.int64 or labels.ndim != 1:
                raise UsageError("labels: expected int64 [N]; pass labels.astype(np.int64)")
            self._check(labels)
            return torch.from_numpy(np.ascontiguousarray(labels)).to(self.device)
        if labels.dtype != torch.int64 or labels.ndim != 1 or not labels.is_contiguous():
            raise UsageError(
                "labels: expected a contiguous int64 tensor [N]; pass labels.long().contiguous()"
            )
        if labels.device != self.device:
            raise UsageError(f"labels: are on {labels.device}, the sampler on {self.device}; move them there")
        if check and not capturing:
            self._check(labels)
        return labels

    def _check(self, labels: torch.Tensor | npt.NDArray[np.int64]) -> None:
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < self.num_classes:
            raise UsageError(f"labels: expected 0 .. {self.num_classes - 1} of this model")

    def _out(self, count: int, dtype: torch.dtype, out: torch.Tensor | None) -> torch.Tensor:
        shape = (count, self.dim)
        if out is None:
            return torch.empty(shape, dtype=dtype, device=self.device)
        if out.shape != shape or out.dtype != dtype or out.device != self.device or not out.is_contiguous():
            raise UsageError(f"out: expected a contiguous {dtype} tensor {list(shape)} on {self.device}")
        if out.data_ptr() % 16:
            raise UsageError("out: must start at a multiple of 16 bytes; pass a tensor of its own")
        return out
