"""`ldmlr.encoders.start`, ``--init``: a training starts from the weights of an earlier one, in whole or in
part, or says why not.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import h5py
import pytest
import torch
from support.training import killed_before

from ldmlr.data import open_image_set
from ldmlr.encoders.baseline import train_baseline
from ldmlr.encoders.config import BaselineConfig
from ldmlr.encoders.model import Baseline, file_hash
from ldmlr.encoders.start import Start
from ldmlr.encoders.trainer import Trainer
from ldmlr.errors import InputError, UsageError

QUICK = {"network": "small", "epochs": 2, "batch_size": 16, "precision": "float32", "mixup": 0.0}


def quick(**changes) -> BaselineConfig:
    return BaselineConfig(**{**QUICK, **changes})


@pytest.fixture
def first(image_file, tmp_path) -> Path:
    train_baseline(open_image_set(image_file), quick(), tmp_path / "first", device="cpu")
    return tmp_path / "first"


def begin(images, config: BaselineConfig) -> Trainer:
    """A trainer before its first step."""
    start = Start.open(config)
    assert start is not None
    return Trainer(
        config, images.train, 0, torch.device("cpu"),
        lambda network, head: start.fill(network, head, images.class_names, config),
    )  # fmt: skip


def same(one: torch.nn.Module, two: torch.nn.Module) -> bool:
    left, right = one.state_dict(), two.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


def test_network_head_and_averages_start_there(image_file, first):
    images, model = open_image_set(image_file), Baseline.load(first)
    trainer = begin(images, quick(init=str(first), ema=0.9, loss="weighted", cumulative=True))
    assert same(trainer.network, model.network)
    assert same(trainer.head, model.head)
    assert trainer.objective.plain_head is not None
    assert same(trainer.objective.plain_head, model.head)
    assert trainer.ema is not None
    weight = model.network.state_dict()["conv1.weight"]
    assert torch.equal(trainer.ema.state["network.conv1.weight"], weight)


def test_a_head_that_is_taken_along_keeps_its_concentration(image_file, tmp_path):
    images = open_image_set(image_file)
    train_baseline(images, quick(head="wcdas"), tmp_path / "wcdas", device="cpu")
    begin(images, quick(init=str(tmp_path / "wcdas"), head="wcdas"))
    with pytest.raises(UsageError, match=r"concentration: .* brings a head with its own along; leave"):
        begin(images, quick(init=str(tmp_path / "wcdas"), head="wcdas", concentration=1.0))


def test_a_head_of_another_kind_or_other_classes_starts_afresh(image_file, colour_images, tmp_path, first):
    images, model = open_image_set(image_file), Baseline.load(first)
    config = quick(init=str(first), head="wcdas", concentration=-1.0)
    trainer = begin(images, config)
    assert same(trainer.network, model.network)
    assert trainer.head.kind == "wcdas"
    assert torch.equal(trainer.head.concentration, torch.full((3,), -1.0))

    pixels, labels = colour_images((12, 12, 12))
    labels[-4:] = 3
    with h5py.File(tmp_path / "four.h5", "w") as file:
        file["train/images"], file["train/labels"] = pixels, labels
    four = open_image_set(tmp_path / "four.h5")
    trainer = begin(four, quick(init=str(first)))
    assert same(trainer.network, model.network)
    assert trainer.head.num_classes == 4
    figures = train_baseline(four, quick(init=str(first)), tmp_path / "transfer", device="cpu")
    assert figures["init"]["head"] is False


def test_a_restart_knows_all_epochs_before_it(image_file, tmp_path, first):
    images = open_image_set(image_file)
    second = train_baseline(images, quick(init=str(first), epochs=3), tmp_path / "second", device="cpu")
    assert (second["epochs"], second["init"]["epochs"], second["init"]["head"]) == (3, 2, True)
    assert second["init"]["sha256"] == file_hash(first / "model.safetensors")
    third = train_baseline(
        images, quick(init=str(tmp_path / "second"), epochs=1), tmp_path / "third", device="cpu"
    )
    assert third["init"]["epochs"] == 5
    assert Baseline.load(tmp_path / "third").provenance["init"]["config"]["epochs"] == 3


def test_going_on_keeps_what_was_learnt(image_file, tmp_path, first):
    """An epoch at a tiny rate leaves the accuracy where it was; random weights would not have it."""
    images = open_image_set(image_file)
    train_baseline(images, quick(epochs=20, lr=0.05), tmp_path / "long", device="cpu")
    before = train_baseline(
        images, quick(epochs=1, lr=1e-6, init=str(tmp_path / "long")), tmp_path / "a", device="cpu"
    )
    fresh = train_baseline(images, quick(epochs=1, lr=1e-6), tmp_path / "b", device="cpu")
    assert before["rows"][0]["all"]["mean"] > 90 > fresh["rows"][0]["all"]["mean"]


def test_a_checkpoint_belongs_to_the_weights_it_started_from(image_file, tmp_path, first):
    images, config = open_image_set(image_file), quick(init=str(first))
    whole = train_baseline(images, config, tmp_path / "whole", device="cpu")
    with killed_before(1):
        train_baseline(images, config, tmp_path / "parts", device="cpu")
    shutil.copytree(tmp_path / "parts", tmp_path / "other")
    parts = train_baseline(images, config, tmp_path / "parts", resume=True, device="cpu")
    assert parts["rows"] == whole["rows"]
    assert file_hash(Path(parts["model"])) == file_hash(Path(whole["model"]))
    # Other weights under the same name are another training.
    train_baseline(images, quick(), first, seed=1, overwrite=True, device="cpu")
    with pytest.raises(UsageError, match=r"was made with init '\w{64}', not"):
        train_baseline(images, config, tmp_path / "other", resume=True, device="cpu")


def test_images_that_the_weights_have_seen_are_not_held_out(image_file, tmp_path, first):
    images = open_image_set(image_file)
    with pytest.raises(UsageError, match="may have been trained on images that"):
        train_baseline(images, quick(init=str(first), val_fraction=0.2), tmp_path / "x", device="cpu")
    train_baseline(images, quick(val_fraction=0.2), tmp_path / "held", device="cpu")
    config = quick(init=str(tmp_path / "held"), val_fraction=0.2)
    assert train_baseline(images, config, tmp_path / "y", device="cpu")["val_images"] == 12
    with pytest.raises(UsageError, match="val_fraction"):
        train_baseline(images, config, tmp_path / "z", seed=1, device="cpu")
    # A final training on everything may start there, but then no image is unseen any more.
    train_baseline(images, quick(init=str(tmp_path / "held")), tmp_path / "all", device="cpu")
    with pytest.raises(UsageError, match="may have been trained on images that"):
        train_baseline(
            images, quick(init=str(tmp_path / "all"), val_fraction=0.2), tmp_path / "z", device="cpu"
        )


def test_images_of_another_draw_may_be_the_same_ones(run_cli, image_file, tmp_path):
    """Two draws of one set share images, though their fingerprints differ."""
    base = ("baseline", image_file, "--network", "small", "--epochs", 1)
    done = run_cli(*base, "--imbalance-factor", 2, "--out", tmp_path / "a")
    assert done.returncode == 0, done.stderr
    held = ("--imbalance-factor", 3, "--val-fraction", 0.2)
    done = run_cli(*base, *held, "--init", tmp_path / "a", "--out", tmp_path / "b")
    assert done.returncode == 2
    assert "--init" in done.stderr
    assert "--val-fraction would hold out" in done.stderr


@pytest.mark.parametrize("more", [{"init": None}, {"teacher": None, "distil": 0.7}], ids=["init", "teacher"])
def test_a_run_takes_a_model_and_runs_again_where_it_changed(run_cli, image_file, tmp_path, first, more):
    name = next(iter(more))
    sets = {**QUICK, **more, name: first, "epochs": 1}
    options = [part for key, value in sets.items() for part in ("--set", f"baseline.{key}={value}")]
    small = ("--set", "diffuse.iterations=10", "--set", "diffuse.hidden=8", "--set", "finetune.epochs=1")

    def run() -> list[str]:
        done = run_cli("run", image_file, "--seeds", 1, "--out", tmp_path / "run", *options, *small, "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["config"]["baseline"][name] == str(first)
        return sorted(path.name for path in (tmp_path / "run" / "seed-0").glob("baseline-*"))

    assert run() == run()
    train_baseline(open_image_set(image_file), quick(), first, seed=1, overwrite=True, device="cpu")
    assert len(run()) == 2


def test_the_dry_run_says_where_it_starts(run_cli, image_file, first):
    options = ("--network", "small", "--init", first, "--dry-run")
    plan = json.loads(run_cli("baseline", image_file, *options, "--json").stdout)
    assert plan["starts_from"] == str(first / "model.safetensors")
    assert plan["earlier_epochs"] == 2
    assert "starts from" in run_cli("baseline", image_file, *options).stdout
    assert "starts_from" not in json.loads(run_cli("baseline", image_file, "--dry-run", "--json").stdout)


def test_the_dry_run_holds_out_the_images_of_the_seed(run_cli, image_file, tmp_path):
    held = tmp_path / "held"
    train_baseline(open_image_set(image_file), quick(val_fraction=0.2), held, seed=1, device="cpu")
    for used in ("--init", "--teacher"):
        options = ("--network", "small", used, held, "--val-fraction", 0.2, "--dry-run")
        fine = run_cli("baseline", image_file, *options, "--seed", 1)
        assert fine.returncode == 0, fine.stderr
        done = run_cli("baseline", image_file, *options, "--seed", 2)
        assert (done.returncode, f"{used} {held}" in done.stderr) == (2, True), done.stderr


@pytest.mark.parametrize("dry", [True, False])
def test_wrong_use_is_one_line(run_cli, image_file, tmp_path, first, dry):
    grey = tmp_path / "grey.h5"
    with h5py.File(image_file) as file, h5py.File(grey, "w") as out:
        out["train/images"], out["train/labels"] = file["train/images"][..., :1], file["train/labels"][:]
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(b"no model")
    cases = [
        (image_file, ("--init", tmp_path / "none"), "none: no such model; check the path"),
        (image_file, ("--init", bad), "bad.safetensors: not a safetensors file, or damaged"),
        (image_file, ("--init", first, "--network", "resnet32"), "holds the network small, not resnet32"),
        (grey, ("--init", first), "its weights are for images [8, 8, 3]"),
        (image_file, ("--init", first, "--val-fraction", 0.2), "may have been trained on images that"),
    ]
    for source, options, words in cases:
        end = ("--dry-run",) if dry else ("--out", tmp_path / "out")
        done = run_cli("baseline", source, "--network", "small", "--epochs", 1, *options, *end)
        assert done.returncode in (1, 2), done.stderr
        assert words in done.stderr
        assert "Traceback" not in done.stderr
        assert not (tmp_path / "out" / "model.safetensors").exists()


def test_the_errors_of_the_library_are_typed(image_file, tmp_path, first):
    images = open_image_set(image_file)
    with pytest.raises(InputError, match="none"):
        train_baseline(images, quick(init=str(tmp_path / "none")), tmp_path / "o", device="cpu")
    with pytest.raises(UsageError, match="pass network small"):
        train_baseline(images, quick(init=str(first), network="resnet32"), tmp_path / "o", device="cpu")
