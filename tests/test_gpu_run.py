"""benchmarks/gpu_run.sh, the script for a machine with a GPU, on one without: parts and failures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from support.scripts import BENCHMARKS, script

from ldmlr.data.open import open_image_set
from ldmlr.encoders.config import BaselineConfig
from ldmlr.encoders.recipes import baseline_config

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize(("arguments", "word"), [((), "PART"), (("{out}", "speed"), "unknown part 'speed'")])
def test_the_script_for_a_gpu_machine_explains_itself(tmp_path: Path, arguments: tuple, word: str) -> None:
    command = [str(ROOT / "benchmarks" / "gpu_run.sh"), *(a.format(out=tmp_path) for a in arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert word in done.stderr


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_part_that_fails_is_reported_and_the_next_one_runs(tmp_path: Path) -> None:
    command = [str(ROOT / "benchmarks" / "gpu_run.sh"), str(tmp_path), "smoke", "tests", "sample"]
    environment = {**os.environ, "PYTHON": sys.executable}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    found = json.loads((tmp_path / "summary.json").read_text())
    assert [part["part"] for part in found["parts"]] == ["smoke", "tests", "sample"]
    assert all(part["state"].startswith("failed") for part in found["parts"])
    assert "Error: " in done.stdout
    lines = (tmp_path / "smoke.log").read_text().splitlines()
    assert sum(line.startswith("== ") for line in lines) == 6  # five tiers and the trainer
    with tarfile.open(tmp_path / "results.tgz") as archive:
        assert {"./smoke.log", "./sample.log", "./summary.json"} <= set(archive.getnames())


def test_encoders_are_trained_and_go_through_the_run(tmp_path: Path) -> None:
    command, back = (
        [str(ROOT / "benchmarks" / "gpu_run.sh"), str(tmp_path), "encoders"],
        str(tmp_path / "back"),
    )
    environment = {
        **os.environ, "PYTHON": sys.executable, "LDMLR_GPU_DEVICE": "cpu", "LDMLR_GPU_SEEDS": "1",
        "LDMLR_GPU_ENCODERS": "digits=digits-lt", "LDMLR_GPU_ENCODER_EPOCHS": "30", "LDMLR_GPU_BACK": back,
    }  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert "encoders   ok" in done.stdout
    result = json.loads((tmp_path / "digits" / "run.json").read_text())
    assert [row["method"] for row in result["rows"]] == ["baseline", "baseline", "ldmlr", "ldmlr"]
    assert json.loads((tmp_path / "digits" / "result.json").read_text())["epochs"] == 30
    # What comes back: the model and the store in pieces, and the figures.
    names = {path.name for path in (tmp_path / "back").iterdir()}
    assert names == {"digits.model.00", "digits.features.00", "results.tgz"}
    pieces = sorted((tmp_path / "back").glob("digits.model.*"))
    whole = b"".join(piece.read_bytes() for piece in pieces)
    assert whole == (tmp_path / "digits" / "model.safetensors").read_bytes()
    with tarfile.open(tmp_path / "back" / "results.tgz") as archive:
        assert {"./digits/result.json", "./digits/run.json", "./digits/train.jsonl"} <= set(
            archive.getnames()
        )


def test_recipes_on_packed_images_go_on_in_the_next_call(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    with h5py.File(tmp_path / "images.h5", "w") as file:
        for split, counts in (("train", (60, 20, 6)), ("test", (5, 5, 5))):
            labels = np.repeat(np.arange(3), counts)
            images = rng.integers(0, 90, (len(labels), 12, 12, 3), np.uint8)
            images[np.arange(len(labels)), :, :, labels] += 120
            file[f"{split}/images"], file[f"{split}/labels"] = images, labels
    packer, packed = ROOT / "benchmarks" / "pack_images.py", tmp_path / "packed.xz"
    subprocess.run([sys.executable, packer, "pack", tmp_path / "images.h5", packed], check=True)
    recipe = 'preset = "cifar-glmc-maxnorm"\nseeds = 1\n[baseline]\nnetwork = "small"\nhead_epochs = 1\n'
    (tmp_path / "one.toml").write_text(recipe)
    (tmp_path / "two.toml").write_text(recipe)
    command, out = (
        [str(ROOT / "benchmarks" / "gpu_run.sh"), str(tmp_path / "out"), "encoders"],
        tmp_path / "out",
    )
    environment = {
        **os.environ, "PYTHON": sys.executable, "LDMLR_GPU_DEVICE": "cpu", "LDMLR_GPU_SEEDS": "1",
        "LDMLR_GPU_ENCODERS": f"{tmp_path}/one.toml={packed} {tmp_path}/two.toml={tmp_path}/images.h5",
    }  # fmt: skip
    # As if the first call had ended before a single epoch, and the second one takes up what it had begun.
    (out / "one").mkdir(parents=True)
    (out / "one" / "epochs").write_text("3\n")
    environment["LDMLR_GPU_ENCODER_EPOCHS"] = "2"
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert "encoders   ok" in done.stdout
    before = {}
    for name, epochs in (("one", 3), ("two", 2)):
        result = json.loads((out / name / "result.json").read_text())
        assert (result["epochs"], result["head_epochs"], result["config"]["loss"]) == (epochs, 1, "weighted")
        assert json.loads((out / name / "run.json").read_text())["rows"]
        before[name] = (out / name / "model.safetensors").stat().st_mtime_ns
    # What is done is not done again.
    subprocess.run(command, capture_output=True, check=True, env=environment)
    assert before == {name: (out / name / "model.safetensors").stat().st_mtime_ns for name in before}


def test_as_many_epochs_as_fit() -> None:
    """The time less a reserve and the epochs of the head alone; early epochs on smaller images cost less."""
    fit = script(BENCHMARKS / "fit_epochs.py")
    config = BaselineConfig(epochs=200)
    assert fit.fitting_epochs(config, 1.0, 100.0) == 93
    assert fit.fitting_epochs(config, 1.0, 1000.0) == 400
    assert fit.fitting_epochs(config, 1.0, 0.9) == fit.fitting_epochs(config, 1.0, -5.0) == 0
    assert fit.fitting_epochs(config.replace(head_epochs=9), 1.0, 100.0) == 90
    # A side from 1/2 to 1 over four fifths of the epochs: between a quarter and all of the work.
    assert 100 < fit.fitting_epochs(config.replace(first_size=0.5), 1.0, 100.0) < 4 * 93
    for size in (10, 100):
        recipe = fit.recipe(str(ROOT / "presets" / f"cifar{size}-lt-resnet32x4.toml"))
        assert (recipe.network, recipe.consistency, recipe.max_norm) == ("resnet32x4", 4.0, 1.0)
    assert fit.recipe("cifar-glmc").network == "resnet32"
    images = open_image_set("digits-lt")
    quick = baseline_config("digits").replace(batch_size=369)
    assert 0 < fit.seconds_per_epoch(quick, images.train, torch.device("cpu")) < 60
