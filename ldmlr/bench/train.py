"""The part ``train`` of ``ldmlr bench``: steps of stage 2, beside the multiply-add peak and PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch

from ldmlr import _native, isa
from ldmlr.bench.parts import Row, Settings
from ldmlr.bench.timing import Work, pair
from ldmlr.bench.torch_trainer import TorchTrainer
from ldmlr.diffusion import course
from ldmlr.diffusion.config import DiffusionConfig
from ldmlr.diffusion.fused import PRODUCTS, SHARE, Steps
from ldmlr.diffusion.weights import TIME_FEATURES
from ldmlr.processor import vector_products
from ldmlr.text import table

# Multiply-adds of one timed call on one thread: about a third of a second at 250 GFLOP/s.
CALL = 4e10
# The share of it that a quick run does, and its runs per figure.
QUICK, QUICK_REPEATS = 0.2, 3
RECIPE, LARGE = (64, 128), (512, 512)
CLASSES, ROWS, BATCH = 10, 12_406, 512


def jobs(settings: Settings) -> list[Callable[[], Row]]:
    """Return the measurements, each giving one row of the benchmark table."""
    torch.set_num_threads(settings.threads)
    repeats, threads, share = settings.repeats, settings.threads, 1.0
    sizes: tuple[tuple[int, int], ...] = (RECIPE, LARGE)
    types = ["float32", *(["bfloat16"] if isa.choose().bfloat16 else [])]
    if settings.quick:
        sizes, types, share = (RECIPE,), [vector_products("auto", isa.choose())], QUICK
        repeats = min(repeats, QUICK_REPEATS)
    compiled = settings.compiled and not settings.quick
    found: list[Callable[[], Row]] = []
    for size in sizes:
        for precision in types:
            few = max(1, repeats // 2)
            found.append(partial(share_of_peak, *size, precision, repeats, share))
            found.append(partial(against_torch, *size, precision, threads, few, share=share))
            if compiled:
                found.append(partial(against_torch, *size, precision, threads, few, compiled=True))
            if threads > 1:
                found.append(partial(scaling, *size, precision, threads, repeats, share))
    return found


def operations_per_step(config: DiffusionConfig, latent: int, share: int = SHARE) -> int:
    """Return the fewest operations of a step, a multiply-add counted as two.

    Three products of every matrix, of which the first ones need no gradient of their inputs; those of times
    once per time.

    Parameters
    ----------
    config
        Network and batch.
    latent
        Numbers of a row K.
    share
        Rows that share a time.
    """
    hidden, layers, batch = config.hidden, config.layers, config.batch_size
    first, times = latent * hidden, TIME_FEATURES * hidden
    rows = 3 * (2 * first + 2 * layers * hidden**2) - first
    return 2 * (batch * rows + -(-batch // share) * (3 * (times + layers * hidden**2) - times))


def share_of_peak(dim: int, hidden: int, precision: str, repeats: int, share: float = 1.0) -> Row:
    """Return the steps on one thread beside multiply-adds on registers alone."""
    work, steps, config = _work(dim, hidden, precision, 1, share)
    operations = operations_per_step(config, dim)

    def peak() -> float:
        return _native.peak(steps.isa, PRODUCTS[precision], int(share * CALL / 4000))

    found = pair(work, peak, repeats)
    ceiling = found.second * 1e-9
    return _row(
        "share of the multiply-add peak", steps, config, 1, found.first,
        ceiling_gflop_per_s=ceiling, fraction=found.ratio * operations,
    )  # fmt: skip


def against_torch(
    dim: int,
    hidden: int,
    precision: str,
    threads: int,
    repeats: int,
    compiled: bool = False,
    share: float = 1.0,
) -> Row:
    """Return the steps beside those of PyTorch: eager float32, or a compiled step of the same type."""
    work, steps, config = _work(dim, hidden, precision, threads, share)
    short = compiled and precision == "bfloat16"
    baseline = TorchTrainer(config, *random_rows(dim), compiled=compiled, autocast=short)
    count = max(2, int(0.1 * share * CALL * threads / operations_per_step(config, dim)))

    def other() -> float:
        baseline.advance(count)
        return float(count)

    found = pair(work, other, repeats)
    name = f"{'torch.compile' if compiled else 'eager'} {'bfloat16' if short else 'float32'}"
    return _row(
        f"against {name}", steps, config, threads, found.first,
        baseline_steps_per_s=found.second, times=found.ratio,
    )  # fmt: skip


def scaling(dim: int, hidden: int, precision: str, threads: int, repeats: int, share: float = 1.0) -> Row:
    """Return what several threads gain over one."""
    many, steps, config = _work(dim, hidden, precision, threads, share)
    one, _, _ = _work(dim, hidden, precision, 1, share)
    found = pair(many, one, repeats)
    return _row(f"{threads} threads against one", steps, config, threads, found.first, times=found.ratio)


def random_rows(dim: int) -> tuple[Any, Any, Any]:
    """Return rows in two places per dimension, so that there is something to learn, labels and counts."""
    random = np.random.default_rng(0)
    z = random.standard_normal((ROWS, dim)) / 3 + random.choice([-0.9, 0.9], (ROWS, dim))
    labels = np.arange(ROWS) % CLASSES
    return z.astype(np.float32), labels, np.bincount(labels)


def _work(
    dim: int, hidden: int, precision: str, threads: int, share: float = 1.0
) -> tuple[Work, Steps, DiffusionConfig]:
    """Return steps of a training, the training, and its configuration; `share` is of a full call's steps."""
    # A low rate: the training goes on for as long as it is measured.
    config = DiffusionConfig(
        hidden=hidden, batch_size=BATCH, lr=1e-4, warmup_iterations=0, iterations=200_000
    )
    steps = Steps(config, *random_rows(dim), np.ones(dim), 0, precision, threads)
    state = steps.start(config)
    slow = {"baseline": 0.1, "avx2": 0.4}.get(steps.isa, 1.0)
    count = max(
        course.REPORT_EVERY // 10, int(slow * share * threads * CALL / operations_per_step(config, dim))
    )

    def work() -> float:
        if state.done + count > config.steps:
            state.done = 0
        steps.advance(config, state, state.done + count)
        return float(count)

    return work, steps, config


