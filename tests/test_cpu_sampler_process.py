"""ldmlr.sampler.cpu.sampler as a guest of its process: interrupts, progress, forks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from ldmlr.diffusion.schedule import make_schedule
from ldmlr.diffusion.solvers import step_rows
from ldmlr.diffusion.tables import DenoiserTables
from ldmlr.sampler.cpu.sampler import NativeSampler
from ldmlr.sampler.spec import SamplerSpec

LABELS = np.zeros(20_000, np.int64)


@pytest.fixture(scope="module")
def slow_spec() -> SamplerSpec:
    """Return a model with so many steps that LABELS take minutes."""
    rng = np.random.default_rng(0)
    rows = step_rows("ddim", 4000, make_schedule("cosine"))
    dim, hidden = 16, 64

    def normal(*shape: int) -> np.ndarray:
        return 0.1 * rng.standard_normal(shape, np.float32)

    tables = DenoiserTables(
        normal(hidden, dim), normal(hidden), normal(1, hidden, hidden), normal(1, hidden, hidden),
        normal(1, hidden), normal(dim, hidden), normal(dim), normal(4000, 1, hidden), normal(2, 1, hidden),
    )  # fmt: skip
    return SamplerSpec(tables, rows, np.zeros((1, dim)), np.ones(dim), 1.0, -np.inf, 1.5, 0)


@pytest.fixture(scope="module")
def slow_sampler(slow_spec: SamplerSpec) -> NativeSampler:
    """Return a sampler whose call on LABELS takes minutes."""
    return NativeSampler(slow_spec)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Let Ctrl-C interrupt: a shell starts background jobs with SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("threads", [1, 2])
def test_interrupt_ends_the_call(slow_sampler: NativeSampler, threads: int) -> None:
    tasks = threading.active_count()
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        slow_sampler(LABELS, threads=threads)
    timer.join()
    assert threading.active_count() == tasks


def test_progress_counts_rows_and_may_end_the_call(slow_sampler: NativeSampler) -> None:
    seen: list[int] = []

    class EnoughError(Exception):
        pass

    def report(rows: int) -> None:
        seen.append(rows)
        if len(seen) == 8:
            raise EnoughError

    with pytest.raises(EnoughError):
        slow_sampler(LABELS, threads=2, progress=report)
    assert len(seen) == 8
    assert seen == sorted(seen)
    assert 0 <= seen[0] <= seen[-1] <= len(LABELS)


@pytest.mark.parametrize("weights", ["float32", "bfloat16", "int8"])
def test_progress_may_compute(slow_spec: SamplerSpec, weights: str) -> None:
    """A product in bfloat16 takes the tiles of AMX, on the thread of the call and in between its steps."""
    sampler = NativeSampler(slow_spec, weights=weights)
    labels = LABELS[:2000]
    matrix = torch.ones(512, 512, dtype=torch.bfloat16)
    products: list[torch.Tensor] = []
    expected = sampler(labels, threads=1)

    def compute(rows: int) -> None:
        if len(products) < 8:  # on a busy machine there are many reports
            products.append(matrix @ matrix)

    found = sampler(labels, threads=1, progress=compute)
    assert np.array_equal(found, expected)
    assert products
    assert all((product == 512).all() for product in products)


def test_python_runs_meanwhile(slow_sampler: NativeSampler) -> None:
    """The GIL is released: another thread of Python counts while the kernels run."""
    count = 0
    ended = threading.Event()

    def work() -> None:
        nonlocal count
        while not ended.is_set():
            count += 1
            time.sleep(0.001)

    worker = threading.Thread(target=work)

    class EnoughError(Exception):
        pass

    def report(rows: int) -> None:
        if count >= 10:
            raise EnoughError

    worker.start()
    with pytest.raises(EnoughError):
        slow_sampler(LABELS, progress=report)
    ended.set()
    worker.join()
    assert count >= 10


def test_safe_after_fork() -> None:
    program = """
import os, sys
sys.path.insert(0, sys.argv[1])
import numpy as np
from test_cpu_sampler import make_spec, NativeSampler
sampler = NativeSampler(make_spec())
labels = np.zeros(500, np.int64)
before = sampler(labels, threads=4)
child = os.fork()
if child == 0:
    os._exit(0 if np.array_equal(sampler(labels, threads=4), before) else 3)
assert os.waitpid(child, 0)[1] == 0
assert np.array_equal(sampler(labels, threads=4), before)
print("same rows")
"""
    here = os.path.dirname(os.path.abspath(__file__))
    done = subprocess.run(
        [sys.executable, "-c", program, here], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stdout) == (0, "same rows\n"), done.stderr
