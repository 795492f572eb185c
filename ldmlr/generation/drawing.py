"""On CUDA: drawing the next part of the rows while the caller still writes the last."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from functools import partial

from ldmlr.generation.generators.diffusion import Diffusion
from ldmlr.generation.plan import Counts, labels_of
from ldmlr.generation.prepare import Generation
from ldmlr.generation.side_by_side import Drawn, Range, side_by_side
from ldmlr.sampler.backends import Sampler
from ldmlr.sampler.widen import widen


class OnDevice:
    """The rows of some ranges of global row numbers of a plan, float32, in turn.

    Parameters
    ----------
    samplers
        A diffusion model, prepared for one CUDA device or several, which take the ranges by turns.
    plan
        Rows per class ``[C]``.

    Attributes
    ----------
    device_wait
        Share of the time in which the devices had nothing to compute; None before the rows are drawn.
    """

    def __init__(self, samplers: Sequence[Sampler], plan: Counts) -> None:
        self.samplers, self.plan = samplers, plan
        self.device_wait: float | None = None

    @classmethod
    def of(cls, generation: Generation) -> OnDevice | None:
        """Return how a generation is drawn on devices; None if nothing draws there, or rows are judged."""
        if generation.gate is not None or not isinstance(generation.generator, Diffusion):
            return None
        samplers = generation.generator.samplers(generation.seed)
        return None if samplers[0].on_cuda is None else cls(samplers, generation.plan)

    def __call__(self, ranges: list[Range]) -> Iterator[Drawn]:
        """Yield the rows of each range; they are valid until the next range is asked for."""
        used = self.samplers[: len(ranges)]
        times = [[0.0, 0.0] for _ in used]
        workers = [partial(self._drawn, sampler, spent) for sampler, spent in zip(used, times, strict=True)]
        yield from workers[0](ranges) if len(workers) == 1 else side_by_side(ranges, workers)
        busy, elapsed = map(sum, zip(*times, strict=True))
        self.device_wait = 1 - busy / elapsed

    def _drawn(
        self, sampler: Sampler, spent: list[float], ranges: list[Range]
    ) -> Generator[Drawn, None, None]:
        """Yield the rows of ranges that one device draws, on its streams, and note its time at the end."""
        from ldmlr.sampler.cuda.overlap import Pipeline

        assert sampler.on_cuda is not None
        pipeline = Pipeline(sampler.on_cuda, max(high - low for low, high in ranges))
        requests = ((low, labels_of(self.plan, low, high)) for low, high in ranges)
        for (low, high), (_, rows) in zip(ranges, pipeline(requests), strict=True):
            yield (low, high), widen(sampler.spec, rows.numpy(), labels_of(self.plan, low, high))
        spent[:] = pipeline.busy, pipeline.elapsed
