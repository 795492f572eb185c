"""``benchmarks/models.toml``: which encoders were trained, and where their weights and logs still are.

The weights are in the history, not in the tree; where the history is there, they are taken from it, loaded
and used.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from safetensors import safe_open

from ldmlr.encoders.model import file_hash
from ldmlr.store import FeatureStore

ROOT = Path(__file__).parent.parent
BENCHMARKS = ROOT / "benchmarks"
MODELS: dict[str, dict[str, Any]] = tomllib.loads((BENCHMARKS / "models.toml").read_text(encoding="utf-8"))[
    "models"
]
KEPT = [name for name, entry in MODELS.items() if "commit" in entry]


def result_of(name: str) -> dict[str, Any]:
    path = BENCHMARKS / "results" / "accuracy" / f"{MODELS[name]['experiment']}.json"
    return dict(json.loads(path.read_text(encoding="utf-8")))


def from_history(commit: str, path: str) -> bytes:
    done = subprocess.run(["git", "show", f"{commit}:{path}"], cwd=ROOT, capture_output=True, check=False)
    if done.returncode != 0:
        pytest.skip("this copy has no history")
    return done.stdout


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("models")

    def fetch(name: str) -> Path:
        path = Path(folder / f"{name}.safetensors")
        if not path.exists():
            path.write_bytes(from_history(MODELS[name]["commit"], MODELS[name]["path"]))
        return path

    return fetch


def test_every_training_has_an_entry() -> None:
    experiments = tomllib.loads((BENCHMARKS / "experiments.toml").read_text(encoding="utf-8"))["experiments"]
    trained = {name for name in experiments if name.startswith("baseline-")}
    assert {entry["experiment"] for entry in MODELS.values()} == trained
    for name, entry in MODELS.items():
        assert entry["experiment"] == f"baseline-{name}"
        assert experiments[entry["experiment"]]["commands"]  # how to train it again


def test_there_are_three_for_each_set_and_a_fourth() -> None:
    expected = [
        f"{data}-wcdas-{kind}" for data in ("cifar10", "cifar100") for kind in ("once", "taught", "wide")
    ]
    assert set(KEPT) == {*expected, "cifar100-wcdas-retaught"}


def test_the_teacher_is_the_one_before_it() -> None:
    for data in ("cifar10", "cifar100"):
        first, second, third = (f"{data}-wcdas-{kind}" for kind in ("once", "taught", "wide"))
        taught = result_of(second)
        assert taught["teacher"]["sha256"] == taught["init"]["sha256"] == MODELS[first]["sha256"]
        assert result_of(third)["teacher"]["sha256"] == MODELS[second]["sha256"]
        assert result_of(f"{data}-wcdas-x4")["teacher"]["sha256"] == MODELS[third]["sha256"]
    again = result_of("cifar100-wcdas-retaught")
    assert again["init"]["sha256"] == MODELS["cifar100-wcdas-taught"]["sha256"]
    assert again["teacher"]["sha256"] == MODELS["cifar100-wcdas-wide"]["sha256"]


@pytest.mark.parametrize("name", MODELS)
def test_the_log_is_in_the_history(name: str) -> None:
    entry = MODELS[name]
    log = from_history(entry["log_commit"], entry["log"])
    assert hashlib.sha256(log).hexdigest() == entry["log_sha256"]
    last = json.loads(log.decode().splitlines()[-1])
    assert last["loss"] == pytest.approx(result_of(name)["last_epoch"]["loss"], rel=1e-5)


@pytest.mark.parametrize("name", KEPT)
def test_it_is_the_one_that_was_measured(name: str, weights: Any) -> None:
    path = weights(name)
    assert (file_hash(path), path.stat().st_size) == (MODELS[name]["sha256"], MODELS[name]["size"])
    with safe_open(path, "np") as file:
        document = json.loads(file.metadata()["ldmlr"])
    measured = result_of(name)["config"]
    resolved = {"precision", "init"}  # auto became bfloat16
    for option, value in document["config"].items():
        if option not in resolved:
            assert measured[option] == value, option
    assert document["provenance"]["fingerprint"] == result_of(name)["fingerprint"]


@pytest.mark.parametrize("name", KEPT)
def test_it_encodes_images(name: str, weights: Any, tmp_path: Path, run_cli: Any) -> None:
    model = weights(name)
    with safe_open(model, "np") as file:
        header = json.loads(file.metadata()["ldmlr"])
        names = header["class_names"]
    rng, labels = np.random.default_rng(0), np.arange(len(names))
    with h5py.File(tmp_path / "images.h5", "w") as file:
        for split in ("train", "test"):
            file[f"{split}/images"] = rng.integers(0, 256, (len(names), 32, 32, 3), np.uint8)
            file[f"{split}/labels"] = labels
        file["class_names"] = names
    done = run_cli("encode", model, tmp_path / "images.h5", "--mirror", "--out", tmp_path / "features.h5")
    assert done.returncode == 0, done.stderr
    with FeatureStore.open(tmp_path / "features.h5") as store:
        rows = np.asarray(store.train.features[:])
        assert store.head is not None
    assert rows.shape == (len(names), 128 if header["network"] == "resnet32x2" else 64)
    assert np.isfinite(rows).all()
    assert rows.std(axis=0).max() > 0
