"""The CUDA sampler beside the bfloat16 product of torch and the same network in PyTorch, in one run."""

from __future__ import annotations

import dataclasses
import functools
import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ldmlr.bench.models import operations_per_row, random_labels, random_spec
from ldmlr.bench.table import Row, table_row
from ldmlr.cuda_device import has_wgmma, shared_limit
from ldmlr.errors import UsageError
from ldmlr.sampler.cuda import tiers
from ldmlr.sampler.cuda.sampler import CudaSampler
from ldmlr.sampler.reference import additive
from ldmlr.sampler.solve import solve
from ldmlr.sampler.spec import SamplerSpec

# (D, H, target share of torch's product) at L 2, 10 evaluations, guidance 1.5.
SIZES = (
    (64, 64, None), (64, 128, 0.30), (64, 256, None), (64, 512, 0.50), (128, 128, None), (128, 256, None),
    (512, 512, None), (512, 1024, 0.60), (512, 2048, 0.60), (2048, 2048, None),
)  # fmt: skip
RECIPE, LARGE = (64, 128), (512, 1024)
SECONDS = 0.1  # of one timed call, about
FEWEST = 1 << 15  # rows of a timed call, at least
PRODUCT = 8192  # of the matrix product that counts as the ceiling


def seconds(work: Callable[[], object], repeats: int = 5) -> float:
    """Return the median time of `work` on the device, by events, after a warm-up."""
    work()
    found: list[float] = []
    for _ in range(repeats):
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        start.record()
        work()
        stop.record()
        stop.synchronize()
        found.append(start.elapsed_time(stop) * 1e-3)
    return statistics.median(found)


def product_rate(device: torch.device, size: int = PRODUCT) -> float:
    """Return GFLOP/s of a large bfloat16 matrix product through torch, on random values."""
    a, b = (torch.randn(size, size, device=device).bfloat16() for _ in range(2))
    out = torch.empty_like(a)
    return 2e-9 * size**3 / seconds(lambda: torch.mm(a, b, out=out), 10)


def copy_rate(device: torch.device, size: int = 1 << 31) -> float:
    """Return GB/s of a copy in device memory, read and written bytes counted."""
    a, b = (torch.zeros(size, dtype=torch.uint8, device=device) for _ in range(2))
    return 2e-9 * size / seconds(lambda: b.copy_(a), 5)


def jobs(device: torch.device, repeats: int = 5, compiled: bool = True) -> list[Callable[[], Row]]:
    """Return the measurements of ``ldmlr bench`` on a device, each giving one row of the table.

    The kernels that the table of tiers chooses, at every size; the same network in PyTorch; calls for a few
    rows. ``benchmarks/gpu.py`` measures the other tiers.

    Parameters
    ----------
    device
        Where.
    repeats
        Timed runs per figure.
    compiled
        Compare with `torch.compile` too (compiling takes about a minute).
    """
    ceiling = functools.cache(lambda: product_rate(device))
    rates: dict[tuple[int, int], float] = {}

    def share(dim: int, hidden: int) -> Row:
        row = throughput(dim, hidden, None, device, ceiling(), repeats=repeats)
        rates[dim, hidden] = row["rows_per_s"]
        return row

    def compared(dim: int, hidden: int, through_compiler: bool) -> Row:
        return against(dim, hidden, device, through_compiler, rates[dim, hidden])

    found: list[Callable[[], Row]] = [partial(share, dim, hidden) for dim, hidden, _ in SIZES]
    for dim, hidden in (RECIPE, LARGE):
        for through_compiler in (False, True) if compiled else (False,):
            found.append(partial(compared, dim, hidden, through_compiler))
    return [*found, *(partial(latency, rows, device) for rows in (1, 1024))]


def _row(what: str, spec: SamplerSpec, sampler: CudaSampler, rows_per_s: float, **more: Any) -> Row:
    return table_row(
        what, spec, sampler, rows_per_s,
        backend="cuda", isa=sampler.tier.name, dtype="bfloat16", threads=None, device=sampler.device, **more,
    )  # fmt: skip


def runnable(spec: SamplerSpec, device: torch.device) -> list[str]:
    """Return the tiers that can run a model on a device."""
    tables: Any = spec.tables
    found = []
    for name in tiers.TIERS:
        try:
            tiers.choose(
                spec.latent, tables.w_in.shape[0], len(tables.w1), spec.guidance != 1, shared_limit(device),
                name, wgmma=has_wgmma(device),
            )  # fmt: skip
            found.append(name)
        except UsageError:
            continue
    return found


