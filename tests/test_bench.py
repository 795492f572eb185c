"""ldmlr.bench and ``ldmlr bench``: what they count; never how fast anything is."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from ldmlr import cuda_device
from ldmlr.bench import against, augment, cpu, cuda, peers, store, timing
from ldmlr.bench.models import operations_per_row, random_labels, random_spec
from ldmlr.bench.torch_sampler import TorchSampler
from ldmlr.diffusion.config import DiffusionConfig
from ldmlr.errors import LdmlrError
from ldmlr.sampler import reference
from ldmlr.sampler.cpu.sampler import NativeSampler
from ldmlr.sampler.cuda.tiers import Tier
from ldmlr.sampler.noise import standard_normal

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
    monkeypatch.setattr(peers, "available", list)
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
    done = run_cli("bench", "drawing")
    assert done.returncode == 2
    assert "drawing" in done.stderr


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the sampler measured on next to nothing."""
    monkeypatch.setattr(cpu, "CALL", 1e7)
    monkeypatch.setattr(cpu, "LARGE", (32, 48))
    monkeypatch.setattr(cpu, "WIDTHS", ((16, 32),))


def test_quick_measures_less(run_cli, tiny: None) -> None:
    done = run_cli("bench", "--quick", "--threads", 1, "--json")
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["rows"]
    assert {row["part"] for row in rows} == {"sample"}
    assert [row["what"] for row in rows] == [
        *["share of the multiply-add peak", "against eager float32"] * 2, "a call for one row",
    ]  # fmt: skip
    assert all(set(row) >= COLUMNS for row in rows)


ROW = {"part": "sample", "what": "a", "dim": 4, "hidden": 8, "threads": 2}


def test_ratios_are_of_the_same_measurement() -> None:
    earlier = [{**ROW, "rows_per_s": speed} for speed in (1.0, 100.0, 4.0)]
    rows = [{**ROW, "rows_per_s": 3.0}, {**ROW, "threads": 1, "rows_per_s": 3.0}, {**ROW, "what": "b"}]
    found = against.compare([*earlier, {**ROW, "what": "b", "mb_per_s": 5.0}], rows)
    assert [entry["before"] for entry in found] == [4.0, None, 5.0]
    assert [entry["ratio"] for entry in found] == [0.75, None, None]
    assert len(against.text(found).splitlines()) == 2 + 3
    against.refuse_losses(found, 0.25, Path("old.json"))
    with pytest.raises(LdmlrError, match=r"1 of 1 figures are more than 20% slower"):
        against.refuse_losses(found, 0.2, Path("old.json"))
    with pytest.raises(LdmlrError, match="none of its figures"):
        against.refuse_losses(found[1:], 0.2, Path("old.json"))


def test_a_run_against_an_earlier_one(run_cli, tmp_path: Path, tiny: None) -> None:
    common = ("bench", "sample", "--quick", "--threads", 1)
    done = run_cli(*common, "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    path = tmp_path / "result.json"
    before = json.loads(path.read_text())
    # Fast enough where everything may be lost, and too slow beside a run that was a million times faster.
    done = run_cli(*common, "--against", path, "--max-loss", 1, "--json")
    assert done.returncode == 0, done.stderr
    entries = json.loads(done.stdout)["against"]
    assert [entry["before"] for entry in entries] == [row["rows_per_s"] for row in before["rows"]]
    assert all(entry["ratio"] == entry["now"] / entry["before"] for entry in entries)
    for row in before["rows"]:
        row["rows_per_s"] *= 1e6
    path.write_text(json.dumps(before))
    done = run_cli(*common, "--against", path)
    assert done.returncode == 1
    assert "5 of 5 figures are more than 10% slower" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("text", ["{", "[1]", '{"command": "run", "rows": []}', '{"command": "bench"}'])
def test_against_something_else_is_refused_before_anything_is_measured(run_cli, tmp_path, text: str) -> None:
    (tmp_path / "old.json").write_text(text)
    done = run_cli("bench", "--against", tmp_path / "old.json")
    assert done.returncode == 1
    assert "old.json: not the result of ldmlr bench" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_the_store_beside_a_copy(run_cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "ROWS", 600)
    monkeypatch.setattr(store, "DIM", 8)
    done = run_cli("bench", "store", "--repeats", 1, "--threads", 1, "--json")
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["rows"]
    assert [row["what"].partition(",")[0] for row in rows] == [
        "write", "read", "verify", "iterate", "iterate in random order",
    ]  # fmt: skip
    for row in rows:
        assert set(row) >= COLUMNS
        assert (row["part"], row["rows"], row["dim"]) == ("store", 600, 8)
        assert row["rows_per_s"] == pytest.approx(row["mb_per_s"] * 1e6 / 32)
        assert row["times"] > 0
    assert len(store.text(rows).splitlines()) == 2 + 5


def test_augmentation_from_end_to_end(run_cli, monkeypatch: pytest.MonkeyPatch) -> None:
    small = DiffusionConfig(hidden=16, layers=1, iterations=20, batch_size=32)
    monkeypatch.setattr(augment, "DiffusionConfig", lambda: small)
    monkeypatch.setattr(augment, "ROWS", 100)
    done = run_cli("bench", "augment", "--quick", "--threads", 1, "--json")
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["rows"]
    assert [row["what"] for row in rows] == ["one store", "one store by SMOTE"]
    for row in rows:
        assert set(row) >= COLUMNS
        assert row["stores_per_s"] == pytest.approx(1 / row["seconds"])
    assert [row["hidden"] for row in rows] == [16, None]
    assert len(augment.text(rows).splitlines()) == 2 + 2


def test_the_graph_of_the_whole_loop_is_the_reference() -> None:
    for spec in (random_spec(6, 16), random_spec(6, 16, guidance=1.0)):
        labels = random_labels(spec, 100)
        noise = torch.from_numpy(standard_normal(spec.seed, 0, 100, 6))
        with torch.no_grad():
            rows = peers.Loop(spec)(noise, torch.from_numpy(labels))
        assert torch.equal(rows, reference.sample(spec, labels))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [name for name in peers.PEERS if name != peers.COMPILER])
def test_peers_draw_the_same_rows(name: str) -> None:
    if name not in peers.available():
        pytest.skip(f"{name} is not installed")
    spec = random_spec(6, 16, steps=3)
    peer = peers.Peer(spec, name, 1)
    labels = torch.arange(peers.BATCH) % spec.num_classes
    with torch.no_grad():
        expected = peers.Loop(spec)(peer.noise, labels).numpy()
    np.testing.assert_allclose(np.asarray(peer.run(peer.noise, labels)), expected, atol=1e-4)
    assert peer(np.zeros(2 * peers.BATCH + 5, np.int64)) == 2 * peers.BATCH


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
