"""`ldmlr.encoders.baseline`, stage 1: schedule, averages, exact resume, model, bad input."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from support.training import killed_before
from torch import nn

from ldmlr.data import open_image_set
from ldmlr.data.images import ArraySplit
from ldmlr.data.imageset import ImageSet
from ldmlr.encoders.baseline import train_baseline
from ldmlr.encoders.config import BaselineConfig
from ldmlr.encoders.ema import Ema
from ldmlr.encoders.model import Baseline
from ldmlr.encoders.pixels import Pixels, even_batches
from ldmlr.encoders.precision import resolve_precision
from ldmlr.encoders.recipes import PRESETS, baseline_config, default_preset
from ldmlr.encoders.schedule import learning_rate
from ldmlr.errors import InputError, LdmlrError, UsageError


def quick(**changes) -> BaselineConfig:
    values = {"network": "small", "epochs": 3, "batch_size": 16, "precision": "float32", "mixup": 0.0}
    return BaselineConfig(**{**values, **changes})


def weights(folder: Path) -> dict[str, torch.Tensor]:
    with safe_open(folder / "model.safetensors", "pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118


# --- configuration -----------------------------------------------------------------------------


def test_presets_are_configurations_and_follow_the_image_size():
    assert baseline_config("cifar-ce-mixup") == BaselineConfig()
    for name in PRESETS:
        assert baseline_config(name, {"epochs": 7, "lr": None, "augment": ()}).epochs == 7
    wcdas = baseline_config("cifar-wcdas")
    assert (wcdas.head, wcdas.batch_size, wcdas.lr, wcdas.weight_decay) == ("wcdas", 256, 0.2, 1e-4)
    assert "autoaugment" in wcdas.augment
    assert [default_preset(size) for size in (8, 16, 17, 64, 224)] == [
        "digits", "digits", "cifar-ce-mixup", "cifar-ce-mixup", "imagenet-ce",
    ]  # fmt: skip


def test_augmentations_are_put_in_order():
    assert BaselineConfig(augment=("cutout", "flip", "crop")).augment == ("crop", "flip", "cutout")
    assert BaselineConfig(augment="flip,crop").augment == ("crop", "flip")
    assert BaselineConfig(augment=("none",)).augment == ()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"augment": ("flop",)}, "augment: unknown value 'flop'; did you mean 'flip'"),
        ({"augment": ("none", "flip")}, "none excludes the others"),
        ({"augment": ("crop", "resized-crop")}, "exclude each other"),
        ({"ema": 1.0}, "ema: must be below 1"),
        ({"head": "liner"}, "head: unknown value 'liner'; did you mean 'linear'"),
        ({"epochs": 0}, "epochs: must be at least 1"),
        ({"lr": 0.0}, "lr: must be above 0"),
        ({"mixup": -1.0}, "mixup: must be at least 0"),
        ({"batch_size": 1}, "batch_size: must be at least 2"),
    ],
)
def test_wrong_values_name_the_option(changes, message):
    with pytest.raises(UsageError, match=message):
        quick(**changes)


# --- parts of the training ---------------------------------------------------------------------


def test_cosine_with_warm_up():
    config = BaselineConfig(epochs=200, lr=0.4, warmup_epochs=5)
    assert learning_rate(config, 0) == 0
    assert learning_rate(config, 2.5) == pytest.approx(0.2)
    assert learning_rate(config, 5) == pytest.approx(0.4)
    assert learning_rate(config, 102.5) == pytest.approx(0.2)
    assert learning_rate(config, 200) == pytest.approx(0, abs=1e-15)
    rates = [learning_rate(config, epoch) for epoch in np.linspace(5, 200, 300)]
    assert rates == sorted(rates, reverse=True)


def test_steps_and_short_trainings():
    config = BaselineConfig(schedule="step", epochs=10, milestones=(4, 8), warmup_epochs=0)
    assert [learning_rate(config, epoch) for epoch in (0, 3.9, 4, 8.5)] == pytest.approx(
        [0.1, 0.1, 0.01, 0.001]
    )
    short = BaselineConfig(epochs=4, warmup_epochs=5)
    assert learning_rate(short, 0.5) == pytest.approx(0.05)
    assert learning_rate(short, 1) == pytest.approx(0.1)


def test_averaged_weights():
    module = nn.BatchNorm1d(2)
    ema = Ema(module, 0.9)
    expected = module.weight.detach().clone()
    for step in range(1, 40):
        with torch.no_grad():
            module.weight.add_(1)
        module(torch.randn(4, 2))
        ema.update(module)
        expected = torch.lerp(expected, module.weight.detach(), 1 - min(0.9, (1 + step) / (10 + step)))
    torch.testing.assert_close(ema.state["weight"], expected)
    assert ema.state["num_batches_tracked"] == 39
    assert not torch.equal(ema.state["weight"], module.weight)


@given(st.integers(1, 500), st.integers(2, 64))
def test_batches_are_even(rows, size):
    batches = even_batches(np.arange(rows), size)
    lengths = [len(batch) for batch in batches]
    assert np.array_equal(np.concatenate(batches), np.arange(rows))
    assert max(lengths) <= max(size, 3)
    assert max(lengths) - min(lengths) <= 1
    # Batch normalisation has no statistics of one row.
    assert min(lengths) > 1 or rows == 1


def test_pixels_in_memory_and_read_ahead_are_the_same(colour_images):
    images, labels = colour_images((20, 5))
    split = ArraySplit(images, labels, 2)
    plan = [np.array([3, 1, 20]), np.array([0]), np.array([24, 24])]
    kept, streamed = Pixels(split), Pixels(split, memory_limit=0)
    for (rows, first), (_, second) in zip(kept.batches(plan), streamed.batches(plan), strict=True):
        assert np.array_equal(first.permute(0, 2, 3, 1).numpy(), images[rows])
        assert torch.equal(first, second)
    mean, std = streamed.statistics()
    assert mean == pytest.approx(images.reshape(-1, 3).mean(0))
    assert std == pytest.approx(images.reshape(-1, 3).std(0))


def test_statistics_of_blank_images_do_not_divide_by_zero():
    split = ArraySplit(np.full((4, 8, 8, 1), 7, np.uint8), np.array([0, 0, 1, 1]), 2)
    assert Pixels(split).statistics() == ([7.0], [1.0])


def test_precision_is_resolved_or_refused():
    cpu = torch.device("cpu")
    assert resolve_precision("float32", cpu) == "float32"
    assert resolve_precision("auto", cpu) in ("float32", "bfloat16")
    with pytest.raises(UsageError, match="float16 needs a CUDA device"):
        resolve_precision("float16", cpu)


# --- training ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"mixup": 1.0, "loss": "balanced-softmax", "augment": ("crop", "flip", "cutout"), "cutout_size": 3},
        {"head": "wcdas", "ema": 0.9, "schedule": "step", "milestones": (2,)},
        {"head": "cosine", "precision": "bfloat16", "augment": ("resized-crop", "autoaugment")},
    ],
)
def test_a_training_learns_and_is_repeatable(image_file, tmp_path, changes):
    images = open_image_set(image_file)
    config = quick(**{"epochs": 6, **changes})
    first = train_baseline(images, config, tmp_path / "a", seed=1, device="cpu")
    train_baseline(images, config, tmp_path / "b", seed=1, device="cpu")
    one, two = weights(tmp_path / "a"), weights(tmp_path / "b")
    assert all(torch.equal(one[key], two[key]) for key in one)
    log = [json.loads(line) for line in (tmp_path / "a" / "train.jsonl").read_text().splitlines()]
    assert [entry["epoch"] for entry in log] == [1, 2, 3, 4, 5, 6]
    assert all(math.isfinite(entry["loss"]) and entry["seconds"] > 0 for entry in log)
    assert first["rows"][0]["all"]["mean"] > 50
    assert not (tmp_path / "a" / "checkpoint.pt").exists()
    other = train_baseline(images, config, tmp_path / "c", seed=2, device="cpu")
    assert other["seed"] == 2
    assert not torch.equal(weights(tmp_path / "c")["head.weight"], one["head.weight"])


def test_the_global_generator_is_left_alone(image_file, tmp_path):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    train_baseline(open_image_set(image_file), quick(epochs=1), tmp_path / "a", device="cpu")
    assert torch.equal(torch.rand(3), expected)


def test_the_model_file_says_everything(image_file, tmp_path):
    images = open_image_set(image_file)
    train_baseline(images, quick(head="wcdas"), tmp_path / "a", seed=3, device="cpu")
    model = Baseline.load(tmp_path / "a")
    assert model.class_names == ("red", "green", "blue")
    assert (model.name, model.shape, model.dim, model.head.kind) == ("small", (8, 8, 3), 64, "wcdas")
    assert model.provenance["counts"] == [40, 16, 6]
    assert model.provenance["seed"] == 3
    assert model.config["head"] == "wcdas"
    assert model.mean == pytest.approx(images.train.load(slice(0, 62)).mean((0, 1, 2)))
    model.save(tmp_path / "copy.safetensors")
    again = Baseline.load(tmp_path / "copy.safetensors")
    batch = torch.from_numpy(images.test.load(slice(0, 4))).permute(0, 3, 1, 2)
    cpu = torch.device("cpu")
    assert torch.equal(again.features(batch, cpu), model.features(batch, cpu))


@pytest.mark.parametrize("changes", [{"mixup": 1.0}, {"ema": 0.9, "precision": "bfloat16"}])
def test_a_resumed_training_ends_with_the_same_bits(image_file, tmp_path, changes):
    images = open_image_set(image_file)
    config = quick(epochs=4, **changes)
    train_baseline(images, config, tmp_path / "whole", device="cpu")
    with killed_before(2):
        train_baseline(images, config, tmp_path / "parts", device="cpu")
    assert not (tmp_path / "parts" / "model.safetensors").exists()
    with pytest.raises(UsageError, match="an interrupted run left its work here; go on with resume=True"):
        train_baseline(images, config, tmp_path / "parts", device="cpu")
    with pytest.raises(UsageError, match=r"was made with lr 0\.1, not 0\.2"):
        train_baseline(images, config.replace(lr=0.2), tmp_path / "parts", resume=True, device="cpu")
    train_baseline(images, config, tmp_path / "parts", resume=True, device="cpu")
    one, two = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert len((tmp_path / "parts" / "train.jsonl").read_text().splitlines()) == 4


def test_a_killed_command_resumes_to_the_same_bits(image_file, tmp_path):
    code = "import sys; from ldmlr_cli.main import main; main(sys.argv[1:])"
    changes = {"network": "small", "epochs": 30, "batch_size": 4, "precision": "float32"}
    options = [f"--{key.replace('_', '-')}={value}" for key, value in changes.items()]
    command = [sys.executable, "-c", code, "baseline", str(image_file), *options, "--threads", "1"]
    folder = tmp_path / "killed"
    process = subprocess.Popen([*command, "--out", str(folder)], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (folder / "train.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (folder / "model.safetensors").exists()
    done = len((folder / "train.jsonl").read_text().splitlines())
    assert 0 < done < 30
    images = open_image_set(image_file)
    config = baseline_config("digits", changes)
    for out, resume in ((folder, True), (tmp_path / "whole", False)):
        train_baseline(images, config, out, resume=resume, device="cpu", threads=1)
    one, two = weights(folder), weights(tmp_path / "whole")
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_a_loss_that_explodes_is_told(image_file, tmp_path):
    with pytest.raises(LdmlrError, match=r"no longer finite in epoch \d; lower lr \(now 1e\+30\)"):
        train_baseline(open_image_set(image_file), quick(lr=1e30), tmp_path / "a", device="cpu")
    assert not (tmp_path / "a" / "model.safetensors").exists()


def test_held_out_images_are_not_trained_on(image_file, tmp_path):
    images = open_image_set(image_file)
    figures = train_baseline(images, quick(val_fraction=0.25), tmp_path / "a", device="cpu")
    assert (figures["train_images"], figures["val_images"]) == (46, 16)
    assert Baseline.load(tmp_path / "a").provenance["counts"] == [30, 12, 4]
    both = ImageSet("x", images.train, None, images.test, images.class_names, {"source": "x"})
    with pytest.raises(UsageError, match="has validation images already"):
        train_baseline(both, quick(val_fraction=0.25), tmp_path / "b", device="cpu")


def test_a_network_that_fails_in_training_is_told(image_file, tmp_path, monkeypatch):
    (tmp_path / "fragile_net.py").write_text(
        "import torch\nfrom torch import nn\n"
        "class Net(nn.Module):\n"
        "    def forward(self, x):\n"
        "        if self.training:\n"
        "            raise RuntimeError('only for\\n looking at')\n"
        "        return x.mean((2, 3))\n"
        "    weight = None\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(LdmlrError, match=r"fragile_net:Net: failed in training .only for looking at"):
        train_baseline(
            open_image_set(image_file), quick(network="fragile_net:Net"), tmp_path / "a", device="cpu"
        )
    sys.modules.pop("fragile_net")


# --- model files and checkpoints that are not --------------------------------------------------


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a safetensors file, or damaged"),
        (b"\x80\x04pickle", "not a safetensors file, or damaged"),
        (None, "no such model"),
    ],
)
def test_a_damaged_model_is_refused(tmp_path, content, message):
    path = tmp_path / "model.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        Baseline.load(path)


def test_a_damaged_checkpoint_is_refused(image_file, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "checkpoint.pt").write_bytes(b"damaged")
    with pytest.raises(
        InputError, match=r"checkpoint\.pt: damaged checkpoint .*start again with overwrite=True"
    ):
        train_baseline(open_image_set(image_file), quick(), tmp_path / "a", resume=True, device="cpu")
    train_baseline(open_image_set(image_file), quick(), tmp_path / "a", overwrite=True, device="cpu")
    assert (tmp_path / "a" / "model.safetensors").exists()