def throughput(
    dim: int,
    hidden: int,
    tier: str | None,
    device: torch.device,
    ceiling: float,
    slab: int | None = None,
    repeats: int = 5,
) -> Row:
    """Return the rate of one tier at one size beside the rate of the product.

    Parameters
    ----------
    dim, hidden
        D and H.
    tier
        Kernels to run; None: the table's.
    device
        Where.
    ceiling
        GFLOP/s of the matrix product.
    slab
        Rows that go through the layers together; None: the table's.
    repeats
        Timed calls; the median counts.
    """
    spec = random_spec(dim, hidden)
    sampler = CudaSampler(spec, device, tier=tier, slab=slab)
    operations = operations_per_row(spec)
    count = FEWEST
    for again in (3, repeats):  # the first call says how many rows take the time that is wanted
        labels = torch.from_numpy(random_labels(spec, count)).to(device)
        out = torch.empty(count, dim, device=device)
        time = seconds(functools.partial(sampler, labels, out=out, check=False), again)
        rows, count = count, max(FEWEST, int(count * SECONDS / time) // FEWEST * FEWEST)
    return _row(
        "share of torch's bfloat16 product", spec, sampler, rows / time, slab=slab, rows=rows,
        ceiling_gflop_per_s=ceiling, fraction=1e-9 * operations * rows / time / ceiling,
    )  # fmt: skip


def latency(rows: int, device: torch.device, tier: str | None = None, repeats: int = 200) -> Row:
    """Return the time of one call for a few rows, waiting for its end, by the host's clock."""
    import time

    spec = random_spec(*RECIPE)
    sampler = CudaSampler(spec, device, tier=tier)
    labels = torch.from_numpy(random_labels(spec, rows)).to(device)
    out = torch.empty(rows, spec.dim, device=device)
    found = []
    for _ in range(repeats + 20):
        torch.cuda.synchronize(device)
        start = time.perf_counter()
        sampler(labels, out=out, check=False)
        torch.cuda.synchronize(device)
        found.append(time.perf_counter() - start)
    middle = statistics.median(found[20:])
    return _row(
        f"one call for {rows} rows", spec, sampler, rows / middle, rows=rows, milliseconds=1e3 * middle
    )


@dataclasses.dataclass
class Baseline:
    """The sampler in PyTorch on the device: bfloat16 weights and products, float32 state.

    Attributes
    ----------
    spec
        What to draw from.
    device
        Where.
    compiled
        `torch.compile` of the network with ``max-autotune``, all steps in one CUDA graph.
    """

    spec: SamplerSpec
    device: torch.device
    compiled: bool

    def __post_init__(self) -> None:
        tables: Any = self.spec.tables
        self.weights = {
            name: torch.from_numpy(getattr(tables, name)).to(self.device, torch.bfloat16)
            for name in tables.__dataclass_fields__
        }
        self.mean = torch.from_numpy(self.spec.mean).to(self.device, torch.float32)
        self.scale = torch.from_numpy(self.spec.k * self.spec.scale).to(self.device, torch.float32)
        self.network: Callable[[Tensor, Tensor, Tensor], Tensor] = self._network
        if self.compiled:
            self.network = torch.compile(self._network, mode="max-autotune-no-cudagraphs")

    def _network(self, x: Tensor, step_bias: Tensor, labels: Tensor) -> Tensor:
        w = {**self.weights, "bias_step": step_bias}
        h = torch.addmm(w["b_in"], x.bfloat16(), w["w_in"].T)
        null = additive(w, h, 0, torch.full_like(labels, self.spec.num_classes))
        f = additive(w, h, 0, labels)
        return (null + self.spec.guidance * (f - null)).float()

    @torch.no_grad()
    def draw(self, labels: Tensor) -> Tensor:
        """Return one row per label."""
        noise = torch.randn(len(labels), self.spec.dim, device=self.device)

        def predict(x: Tensor, step: int) -> Tensor:
            return self.network(x, self.weights["bias_step"][step : step + 1], labels)

        x = solve(self.spec.rows, noise, predict, lambda step: torch.randn_like(noise))
        return (self.mean[labels] + x @ self.scale.T).clamp_min(float(self.spec.floor))

    def rate(self, rows: int) -> float:
        """Return rows per second of batches of a size."""
        labels = torch.from_numpy(random_labels(self.spec, rows)).to(self.device)
        if not self.compiled:
            return rows / seconds(lambda: self.draw(labels), 3)
        side = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(side):
            for _ in range(2):
                self.draw(labels)
        torch.cuda.current_stream(self.device).wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.draw(labels)
        return rows / seconds(graph.replay, 5)


def against(dim: int, hidden: int, device: torch.device, compiled: bool, rows_per_s: float) -> Row:
    """Return how many times faster than PyTorch a measured rate is, PyTorch at its best of three batches."""
    spec = random_spec(dim, hidden)
    baseline = Baseline(spec, device, compiled)
    batches = (8192, 65536, 262144) if not compiled else (65536,)
    rates = {rows: baseline.rate(rows) for rows in batches}
    best = max(rates.values())
    name = "torch.compile in a graph" if compiled else "eager bfloat16"
    return _row(
        f"against {name}", spec, CudaSampler(spec, device), rows_per_s, baseline_rows_per_s=best,
        baseline_rates=rates, times=rows_per_s / best,
    )  # fmt: skip


def text(row: Row) -> str:
    """Return one line for people."""
    parts = [f"{row['what']:<48} {row.get('isa') or '':<9} D {row['dim']:<5}H {row['hidden']:<5}"]
    for name, form in (
        ("slab", "slab {:>6}"), ("rows_per_s", "{:>13,.0f} rows/s"), ("fraction", "{:>6.1%}"),
        ("times", "{:>6.2f} x"), ("seconds", "{:>8.3f} s"), ("milliseconds", "{:>8.4f} ms"),
        ("error_rms", "rms {:.1e}"),
    ):  # fmt: skip
        if row.get(name) is not None:
            parts.append(form.format(row[name]))
    return " ".join(parts)
