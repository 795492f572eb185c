"""Rows to the host while the next ones are computed: pinned double buffers, copies on their own stream."""

from __future__ import annotations

import collections
import dataclasses
import time
from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt
import torch

from ldmlr.sampler.cuda.sampler import DTYPES, CudaSampler

# (global number of the first row, labels)
Request = tuple[int, npt.NDArray[np.int64]]


@dataclasses.dataclass
class _Slot:
    """Buffers of one part: labels and rows, on the host (pinned) and on the device."""

    host_labels: torch.Tensor
    labels: torch.Tensor
    rows: torch.Tensor
    host_rows: torch.Tensor
    began: torch.cuda.Event
    computed: torch.cuda.Event
    copied: torch.cuda.Event


class Pipeline:
    """Draws parts of rows, each computed while the caller still works on the one before.

    Parameters
    ----------
    sampler
        The model on its device.
    rows
        Rows of the largest part.
    dtype
        ``float32``, ``float16`` or ``bfloat16``.

    Attributes
    ----------
    busy, elapsed
        Seconds in which the device computed, and seconds from the first request to the last row.
    """

    def __init__(self, sampler: CudaSampler, rows: int, dtype: str = "float32") -> None:
        self.sampler, self.dtype = sampler, dtype
        self.busy = self.elapsed = 0.0
        self._compute = torch.cuda.Stream(sampler.device)  # type: ignore[no-untyped-call]
        self._copy = torch.cuda.Stream(sampler.device)  # type: ignore[no-untyped-call]
        self._slots = [self._slot(rows), self._slot(rows)]

    def _slot(self, rows: int) -> _Slot:
        device, kind = self.sampler.device, DTYPES[self.dtype]
        shape = (rows, self.sampler.dim)
        return _Slot(
            torch.empty(rows, dtype=torch.int64, pin_memory=True),
            torch.empty(rows, dtype=torch.int64, device=device),
            torch.empty(shape, dtype=kind, device=device),
            torch.empty(shape, dtype=kind, pin_memory=True),
            torch.cuda.Event(enable_timing=True),  # type: ignore[no-untyped-call]
            torch.cuda.Event(enable_timing=True),  # type: ignore[no-untyped-call]
            torch.cuda.Event(),  # type: ignore[no-untyped-call]
        )

    def __call__(self, requests: Iterable[Request]) -> Iterator[tuple[int, torch.Tensor]]:
        """Yield (global number of the first row, rows ``[n, D]`` on the host) for each request.

        The rows are a view of a buffer that is written again once the next rows are asked for.
        """
        start = time.perf_counter()
        # The buffers were allocated on the stream of the caller.
        self._compute.wait_stream(torch.cuda.current_stream(self.sampler.device))
        waiting: collections.deque[tuple[int, int, _Slot]] = collections.deque()
        try:
            for number, (first_row, labels) in enumerate(requests):
                slot = self._slots[number % 2]
                self._start(slot, first_row, labels)
                waiting.append((first_row, len(labels), slot))
                if len(waiting) == 2:
                    yield self._finish(*waiting.popleft())
            while waiting:
                yield self._finish(*waiting.popleft())
        finally:
            # Given up early, the buffers must not be freed, and used again, while they are written.
            self._compute.synchronize()
            self._copy.synchronize()
        self.elapsed += time.perf_counter() - start

    def _start(self, slot: _Slot, first_row: int, labels: npt.NDArray[np.int64]) -> None:
        count = len(labels)
        slot.host_labels[:count] = torch.from_numpy(labels)
        with torch.cuda.stream(self._compute):
            slot.labels[:count].copy_(slot.host_labels[:count], non_blocking=True)
            slot.began.record()
            self.sampler(slot.labels[:count], first_row, dtype=self.dtype, out=slot.rows[:count], check=False)
            slot.computed.record()
        self._copy.wait_event(slot.computed)
        with torch.cuda.stream(self._copy):
            slot.host_rows[:count].copy_(slot.rows[:count], non_blocking=True)
            slot.copied.record()

    def _finish(self, first_row: int, count: int, slot: _Slot) -> tuple[int, torch.Tensor]:
        slot.copied.synchronize()
        self.busy += slot.began.elapsed_time(slot.computed) * 1e-3
        return first_row, slot.host_rows[:count]
