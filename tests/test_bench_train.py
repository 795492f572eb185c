"""``ldmlr bench train``: what it counts, and that its PyTorch baseline trains; never how fast anything is."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from ldmlr.bench import train
from ldmlr.bench.torch_trainer import TorchTrainer
from ldmlr.diffusion.config import DiffusionConfig

COLUMNS = {
    "part", "what", "backend", "isa", "dtype", "dim", "hidden", "batch", "steps_per_s", "gflop_per_s",
    "ceiling_gflop_per_s", "fraction", "baseline_steps_per_s", "times",
}  # fmt: skip


def test_operations() -> None:
    """Forward, and backward to inputs and to weights; nothing goes back behind the first matrices."""
    config = DiffusionConfig(hidden=128, layers=2, batch_size=512)
    layers, times = 4 * 128 * 128, 64 * 128 + 2 * 128 * 128
    of_row = 3 * (layers + 2 * 64 * 128) - 64 * 128
    of_time = 3 * times - 64 * 128
    assert train.operations_per_step(config, 64, share=1) == 2 * 512 * (of_row + of_time)
    assert train.operations_per_step(config, 64, share=8) == 2 * (512 * of_row + 64 * of_time)


def test_the_pytorch_baseline_trains() -> None:
    config = DiffusionConfig(hidden=32, layers=1, batch_size=128, lr=1e-2, class_power=1.0)
    z, labels, counts = train.random_rows(4)
    torch.manual_seed(0)
    found = TorchTrainer(config, z, labels, counts)
    first = np.mean([found.advance(1) for _ in range(5)])
    found.advance(300)
    assert np.mean([found.advance(1) for _ in range(40)]) < 0.97 * first


def test_the_table_has_its_columns(run_cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "CALL", 1e6)
    monkeypatch.setattr(train, "RECIPE", (8, 16))
    monkeypatch.setattr(train, "LARGE", (12, 24))
    threads = torch.get_num_threads()
    done = run_cli("bench", "train", "--repeats", 1, "--no-compile", "--threads", 2, "--json")
    torch.set_num_threads(threads)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["rows"]
    assert all(set(row) >= COLUMNS for row in rows)
    whats = {"share of the multiply-add peak", "against eager float32", "2 threads against one"}
    assert {row["what"] for row in rows} == whats
    assert {(row["dim"], row["hidden"]) for row in rows} == {(8, 16), (12, 24)}
    for row in rows:
        assert row["steps_per_s"] > 0
        if row["what"] == "against eager float32":
            assert row["times"] == pytest.approx(row["steps_per_s"] / row["baseline_steps_per_s"])
    assert len(train.text(rows).splitlines()) >= len(rows) + 1
