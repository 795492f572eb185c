"""Drawing one part of the rows after the other; on CUDA the next while the caller writes the last."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from ldmlr.generation.plan import Counts, labels_of
from ldmlr.sampler.backends import Sampler
from ldmlr.sampler.cuda.overlap import Pipeline
from ldmlr.sampler.cuda.sampler import CudaSampler
from ldmlr.sampler.widen import widen

Range = tuple[int, int]
Floats = npt.NDArray[np.float32]
# (labels, global number of the first row) -> rows
Draw = Callable[[npt.NDArray[np.int64], int], Floats]


class Drawing:
    """The rows of some ranges of global row numbers of a plan, float32, in turn.

    Parameters
    ----------
    sampler
        From `ldmlr.sampler.backends.prepare`.
    plan
        Rows per class ``[C]``.
    draw
        How to draw a part, if not plainly from the sampler.

    Attributes
    ----------
    device_wait
        Share of the time in which the CUDA device had nothing to compute; None where that is not known.
    """

    def __init__(self, sampler: Sampler, plan: Counts, draw: Draw | None = None) -> None:
        self.sampler, self.plan, self.draw = sampler, plan, draw
        self.device_wait: float | None = None

    def __call__(self, ranges: list[Range]) -> Iterator[tuple[Range, Floats]]:
        """Yield the rows of each range; they are valid until the next range is asked for."""
        on_cuda = self.sampler.on_cuda
        if on_cuda is not None and self.draw is None and ranges:
            yield from self._overlapped(on_cuda, ranges)
            return
        for low, high in ranges:
            labels = labels_of(self.plan, low, high)
            if self.draw is not None:
                yield (low, high), self.draw(labels, low)
            else:
                yield (low, high), self.sampler(labels, low).numpy()

    def _overlapped(self, sampler: CudaSampler, ranges: list[Range]) -> Iterator[tuple[Range, Floats]]:
        pipeline = Pipeline(sampler, max(high - low for low, high in ranges))
        requests = ((low, labels_of(self.plan, low, high)) for low, high in ranges)
        for (low, high), (_, rows) in zip(ranges, pipeline(requests), strict=True):
            yield (low, high), widen(self.sampler.spec, rows, labels_of(self.plan, low, high)).numpy()
        self.device_wait = 1 - pipeline.busy / pipeline.elapsed
