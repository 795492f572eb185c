"""`ldmlr.encoders.trainer`: every option of training learns, resumes to the bit, reaches the store and
run.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from support.training import killed_before

from ldmlr.data import open_image_set
from ldmlr.encoders.baseline import train_baseline
from ldmlr.encoders.config import BaselineConfig
from ldmlr.encoders.model import Baseline
from ldmlr.encoders.recipes import PRESETS, baseline_config
from ldmlr.encoders.schedule import head_learning_rate
from ldmlr.encoders.trainer import Trainer
from ldmlr.errors import LdmlrError
from ldmlr.heads.headfile import FinetunedHead
from ldmlr.store import FeatureStore

OPTIONS = {
    "cutmix": {"cutmix": 1.0},
    "either": {"cutmix": 1.0, "mixup": 1.0},
    "two views": {"cutmix": 1.0, "mixup": 1.0, "consistency": 2.0},
    "cumulative": {"loss": "weighted", "cumulative": True, "ema": 0.9},
    "ldam": {"loss": "ldam", "head": "cosine"},
    "binary": {"loss": "binary", "uniformity": 0.5, "nesterov": False},
    "contrast": {"contrast": 0.5, "contrast_loss": "balanced", "head": "cosine"},
    "mixed contrast": {"contrast": 0.5, "contrast_loss": "binary", "mixup": 1.0, "cutmix": 1.0},
    "max norm": {"max_norm": 0.4, "weight_decay": 5e-3},
    "small first": {"first_size": 0.5},
    "head": {"head": "wcdas", "head_epochs": 2, "head_lr": 0.1, "ema": 0.9, "head_weight_decay": 0.01},
}


def quick(**changes) -> BaselineConfig:
    values = {"network": "small", "epochs": 3, "batch_size": 16, "precision": "float32", "mixup": 0.0}
    return BaselineConfig(**{**values, **changes})


def weights(folder: Path) -> dict[str, torch.Tensor]:
    with safe_open(folder / "model.safetensors", "pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118


def log(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("name", OPTIONS)
def test_a_resumed_training_ends_with_the_same_bits(image_file, tmp_path, name):
    images, config = open_image_set(image_file), quick(**OPTIONS[name])
    figures = train_baseline(images, config, tmp_path / "whole", device="cpu")
    assert figures["rows"][0]["all"]["mean"] > 50
    last = config.epochs + config.head_epochs - 1
    # Once in the first epochs, and again right before the last: with a head step, in the middle of it.
    for stop in (config.epochs - 1, last):
        with killed_before(stop):
            train_baseline(images, config, tmp_path / "parts", resume=True, device="cpu")
    train_baseline(images, config, tmp_path / "parts", resume=True, device="cpu")
    one, two = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert one.keys() == two.keys()
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert {key.split(".")[0] for key in one} == {"network", "head"}
    assert len(log(tmp_path / "parts")) == last + 1


def test_every_option_changes_the_training(image_file, tmp_path):
    images = open_image_set(image_file)
    found = {}
    for name, changes in {"plain": {}, **OPTIONS}.items():
        config = quick(**{**changes, "epochs": 1, "head": "linear", "ema": 0.0})
        train_baseline(images, config, tmp_path / name, device="cpu")
        found[name] = weights(tmp_path / name)["head.weight"]
    names = list(found)
    for index, name in enumerate(names):
        assert all(not torch.equal(found[name], found[other]) for other in names[:index])


def test_max_norm_holds_after_every_step(image_file, monkeypatch):
    images, seen = open_image_set(image_file), []
    config = quick(max_norm=0.4, head_epochs=1, epochs=1, lr=0.5)
    step = Trainer._descend

    def watched(self, rate):
        step(self, rate)
        seen.append(self.head.weight.detach().norm(dim=1))

    monkeypatch.setattr(Trainer, "_descend", watched)
    trainer = Trainer(config, images.train, 0, torch.device("cpu"))
    trainer.run(lambda: None)
    norms = torch.stack(seen)
    assert len(norms) == 8
    assert norms.max() <= 0.4 * (1 + 1e-6)
    assert (norms > 0.399).any(), "the bound was never reached"


def test_the_head_step_leaves_the_network_alone_and_draws_evenly(image_file, monkeypatch):
    images, drawn = open_image_set(image_file), []
    config = quick(head_epochs=3, head_lr=0.1, ema=0.9)
    trainer = Trainer(config, images.train, 0, torch.device("cpu"))
    step = Trainer._head_step

    def watched(self, images, targets, rate):
        assert not self.network.training
        drawn.append(targets.argmax(1))
        return step(self, images, targets, rate)

    monkeypatch.setattr(Trainer, "_head_step", watched)
    kept: list[dict[str, torch.Tensor]] = []
    trainer.run(lambda: kept.append({k: v.clone() for k, v in trainer.model.state_dict().items()}))
    assert len(kept) == 6
    network = [key for key in kept[0] if key.startswith("network.")]
    assert all(torch.equal(kept[3][key], kept[5][key]) for key in network)
    # The averaged weights, not the last ones, are what the head is trained on.
    assert not torch.equal(kept[2]["network.conv1.weight"], kept[3]["network.conv1.weight"])
    assert not torch.equal(kept[3]["objective.head.weight"], kept[5]["objective.head.weight"])
    counts = torch.bincount(torch.cat(drawn[:4]), minlength=3)
    assert counts.tolist() in ([21, 21, 20], [21, 20, 21], [20, 21, 21])
    assert [sorted(entry)[0] for entry in trainer.history] == ["epoch"] * 3 + ["head_epoch"] * 3
    rates = [entry["lr"] for entry in trainer.history[3:]]
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < 0.01 < rates[0] < 0.1


def test_the_rate_of_the_head_step_is_a_cosine():
    config = quick(head_epochs=30, head_lr=0.005)
    assert [head_learning_rate(config, epoch) for epoch in (0, 15, 30)] == pytest.approx([0.005, 0.0025, 0])


def test_the_head_step_is_cross_entropy_without_mixing(image_file, monkeypatch):
    """With a prior in the loss the head would over-correct: what it sees is balanced already."""
    images = open_image_set(image_file)
    config = quick(loss="balanced-softmax", mixup=1.0, epochs=1, head_epochs=1)
    trainer = Trainer(config, images.train, 0, torch.device("cpu"))
    calls = []

    def watched(logits, targets):
        calls.append(targets)
        return torch.nn.functional.cross_entropy(logits, targets)

    monkeypatch.setattr("ldmlr.encoders.trainer.cross_entropy", watched)
    trainer.run(lambda: None)
    assert len(calls) == 4
    assert all(((target == 0) | (target == 1)).all() for target in calls)


def test_the_first_epochs_see_smaller_images(image_file, monkeypatch):
    images, sides = open_image_set(image_file), []
    trainer = Trainer(quick(first_size=0.5, epochs=5, head_epochs=1), images.train, 0, torch.device("cpu"))
    features = Trainer._features

    def watched(self, batch):
        sides.append(batch.shape[2])
        return features(self, batch)

    monkeypatch.setattr(Trainer, "_features", watched)
    trainer.run(lambda: None)
    full = images.train.shape[0]
    steps = trainer.steps_per_epoch
    assert sides[::steps] == [full // 2, full // 2, full * 3 // 4, full * 3 // 4, full, full]


def test_presets_name_their_options():
    wcdas, glmc = baseline_config("cifar-wcdas"), baseline_config("cifar-glmc")
    assert (wcdas.head, wcdas.epochs, wcdas.head_epochs, wcdas.head_lr) == ("wcdas", 700, 30, 0.005)
    assert (glmc.loss, glmc.weight_power, glmc.cumulative) == ("weighted", 1.2, True)
    assert (glmc.lr, glmc.weight_decay, glmc.batch_size, glmc.epochs) == (0.01, 5e-3, 64, 200)
    short, mixed = baseline_config("cifar-wcdas-short"), baseline_config("cifar-wcdas-mixup")
    assert (mixed.loss, mixed.mixup, mixed.first_size, mixed.epochs) == ("balanced-softmax", 1.0, 0.75, 320)
    assert mixed.replace(loss="cross-entropy", mixup=0.0, first_size=0.5, epochs=100) == short
    bounded = baseline_config("cifar-glmc-maxnorm")
    assert bounded.max_norm > 0
    assert bounded.replace(max_norm=0.0, head_epochs=0, head_lr=0.005, head_weight_decay=None) == glmc


@pytest.mark.parametrize("preset", [name for name in PRESETS if name.startswith("cifar-")])
def test_every_cifar_preset_trains_and_goes_through_the_run(run_cli, image_file, tmp_path, preset):
    head = baseline_config(preset).head
    sets = {
        "baseline.network": "small", "baseline.epochs": 2, "baseline.batch_size": 16,
        "baseline.head_epochs": 1, "diffuse.iterations": 10, "diffuse.hidden": 8, "finetune.epochs": 1,
    }  # fmt: skip
    options = [part for key, value in sets.items() for part in ("--set", f"{key}={value}")]
    done = run_cli(
        "run", image_file, "--preset", preset, "--seeds", 1, "--out", tmp_path / "run", *options, "--json"
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert [row["method"] for row in result["rows"]] == ["baseline", "baseline", "ldmlr", "ldmlr"]
    assert result["baseline_head"] == "stored"
    # Stage 3 trains a head of the baseline's kind.
    tuned = FinetunedHead.load(next((tmp_path / "run").glob("seed-0/finetune-*/head.safetensors")))
    assert (tuned.head.kind, tuned.config.head) == (head, head)
    store = next((tmp_path / "run").glob("seed-0/encode-*/features.h5"))
    model = Baseline.load(next((tmp_path / "run").glob("seed-0/baseline-*")))
    with FeatureStore.open(store) as opened:
        assert opened.head is not None
        assert opened.head.kind == head
        assert np.array_equal(opened.head.weight, model.head.weight.detach().numpy())


def test_a_loss_of_the_head_alone_that_is_not_finite_names_its_own_options(run_cli, image_file, tmp_path):
    options = ("--network", "small", "--epochs", 2, "--head-epochs", 2, "--head-lr", 1e38, "--batch-size", 16)
    done = run_cli("baseline", image_file, *options, "--out", tmp_path / "out")
    expected = "baseline: the loss is no longer finite in head epoch 1; lower --head-lr (now 1e+38)"
    assert (done.returncode, expected in done.stderr, "--lr" in done.stderr) == (1, True, False), done.stderr


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"lr": 1e60}, "weights are no longer finite in epoch 1; lower lr"),
        (
            {"head_lr": 1e60, "head_epochs": 1},
            "weights are no longer finite in head epoch 1; lower head_lr",
        ),
    ],
)
def test_weights_that_the_last_step_broke_are_noticed(image_file, changes, words):
    images = open_image_set(image_file)
    config = quick(epochs=1, warmup_epochs=0.0, batch_size=len(images.train), **changes)
    trainer = Trainer(config, images.train, 0, torch.device("cpu"))
    with pytest.raises(LdmlrError, match=words):
        trainer.run(lambda: None)