def _row(
    what: str, steps: Steps, config: DiffusionConfig, threads: int, steps_per_s: float, **more: Any
) -> Row:
    latent = int(steps.params.latent)
    row: Row = {
        "what": what, "backend": "native", "isa": steps.isa, "dtype": steps.products, "dim": latent,
        "hidden": config.hidden, "layers": config.layers, "batch": config.batch_size, "threads": threads,
        "steps_per_s": steps_per_s,
        "gflop_per_s": steps_per_s * operations_per_step(config, latent) * 1e-9,
        "ceiling_gflop_per_s": None, "fraction": None, "baseline_steps_per_s": None, "times": None,
    }  # fmt: skip
    return {**row, **more}


def text(rows: list[Row]) -> str:
    """Return the table for people."""
    forms = {
        "what": "", "isa": "", "dtype": "", "dim": "d", "hidden": "d", "batch": "d", "threads": "d",
        "steps_per_s": ",.0f", "gflop_per_s": ".0f", "ceiling_gflop_per_s": ".0f", "fraction": ".0%",
        "baseline_steps_per_s": ",.0f", "times": ".2f",
    }  # fmt: skip
    heads = ["what", "isa", "type", "K", "H", "batch", "thr", "steps/s", "GFLOP/s", "ceiling", "share"]
    cells = [
        ["" if row[name] is None else format(row[name], form) for name, form in forms.items()] for row in rows
    ]
    return table([*heads, "baseline", "times"], cells)
