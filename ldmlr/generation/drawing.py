"""On CUDA: drawing the next part of the rows while the caller still writes the last."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ldmlr.generation.generators.diffusion import Diffusion
from ldmlr.generation.plan import Counts, labels_of
from ldmlr.generation.prepare import Generation
from ldmlr.sampler.backends import Sampler
from ldmlr.sampler.widen import widen

if TYPE_CHECKING:
    from ldmlr.sampler.cuda.sampler import CudaSampler

Range = tuple[int, int]


class OnDevice:
    """The rows of some ranges of global row numbers of a plan, float32, in turn.

    Parameters
    ----------
    sampler
        A diffusion model, prepared for CUDA.
    on_cuda
        Its sampler on the device.
    plan
        Rows per class ``[C]``.

    Attributes
    ----------
    device_wait
        Share of the time in which the device had nothing to compute; None before the rows are drawn.
    """

    def __init__(self, sampler: Sampler, on_cuda: CudaSampler, plan: Counts) -> None:
        self.sampler, self.on_cuda, self.plan = sampler, on_cuda, plan
        self.device_wait: float | None = None

    @classmethod
    def of(cls, generation: Generation) -> OnDevice | None:
        """Return how a generation is drawn on a device; None if nothing draws there, or rows are judged."""
        if generation.gate is not None or not isinstance(generation.generator, Diffusion):
            return None
        sampler = generation.generator.sampler(generation.seed)
        return None if sampler.on_cuda is None else cls(sampler, sampler.on_cuda, generation.plan)

    def __call__(self, ranges: list[Range]) -> Iterator[tuple[Range, npt.NDArray[np.float32]]]:
        """Yield the rows of each range; they are valid until the next range is asked for."""
        from ldmlr.sampler.cuda.overlap import Pipeline

        pipeline = Pipeline(self.on_cuda, max(high - low for low, high in ranges))
        requests = ((low, labels_of(self.plan, low, high)) for low, high in ranges)
        for (low, high), (_, rows) in zip(ranges, pipeline(requests), strict=True):
            yield (low, high), widen(self.sampler.spec, rows.numpy(), labels_of(self.plan, low, high))
        self.device_wait = 1 - pipeline.busy / pipeline.elapsed
