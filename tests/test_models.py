"""The encoders in benchmarks/models: they load, encode, and are those of the results."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from safetensors import safe_open

from ldmlr.encoders.model import file_hash
from ldmlr.store import FeatureStore

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
MODELS = sorted((BENCHMARKS / "models").glob("*.safetensors"))


def result_of(model: Path) -> dict:
    return json.loads((BENCHMARKS / "results" / f"baseline-{model.stem}.json").read_text(encoding="utf-8"))


def model_of(name: str, kind: str) -> Path:
    return BENCHMARKS / "models" / f"{name}-lt-if100-wcdas-{kind}.safetensors"


def test_there_are_three_for_each_set_and_a_fourth() -> None:
    expected = [
        model_of(name, kind) for name in ("cifar10", "cifar100") for kind in ("once", "taught", "wide")
    ]
    assert set(MODELS) == {*expected, model_of("cifar100", "retaught")}


@pytest.mark.parametrize("model", MODELS, ids=lambda path: path.stem)
def test_it_is_the_one_that_was_measured(model: Path) -> None:
    with safe_open(model, "np") as file:
        document = json.loads(file.metadata()["ldmlr"])
    measured = result_of(model)["config"]
    resolved = {"precision", "init"}  # auto became bfloat16
    for name, value in document["config"].items():
        if name not in resolved:
            assert measured[name] == value, name
    assert document["provenance"]["fingerprint"] == result_of(model)["fingerprint"]


def test_the_teacher_is_the_one_before_it() -> None:
    for name in ("cifar10", "cifar100"):
        first, second, third = (model_of(name, kind) for kind in ("once", "taught", "wide"))
        taught = result_of(second)
        assert taught["teacher"]["sha256"] == taught["init"]["sha256"] == file_hash(first)
        assert result_of(third)["teacher"]["sha256"] == file_hash(second)
    again = result_of(model_of("cifar100", "retaught"))
    assert again["init"]["sha256"] == file_hash(model_of("cifar100", "taught"))
    assert again["teacher"]["sha256"] == file_hash(model_of("cifar100", "wide"))


@pytest.mark.parametrize("model", MODELS, ids=lambda path: path.stem)
def test_it_encodes_images(model: Path, tmp_path: Path, run_cli) -> None:
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
