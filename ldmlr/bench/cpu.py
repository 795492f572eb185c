"""The native sampler beside its ceilings and the PyTorch baselines."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch

from ldmlr import _native
from ldmlr import isa as sets
from ldmlr.bench import peers
from ldmlr.bench.models import operations_per_row, random_labels, random_spec
from ldmlr.bench.table import Row, table_row
from ldmlr.bench.timing import Work, pair, shortest
from ldmlr.bench.torch_sampler import TorchSampler, product
from ldmlr.processor import number_type
from ldmlr.sampler.cpu.sampler import WEIGHTS, NativeSampler
from ldmlr.sampler.spec import SamplerSpec

# Operations of one timed call on one thread: about a third of a second at 250 GFLOP/s.
CALL = 8e10
# The share of it that a quick run does.
QUICK = 0.1
# The published code on two cores (timed once, not here): 1,024 rows in 1,793 s, by 1,000 evaluations each.
PUBLISHED_ROWS_PER_S, PUBLISHED_EVALUATIONS = 1024 / 1793, 1000
RECIPE, LARGE = (64, 128), (512, 512)
WIDTHS = ((64, 64), RECIPE, (64, 256), LARGE, (512, 1024))


def jobs(
    threads: int, repeats: int = 7, compiled: bool = True, *, quick: bool = False
) -> list[Callable[[], Row]]:
    """Return the measurements, each giving one row of the benchmark table.

    Parameters
    ----------
    threads
        Threads of the native sampler and of torch.
    repeats
        Pairs per figure.
    compiled
        Compare with `torch.compile` too (compiling takes about a minute).
    quick
        Measure the default weights at two sizes alone, a tenth of the time each.
    """
    torch.set_num_threads(threads)
    chosen = sets.choose()
    usual = number_type(chosen).name
    if quick:
        return _quick_jobs(threads, min(repeats, 3), chosen.name, usual)
    types = ["float32", *(name for name in ("bfloat16", "int8") if getattr(chosen, name))]
    found: list[Callable[[], Row]] = []
    for dim, hidden in WIDTHS if chosen.bfloat16 else ():
        found.append(partial(share_of_product, dim, hidden, threads, repeats))
    for entry in sets.instruction_sets():
        if entry.available and entry != chosen:
            found.append(partial(share_of_peak, *RECIPE, entry.name, "float32", repeats))
    for weights in types:
        for dim, hidden in WIDTHS if weights == usual else (RECIPE, LARGE):
            found.append(partial(share_of_peak, dim, hidden, chosen.name, weights, repeats))
    for dim, hidden in (RECIPE, LARGE):
        for weights in types:
            found.append(partial(against_torch, dim, hidden, weights, threads, repeats))
        if compiled:
            found.append(partial(against_torch, dim, hidden, usual, threads, repeats, compiled=True))
        for name in peers.available():
            if compiled or name != peers.COMPILER:
                found.append(partial(against_graph, dim, hidden, usual, threads, repeats, name))
    if threads > 1:
        found.append(partial(scaling, threads, repeats))
    found.append(one_row)
    return found


def _quick_jobs(threads: int, repeats: int, isa: str, usual: str) -> list[Callable[[], Row]]:
    found: list[Callable[[], Row]] = []
    for dim, hidden in (RECIPE, LARGE):
        found.append(partial(share_of_peak, dim, hidden, isa, usual, repeats, QUICK))
        found.append(partial(against_torch, dim, hidden, usual, threads, repeats, share=QUICK))
    if threads > 1:
        found.append(partial(scaling, threads, repeats, QUICK))
    return [*found, one_row]


def share_of_product(dim: int, hidden: int, threads: int, repeats: int) -> Row:
    """Return the sampler's rate beside that of a large bfloat16 product through torch."""
    spec, sampler, work = _work(dim, hidden, "bfloat16", None, threads)
    found = pair(work, product(torch.bfloat16), repeats)
    operations = operations_per_row(spec)
    return _row(
        "share of torch's bfloat16 product", spec, sampler, threads, found.first / operations,
        ceiling_gflop_per_s=found.second * 1e-9, fraction=found.ratio,
    )  # fmt: skip


def share_of_peak(dim: int, hidden: int, isa: str, weights: str, repeats: int, share: float = 1.0) -> Row:
    """Return the sampler's rate on one thread beside multiply-adds on registers alone."""
    spec, sampler, work = _work(dim, hidden, weights, isa, 1, share)

    def peak() -> float:
        return _native.peak(isa, WEIGHTS[weights], int(share * CALL / 8000))

    found = pair(work, peak, repeats)
    return _row(
        "share of the multiply-add peak", spec, sampler, 1, found.first / operations_per_row(spec),
        ceiling_gflop_per_s=found.second * 1e-9, fraction=found.ratio,
    )  # fmt: skip


