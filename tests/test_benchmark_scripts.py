"""The scripts under benchmarks/ that nothing else runs: they work, on the smallest input; never how fast."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def run(folder: Path, script: str, *options: object) -> dict[str, Any]:
    """Run a script in `folder` and return the document it saves."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
    command = [sys.executable, str(BENCHMARKS / script), "--out", "out.json", *map(str, options)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads((folder / "out.json").read_text())
    return found


def test_stage1(tmp_path: Path) -> None:
    found = run(
        tmp_path, "stage1.py", "--network", "small", "--size", 8, "--batch-size", 4, "--repeats", 1,
        "--warmup", 1, "--threads", 1,
    )  # fmt: skip
    assert all(row["images_per_s"] > 0 for row in found["rows"])


def test_stage3_of_many_classes(tmp_path: Path) -> None:
    found = run(
        tmp_path, "stage3.py", "--rows", 600, "--generated", 900, "--dim", 16, "--classes", 30, "--epochs", 1
    )
    assert [row["what"] for row in found["rows"]] == [
        "recipe", "recipe, float32", "recipe, by autograd", "tuned",
    ]  # fmt: skip
    assert all(row["seconds"] > 0 and 0 <= row["accuracy"] <= 100 for row in found["rows"])
    accuracy = [row["accuracy"] for row in found["rows"][:2]]
    assert accuracy[0] == pytest.approx(accuracy[1], abs=0.5)


def test_engines(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    found = run(
        tmp_path, "engines.py", "--rows", 200, "--shards", 2, "--repeats", 1, "--dim", 4, "--hidden", 8
    )
    assert len(found["rows"]) == 6
    assert all(row.get("seconds", 1) > 0 and row.get("milliseconds", 1) > 0 for row in found["rows"])
    assert found["rows"][1]["fraction"] > 0


def test_fleet(tmp_path: Path) -> None:
    found = run(tmp_path, "fleet.py", "--rows", 2e7, "--seeds", 1)
    again = run(tmp_path, "fleet.py", "--rows", 2e7, "--seeds", 1)
    assert found["rows"] == again["rows"]
    by_case: dict[str, dict[str, float]] = {}
    for row in found["rows"]:
        value = next(row[name] for name in ("seconds", "operations", "fraction") if name in row)
        by_case.setdefault(row["setting"], {})[row["what"]] = value
    for times in by_case.values():
        # No resource is faster than alone; the manifest comes after the last shard.
        there = times["until all shards are there"]
        assert there >= max(times[what] for what in ("drawing", "disks", "network cards", "object storage"))
        assert times["until the manifest is there"] == pytest.approx(there + times["manifest"])
        assert 0 <= times["lost work"] < 1
    assert any(times["repeated shards"] for times in by_case.values()) or len(by_case) == 12


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peak memory is in bytes elsewhere")
def test_memory(tmp_path: Path) -> None:
    sizes = ("--rows", 100, 3000, "--dim", 4, "--hidden", 8, "--train", "1500x70")
    found = run(tmp_path, "memory.py", *sizes)
    assert [(row["what"], row["rows"]) for row in found["rows"]] == [
        ("generation to disk", 100), ("generation to disk", 3000), ("training", 1500),
    ]  # fmt: skip
    # NumPy and h5py alone take more than the first bound, PyTorch's libraries alone more than the second.
    assert all(30 < row["peak_mb"] < 250 for row in found["rows"][:2])
    assert 30 < found["rows"][2]["peak_mb"] < 2000


def test_learned(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    labels, test = np.repeat(np.arange(6), [130, 90, 60, 40, 30, 25]), np.repeat(np.arange(6), 20)
    with h5py.File(tmp_path / "wide.h5", "w") as file:
        for name, of in (("train", labels), ("test", test)):
            file[f"{name}/features"] = rng.standard_normal((len(of), 80)).astype(np.float32) + of[:, None]
            file[f"{name}/labels"] = of
    found = run(
        tmp_path, "learned.py", "--store", "wide.h5", "--widths", 16, "--seeds", 1, "--iterations", 5
    )  # fmt: skip
    figures = {(row["case"], row["what"]): row["figure"]["mean"] for row in found["rows"]}
    # Hardly trained, it is the Gaussian: 38 % of its rows lie between the modes.
    assert 30 < figures["two modes, D 16", "rows between the modes, %"] < 46
    assert 0.97 < figures["wide, all", "loss over the Gaussian's"] < 1.01
    assert 0.97 < figures["wide, few", "the same on the axes"] < 1.01
    assert figures["wide, all", "the same on held-out rows"] <= 1
    assert abs(figures["wide, drawn", "energy distance to test rows"]) < 1
    assert len(figures) == 1 + 3 * 2 + 1 + 3


def test_own_features(tmp_path: Path) -> None:
    found = run(
        tmp_path, "owndata.py", "--rows", 60, "--dim", 4, "--classes", 3, "--folds", 2, "--seeds", 1,
        "--generator", "gaussian", "--threads", 1,
    )  # fmt: skip
    assert found["seconds"] > 0
    assert {step["stage"] for step in found["steps"]} == {"measure", "generate", "finetune"}


def test_hindsight(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    with h5py.File(tmp_path / "s.h5", "w") as file:
        for name, counts in (("train", (40, 12)), ("test", (30, 30))):
            labels = np.repeat([0, 1], counts)
            file[f"{name}/features"] = (rng.standard_normal((len(labels), 3)) + labels[:, None]).astype("f4")
            file[f"{name}/labels"] = labels
    found = run(tmp_path, "hindsight.py", "s.h5")
    (source,) = found["sources"]
    (took,) = source["chosen"]
    assert source["methods"][took["method"]] == pytest.approx(source["balanced"]["mean"], abs=1e-3)
    assert source["methods"][source["best"]] == max(source["methods"].values())
    assert source["behind"] == pytest.approx(
        source["best_balanced"]["mean"] - source["balanced"]["mean"], abs=1e-3
    )
    assert [row["setting"] for row in found["rows"]] == ["chosen", "best in hindsight"]
    assert source["expected_lead"] >= 0
    assert source["behind_on_other_half"] <= source["behind"] + 5
    # What is there is not measured again.
    assert run(tmp_path, "hindsight.py", "s.h5")["created"] == found["created"]


def test_several_modes(tmp_path: Path) -> None:
    found = run(tmp_path, "several_modes.py", "wine", "--seeds", 2, "--quick")
    # What was measured in the same way stays in the file.
    more = run(tmp_path, "several_modes.py", "digits-pairs", "--seeds", 2, "--quick")
    assert [row for row in more["rows"] if row["data"] == "wine"] == found["rows"]
    data = {entry["data"]: entry for entry in more["data"]}
    assert list(data) == ["wine", "digits-pairs"]
    assert data["wine"]["train_rows"] == [28, 12, 4]
    assert data["digits-pairs"]["train_rows"] == [160, 76, 36, 16, 8]
    assert {row["method"] for row in found["rows"]} >= {"ldmlr", "ldmlr-modes", "gaussian", "smote"}
    comparisons = [entry for entry in more["comparisons"] if entry["data"] == "wine"]
    assert comparisons == found["comparisons"] != []
    for entry in comparisons:
        assert entry["outcome"] in ("ahead", "behind", "level", "undecided")
        assert 0 <= entry["seeds_ahead"] <= 2


def test_training_options(tmp_path: Path) -> None:
    name = "balanced softmax, restart, taught"
    found = run(tmp_path, "training_options.py", "--seeds", 2, "--folder", "runs", "--only", name)["rows"]
    assert [row["adjustment"] for row in found] == ["none", "label-shift"]
    assert all(row["setting"] == name and len(row["all"]["values"]) == 2 for row in found)
    for seed in ("seed-0", "seed-1"):
        files = (tmp_path / "runs" / seed).glob("*/step.json")
        models = [json.loads(path.read_text())["settings"]["teacher"] for path in files]
        # The first training has no teacher, and the second one that of the same seed.
        before, after = sorted(models, key=lambda model: model is not None)
        assert before is None
        assert Path(after).parts[:2] == ("runs", seed)


def test_latent_vs_image(tmp_path: Path) -> None:
    found = run(tmp_path, "latent_vs_image.py", "--rows", 64, "--images", 1, "--repeats", 1)
    assert found["parameters"]["image"] > 4_000_000
    assert [row["bytes"] for row in found["rows"]] == [256, 256, 4 * 3 * 32 * 32]
    assert found["ratios"]["operations"] > 1000


@pytest.fixture
def store(tmp_path: Path) -> str:
    """A store of three classes, with test rows, a head, and the two strong views that stage3.py looks for."""
    rng = np.random.default_rng(0)
    labels = {"train": np.repeat([0, 1, 2], [60, 20, 6]), "test": np.repeat([0, 1, 2], 30)}
    with h5py.File(tmp_path / "store.h5", "w") as file:
        for split, y in labels.items():
            x = rng.normal(size=(len(y), 5)) + 3 * np.eye(5)[y]
            file[f"{split}/features"], file[f"{split}/labels"] = x.astype(np.float32), y
        views = file["train/features"][:] + rng.normal(size=(4, 86, 5)).astype(np.float32)
        file["train/views"] = views
        file["train/views"].attrs["kinds"] = ["weak", "weak", "strong", "strong"]
        file["head/weight"], file["head/bias"] = np.eye(3, 5, dtype=np.float32), np.zeros(3, np.float32)
    return "store.h5"


def test_stage3(tmp_path: Path, store: str) -> None:
    found = run(tmp_path, "lab/stage3.py", store, "--seeds", 2, "--iterations", 5)["rows"]
    by_name = {(row["setting"], row["adjustment"]): row["all"] for row in found}
    assert len(by_name) == len(found) == 42
    assert all(len(figure["values"]) == 2 and figure["mean"] > 34 for figure in by_name.values())
    assert ("recipe, tau by a view", "label-shift") in by_name
    assert by_name["recipe", "none"] != by_name["mix from 0", "none"]


def test_precision(tmp_path: Path, store: str) -> None:
    found = run(tmp_path, "precision.py", store, "--seeds", 1)["rows"]
    by_name = {(row["setting"], row["adjustment"]): row["all"] for row in found}
    assert len(by_name) == len(found)
    assert {row["method"] for row in found} == {"ldmlr"}
    reference = by_name["reference, H 128, 10 steps", "none"]
    assert by_name["float32, H 128, 10 steps", "none"]["mean"] == pytest.approx(reference["mean"], abs=2)


def test_ceiling(tmp_path: Path, store: str) -> None:
    found = run(tmp_path, "lab/ceiling.py", store)["rows"]
    assert [row["setting"] for row in found] == ["rate 0.001", "rate 0.003", "rate 0.01"]
    assert all(80 < row["all"]["mean"] <= 100 for row in found)


def test_augment(tmp_path: Path) -> None:
    options = "--hidden", 16, "--layers", 1, "--iterations", 5, "--batch-size", 32
    found = run(tmp_path, "augment.py", "--stores", 2, "--threads", 1, "--in-turn", "--", *options)["rows"]
    assert [(row["stores"], row["threads"]) for row in found] == [(2, 1)] * 2
    assert all(row["stores_per_s"] == pytest.approx(2 / row["seconds"]) for row in found)
