"""The CUDA trainer of stage 2: beside the trainer of the CPU, and how long a training takes."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch

from ldmlr.bench.table import Row
from ldmlr.bench.train import BATCH, RECIPE, random_rows
from ldmlr.diffusion import fused, fused_state
from ldmlr.diffusion.config import DiffusionConfig
from ldmlr.diffusion.fused_cuda import GRAPH_STEPS, CudaSteps
from ldmlr.diffusion.train import train

# (K, H) that are measured, and the seconds in which the first should train.
SIZES, TARGET = (RECIPE, (64, 512), (512, 512)), 0.5


def rows(
    device: torch.device,
    sizes: tuple[tuple[int, int], ...] = SIZES,
    *,
    compared: int = 60,
    steps: int = 1500,
    reference: int = 200,
    batch: int = BATCH,
    repeats: int = 5,
) -> Iterator[Row]:
    """Yield agreement with the CPU, that of graphs with single launches, and times, for each size.

    Parameters
    ----------
    device
        A CUDA device.
    sizes
        K and H of each.
    compared, steps, reference
        Steps beside the CPU, of a training that is timed, and of one of PyTorch.
    batch
        Rows of a batch.
    repeats
        Times of which the median counts.
    """
    for number, (dim, hidden) in enumerate(sizes):
        what = {"dim": dim, "hidden": hidden, "batch": batch, "isa": "cuda"}
        short = _Training(device, dim, hidden, batch, compared)
        on_cpu, by_graph, one_by_one = short.on_cpu(), short.run(GRAPH_STEPS), short.run(0)
        difference = by_graph.state[0] - on_cpu.state[0]
        yield {
            **what, "what": f"weights of {compared} steps beside the CPU",
            "error_rms": float(np.sqrt(np.mean(difference**2) / np.mean(on_cpu.state[0] ** 2))),
            "error_max": float(np.abs(difference).max()),
        }  # fmt: skip
        equal = np.array_equal(by_graph.state, one_by_one.state)
        again = np.array_equal(by_graph.state, short.run(GRAPH_STEPS).state)
        same = {"as_single_launches": equal, "as_before": again}
        yield {**what, "what": f"bits of a graph: {'the same' if equal and again else 'DIFFER'}", **same}
        whole = _Training(device, dim, hidden, batch, steps)
        target = TARGET if number == 0 else None
        for graph_steps in (GRAPH_STEPS, 0):
            taken = _median(partial(whole.run, graph_steps), repeats)
            name = f"in graphs of {graph_steps}" if graph_steps else "kernel by kernel"
            yield {
                **what, "what": f"{steps} steps, {name}", "seconds": taken,
                "milliseconds": 1e3 * taken / steps, "target": target,
            }  # fmt: skip
            target = None
        eager = _median(_Training(device, dim, hidden, batch, reference).by_torch, min(repeats, 3))
        yield {
            **what, "what": f"{reference} steps of PyTorch, eager", "isa": "torch",
            "milliseconds": 1e3 * eager / reference,
        }  # fmt: skip


def _median(work: Callable[[], object], repeats: int) -> float:
    """Return the median of the seconds that some work takes, after a warm-up; it waits for the device."""
    work()
    found = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        found.append(time.perf_counter() - start)
    return statistics.median(found)


class _Training:
    """A training of some steps on random rows."""

    def __init__(self, device: torch.device, dim: int, hidden: int, batch: int, steps: int) -> None:
        self.device, self.data, self.importance = device, random_rows(dim), np.ones(dim)
        self.config = DiffusionConfig(hidden=hidden, batch_size=batch, iterations=steps)
        self.cuda = CudaSteps(self.config, *self.data, self.importance, 0, str(device))

    def run(self, graph_steps: int) -> fused_state.State:
        """Return the state at the end."""
        self.cuda.graph_steps = graph_steps
        state = self.cuda.start(self.config)
        self.cuda.advance(self.config, state, self.config.steps)
        return state

    def on_cpu(self) -> fused_state.State:
        """Return the state at the end of the same training on the CPU."""
        steps = fused.Steps(self.config, *self.data, self.importance, 0, "float32")
        state = steps.start(self.config)
        steps.advance(self.config, state, self.config.steps)
        return state

    def by_torch(self) -> None:
        """Train by PyTorch."""
        train(self.config, *self.data, seed=0, device=self.device)