def against_torch(
    dim: int,
    hidden: int,
    weights: str,
    threads: int,
    repeats: int,
    compiled: bool = False,
    share: float = 1.0,
) -> Row:
    """Return the sampler's rate beside that of the same network and solver in PyTorch.

    The baseline is eager float32, or `torch.compile`: under bfloat16 autocast where the sampler multiplies
    bfloat16, else in float32 (without the instruction torch is two hundred times slower in bfloat16).
    """
    spec, sampler, work = _work(dim, hidden, weights, None, threads, share)
    short = compiled and sampler.weights == "bfloat16"
    baseline = TorchSampler(spec, compiled=compiled, autocast=short)
    operations = operations_per_row(spec)
    labels = random_labels(spec, max(4096, int(share * CALL / 4 / operations) // 4096 * 4096))
    found = pair(work, lambda: baseline(labels), max(1, repeats // 2))
    rows_per_s = found.first / operations
    more: Row = {"baseline_rows_per_s": found.second, "times": found.ratio / operations}
    if (dim, hidden) == RECIPE and not compiled:
        more["times_published"] = published_gains(spec, rows_per_s, found.second)
    name = f"{'torch.compile' if compiled else 'eager'} {'bfloat16' if short else 'float32'}"
    return _row(f"against {name}", spec, sampler, threads, rows_per_s, **more)


def against_graph(dim: int, hidden: int, weights: str, threads: int, repeats: int, name: str) -> Row:
    """Return the sampler's rate beside the whole loop as one float32 graph of another runtime."""
    spec, sampler, work = _work(dim, hidden, weights, None, threads)
    peer, operations = peers.Peer(spec, name, threads), operations_per_row(spec)
    labels = random_labels(spec, max(4096, int(CALL / 8 / operations) // 4096 * 4096))
    found = pair(work, lambda: peer(labels), max(1, repeats // 2))
    more: Row = {"baseline_rows_per_s": found.second, "times": found.ratio / operations}
    return _row(f"against {name}, whole loop", spec, sampler, threads, found.first / operations, **more)


def published_gains(spec: SamplerSpec, rows_per_s: float, eager_rows_per_s: float) -> dict[str, float]:
    """Return how many times faster than the published code a row is drawn, and what each part gives.

    ``solver``: fewer evaluations; ``network``: one evaluation in eager PyTorch; ``kernel``: the native
    sampler over eager PyTorch. ``all`` is their product.
    """
    evaluations = len(spec.rows) * (1 if spec.guidance == 1 else 2)
    solver = PUBLISHED_EVALUATIONS / evaluations
    return {
        "all": rows_per_s / PUBLISHED_ROWS_PER_S,
        "solver": solver,
        "network": eager_rows_per_s / PUBLISHED_ROWS_PER_S / solver,
        "kernel": rows_per_s / eager_rows_per_s,
    }


def scaling(threads: int, repeats: int, share: float = 1.0) -> Row:
    """Return what several threads gain over one, for the recipe's network."""
    spec, sampler, many = _work(*RECIPE, "auto", None, threads, share)
    _, _, one = _work(*RECIPE, "auto", None, 1, share)
    found = pair(many, one, repeats)
    rows_per_s = found.first / operations_per_row(spec)
    return _row(f"{threads} threads against one", spec, sampler, threads, rows_per_s, times=found.ratio)


def one_row() -> Row:
    """Return the time of a call for a single row."""
    spec = random_spec(*RECIPE)
    sampler = NativeSampler(spec)
    labels = np.zeros(1, np.int64)
    seconds = shortest(lambda: sampler(labels))
    return _row("a call for one row", spec, sampler, 1, 1 / seconds, milliseconds=seconds * 1e3)


def _work(
    dim: int, hidden: int, weights: str, isa: str | None, threads: int, share: float = 1.0
) -> tuple[SamplerSpec, NativeSampler, Work]:
    """Return a model, its sampler and a call that counts operations; `share` is of those of a full call."""
    spec = random_spec(dim, hidden)
    sampler = NativeSampler(spec, weights=weights, isa=isa)
    operations = operations_per_row(spec)
    slow = {"baseline": 0.1, "avx2": 0.4}.get(sampler.isa, 1.0)
    count = max(480, math.ceil(slow * share * threads * CALL / operations / 480) * 480)
    labels = random_labels(spec, count)

    def work() -> float:
        sampler(labels, threads=threads)
        return float(operations * count)

    return spec, sampler, work


def _row(
    what: str, spec: SamplerSpec, sampler: NativeSampler, threads: int, rows_per_s: float, **more: Any
) -> Row:
    return table_row(
        what, spec, sampler, rows_per_s,
        backend="native", isa=sampler.isa, dtype=sampler.weights, threads=threads, **more,
    )  # fmt: skip


def text(rows: list[Row]) -> str:
    """Return the table for people."""
    lines = [f"{'what':<36}{'isa':<12}{'type':<10}{'D':>5}{'H':>5}{'thr':>4}{'rows/s':>12}"
             f"{'GFLOP/s':>9}{'ceiling':>9}{'share':>7}{'times':>8}{'max error':>11}"]  # fmt: skip
    for row in rows:
        lines.append(
            f"{row['what']:<36}{row['isa']:<12}{row['dtype']:<10}{row['dim']:>5}{row['hidden']:>5}"
            f"{_cell(row['threads'], 'd'):>4}{row['rows_per_s']:>12,.0f}{row['gflop_per_s']:>9.0f}"
            f"{_cell(row.get('ceiling_gflop_per_s'), '.0f'):>9}{_cell(row.get('fraction'), '.0%'):>7}"
            f"{_cell(row.get('times'), '.2f'):>8}{row['error']:>11.1e}"
        )
    for row in rows:
        if gains := row.get("times_published"):
            parts = "{solver:,.0f} (fewer evaluations) x {network:,.0f} (network) x {kernel:.1f} (kernel)"
            lines.append(
                f"\nAgainst the published code's sampling, {row['dtype']}: {gains['all']:,.0f} times "
                f"= {parts.format(**gains)}"
            )
    return "\n".join(lines)


def _cell(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
