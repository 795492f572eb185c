"""ldmlr.bench and ``ldmlr bench``: what they count; never how fast anything is."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from ldmlr.bench import cpu, cuda, timing
from ldmlr.bench.models import operations_per_row, random_labels, random_spec
from ldmlr.bench.torch_sampler import TorchSampler
from ldmlr.sampler import reference
from ldmlr.sampler.cpu.sampler import NativeSampler
from ldmlr.sampler.cuda import device as cuda_device
from ldmlr.sampler.cuda.tiers import Tier

COLUMNS = {
    "what", "backend", "isa", "dtype", "dim", "hidden", "layers", "steps", "guidance", "threads",
    "rows_per_s", "gflop_per_s", "ceiling_gflop_per_s", "fraction", "error",
}  # fmt: skip


@pytest.mark.parametrize(
    ("dim", "hidden", "layers", "guidance", "products"),
    [
        # As in docs/kernels.md: shared first products, two evaluations of the rest, one last product.
        (64, 128, 2, 1.5, 2 * 64 * 128 + 2 * 3 * 128 * 128 + 128 * 64),
        (64, 128, 2, 1.0, 2 * 64 * 128 + 3 * 128 * 128 + 128 * 64),
        (512, 256, 1, 2.0, 512 * 256 + 256 * 256 + 2 * 256 * 256 + 256 * 512),
    ],
)
def test_operations(dim: int, hidden: int, layers: int, guidance: float, products: int) -> None:
    spec = random_spec(dim, hidden, layers, guidance=guidance, steps=10)
    assert operations_per_row(spec) == 10 * 2 * products


def test_pairs_are_medians_of_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    rates = iter([1.0, 10.0, 2.0, 10.0, 6.0, 20.0])
    monkeypatch.setattr(timing, "rate", lambda work: next(rates))
    found = timing.pair(lambda: 0.0, lambda: 0.0, repeats=3)
    assert (found.first, found.second, found.ratio) == (2.0, 10.0, 0.2)


def test_the_pytorch_baseline_draws_from_the_same_model() -> None:
    spec = random_spec(12, 32, classes=2)
    labels = random_labels(spec, 6000)
    torch.manual_seed(0)
    rows = torch.cat([TorchSampler(spec)._batch(torch.from_numpy(part)) for part in np.split(labels, 2)])
    native = NativeSampler(spec)(labels)
    for label in (0, 1):
        mine, other = native[labels == label], rows.numpy()[labels == label]
        assert np.abs(mine.mean(0) - other.mean(0)).max() < 0.15
        assert np.abs(mine.std(0) / other.std(0) - 1).max() < 0.15


def test_bench_prints_and_saves_the_table(run_cli, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "CALL", 1e7)
    monkeypatch.setattr(cpu, "LARGE", (32, 48))
    monkeypatch.setattr(cpu, "WIDTHS", ((16, 32),))
    monkeypatch.setattr(cpu, "product", lambda dtype: lambda: 1.0)
    threads = torch.get_num_threads()
    done = run_cli(
        "bench", "sample", "--repeats", 1, "--no-compile", "--threads", 2, "--json", "--out", tmp_path
    )
    torch.set_num_threads(threads)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document == json.loads((tmp_path / "result.json").read_text())
    for row in document["rows"]:
        assert set(row) >= COLUMNS
        assert row["rows_per_s"] > 0
        assert row["error"] < 0.1
    whats = {row["what"] for row in document["rows"]}
    assert {"against eager float32", "2 threads against one", "a call for one row"} <= whats
    for row in document["rows"]:
        if gains := row.get("times_published"):
            assert gains["all"] == pytest.approx(gains["solver"] * gains["network"] * gains["kernel"])
            assert gains["solver"] == 50  # 1,000 evaluations against 10 steps of two
    table, _, published = cpu.text(document["rows"]).partition("\n\n")
    assert len(table.splitlines()) == len(document["rows"]) + 1
    assert "(kernel)" in published


def test_unknown_benchmark_is_named(run_cli) -> None:
    done = run_cli("bench", "train")
    assert done.returncode == 2
    assert "train" in done.stderr


def test_a_cuda_device_that_is_not_there_is_named(run_cli) -> None:
    done = run_cli("bench", "sample", "--device", "cuda:99")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("Error: --device: 'cuda:99' is not there")


class FakeSampler:
    """Stands for the CUDA sampler on a machine without one: the reference, with a tier's name."""

    def __init__(self, spec, device, tier=None, slab=None) -> None:
        self.spec, self.device, self.tier = spec, device, Tier(tier or "layered", 64, 64)

    def __call__(self, labels, out=None, check=True):
        return reference.sample(self.spec, np.asarray(labels))


def test_bench_on_a_device_gives_the_same_table(run_cli, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_device, "usable", lambda name: torch.device("cpu"))
    monkeypatch.setattr(cuda, "CudaSampler", FakeSampler)
    monkeypatch.setattr(cuda, "seconds", lambda work, repeats=5: repeats * 1e-3)
    monkeypatch.setattr(cuda, "PRODUCT", 8)
    monkeypatch.setattr(cuda, "SIZES", ((8, 16, None), (8, 32, None)))
    monkeypatch.setattr(cuda, "RECIPE", (8, 16))
    monkeypatch.setattr(cuda, "LARGE", (8, 32))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    done = run_cli("bench", "sample", "--no-compile", "--repeats", 3, "--json", "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["rows"]
    assert [row["what"] for row in rows] == [
        *["share of torch's bfloat16 product"] * 2, *["against eager bfloat16"] * 2,
        "one call for 1 rows", "one call for 1024 rows",
    ]  # fmt: skip
    for row in rows:
        assert set(row) >= COLUMNS
        assert (row["backend"], row["dtype"], row["threads"]) == ("cuda", "bfloat16", None)
        assert row["error"] < 1e-3
    shares = rows[:2]
    assert all(row["rows_per_s"] == pytest.approx(row["rows"] / 3e-3) for row in shares)
    assert all(
        row["fraction"] == pytest.approx(row["gflop_per_s"] / row["ceiling_gflop_per_s"]) for row in shares
    )
    assert rows[2]["times"] == pytest.approx(rows[0]["rows_per_s"] / rows[2]["baseline_rows_per_s"])
    assert len(cpu.text(rows).splitlines()) == 1 + len(rows)
