"""The files of ``presets/`` for CIFAR-LT: what they say, and the way through all stages on few images."""

from __future__ import annotations

import json
import tarfile
import tomllib
from pathlib import Path

import numpy as np
import pytest

from ldmlr.encoders.model import Baseline
from ldmlr.encoders.recipes import baseline_config

PRESETS = Path(__file__).resolve().parent.parent / "presets"
NAMES = [f"cifar{size}-lt-{network}" for size in (10, 100) for network in ("resnet32", "resnet32x4")]
# Small network, few steps: what is tested is the way through, not the figures.
QUICK = (
    "--imbalance-factor", 4, "--seeds", 1, "--set", "baseline.network=small", "--set", "baseline.epochs=2",
    "--set", "baseline.head_epochs=1", "--set", "baseline.batch_size=32", "--set", "diffuse.iterations=20",
    "--set", "diffuse.hidden=16", "--set", "finetune.epochs=1",
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_each_set_has_a_recipe_for_each_network(name: str) -> None:
    document = tomllib.loads((PRESETS / f"{name}.toml").read_text(encoding="utf-8"))
    size, network = name.removeprefix("cifar").split("-lt-")
    assert document["source"] == f"cifar-{size}-binary.tar.gz"
    assert (document["imbalance_factor"], document["out"]) == (100, f"runs/{name}")
    config = baseline_config(document["preset"], document["baseline"])
    assert config.network == network
    if network == "resnet32":
        assert (config.head, config.loss, config.epochs, config.uniformity) == (
            "wcdas", "balanced-softmax", 700, 1.0,
        )  # fmt: skip
    else:
        assert (config.consistency, config.max_norm) == (4.0, 1.0)
        assert (config.cumulative, config.nesterov) == (True, False)
        assert (config.epochs, config.batch_size, config.weight_decay) == (200, 64, 5e-3)


def write_archive(path: Path) -> None:
    """Write images in the binary layout of CIFAR-10, ten classes told apart by their colour."""
    draw, root = np.random.default_rng(0), "cifar-10-batches-bin"
    folder = path.parent / root
    folder.mkdir()
    for name, each in (*((f"data_batch_{part}.bin", 2) for part in range(1, 6)), ("test_batch.bin", 2)):
        labels = np.repeat(np.arange(10), each).astype(np.uint8)
        images = draw.integers(0, 60, (len(labels), 3, 1024), np.uint8)
        images += (20 * labels[:, None, None]).astype(np.uint8)
        rows = np.concatenate([labels[:, None], images.reshape(len(labels), -1)], axis=1)
        (folder / name).write_bytes(rows.tobytes())
    (folder / "batches.meta.txt").write_text("\n".join(f"class{label}" for label in range(10)) + "\n")
    with tarfile.open(path, "w:gz") as archive:
        archive.add(folder, root)


@pytest.mark.parametrize("name", NAMES[:2])
def test_a_file_runs_all_stages(run_cli, tmp_path: Path, monkeypatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    write_archive(tmp_path / "cifar-10-binary.tar.gz")
    (tmp_path / f"{name}.toml").write_text((PRESETS / f"{name}.toml").read_text(encoding="utf-8"))
    done = run_cli("run", f"{name}.toml", *QUICK, "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert [row["method"] for row in result["rows"]] == ["baseline", "baseline", "ldmlr", "ldmlr"]
    model = Baseline.load(next((tmp_path / "runs" / name).glob("seed-0/baseline-*")))
    assert model.config["uniformity" if name.endswith("32") else "consistency"] > 0
