"""``ldmlr baseline`` as a user calls it: results, dry runs, TOML files, wrong use, interrupts."""

from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from ldmlr.encoders.model import Baseline

QUICK = ("--network", "small", "--epochs", "3", "--batch-size", "16", "--precision", "float32")


def test_the_command_trains_and_writes_its_result(run_cli, image_file, tmp_path):
    out = tmp_path / "run"
    done = run_cli("baseline", image_file, *QUICK, "--out", out, "--json", "--seed", "3")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result == json.loads((out / "result.json").read_text())
    assert [(row["method"], row["adjustment"]) for row in result["rows"]] == [
        ("baseline", "none"), ("baseline", "label-shift"),
    ]  # fmt: skip
    assert result["rows"][0]["many"] is None
    assert result["config"]["preset"] == "digits"
    assert result["config"]["seed"] == 3
    assert sorted(path.name for path in out.iterdir()) == ["model.safetensors", "result.json", "train.jsonl"]
    again = run_cli("baseline", image_file, *QUICK, "--out", out)
    assert again.returncode == 2
    assert "already exists; name another folder or pass --overwrite" in again.stderr
    resumed = run_cli("baseline", image_file, *QUICK, "--out", out, "--seed", "3", "--resume")
    assert resumed.returncode == 0
    assert "finished; nothing to do" in resumed.stderr
    other = run_cli("baseline", image_file, *QUICK, "--out", out, "--seed", "4", "--resume")
    assert other.returncode == 2
    assert "holds a finished baseline with seed 3, not 4" in other.stderr
    assert run_cli("baseline", image_file, *QUICK, "--out", out, "--overwrite").returncode == 0


def test_a_draw_is_kept_beside_the_model(run_cli, colour_images, tmp_path):
    images, labels = colour_images((20, 20, 20))
    with h5py.File(tmp_path / "flat.h5", "w") as file:
        file["train/images"], file["train/labels"] = images, labels
    out = tmp_path / "run"
    done = run_cli("baseline", tmp_path / "flat.h5", *QUICK, "--imbalance-factor", 10, "--out", out, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["rows"] == []
    draw = json.loads((out / "draw.json").read_text())
    assert draw["counts"] == [20, 6, 2]
    assert Baseline.load(out).provenance["images"]["indices_sha256"] == draw["indices_sha256"]


def test_dry_run_prints_the_plan_and_writes_nothing(run_cli, image_file, tmp_path):
    done = run_cli("baseline", image_file, *QUICK, "--dry-run", "--json")
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    assert plan["parameters"] == 28_768 + 64 * 3 + 3
    assert (plan["classes"], plan["train_images"], plan["steps"]) == (3, 62, 12)
    text = run_cli("baseline", image_file, *QUICK, "--dry-run", "--val-fraction", "0.25").stdout
    assert "val images       16" in text
    assert [path.name for path in tmp_path.iterdir()] == ["colours.h5"]


def test_options_from_a_toml_file(run_cli, image_file, tmp_path):
    toml = tmp_path / "run.toml"
    toml.write_text('[baseline]\nnetwork = "small"\nepochs = 2\naugment = "cutout"\nmixup = 0.5\n')
    done = run_cli("baseline", image_file, "--config", toml, "--epochs", 1, "--dry-run", "--json")
    assert done.returncode == 0, done.stderr
    config = json.loads(done.stdout)["config"]
    assert (config["epochs"], config["augment"], config["mixup"]) == (1, ["cutout"], 0.5)
    toml.write_text("[baseline]\nepoch = 2\n")
    wrong = run_cli("baseline", image_file, "--config", toml, "--dry-run")
    assert wrong.returncode == 2
    assert "unknown key 'epoch'; did you mean 'epochs'" in wrong.stderr


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--network", "resnet23"], 2, "did you mean 'resnet32'"),
        (["--network", "no.such:thing"], 2, "cannot import 'no.such'"),
        (["--network", "net.pt2"], 2, "cannot be trained"),
        (["--augment", "flop"], 2, "did you mean 'flip'"),
        (["--preset", "cifar"], 2, "--preset"),
        (["--precision", "float16"], 2, "float16 needs a CUDA device"),
        (["--device", "tpu"], 2, "--device"),
        (["--schedule", "step", "--milestones=-3"], 2, "--milestones: must be at least 1, not -3"),
        (["--lr", "1e30"], 1, "no longer finite"),
    ],
)
def test_wrong_options_end_in_one_line(run_cli, image_file, tmp_path, arguments, status, message):
    done = run_cli("baseline", image_file, *QUICK, *arguments, "--out", tmp_path / "run")
    assert done.returncode == status
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.glob("run/*"))


@pytest.mark.parametrize("case", ["one class", "floats", "missing", "no folder"])
def test_bad_image_sets_end_in_one_line(run_cli, colour_images, tmp_path, case):
    images, labels = colour_images((4, 4))
    path, out = tmp_path / "bad.h5", tmp_path / "run"
    if case == "one class":
        labels = labels * 0
    if case == "floats":
        images = np.where(images > 100, np.nan, images / 255)
    if case == "no folder":
        out.write_text("a file")
        out = out / "deeper"
    if case != "missing":
        with h5py.File(path, "w") as file:
            file["train/images"], file["train/labels"] = images, labels
    done = run_cli("baseline", path, *QUICK, "--out", out)
    assert done.returncode == 1
    expected = {
        "one class": "only 1 class", "floats": "expected uint8", "missing": "no such file",
        "no folder": "a part of the path is a file",
    }  # fmt: skip
    assert expected[case] in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_an_interrupt_ends_with_the_remedy(run_cli, image_file, tmp_path, monkeypatch):
    from ldmlr.encoders.trainer import Trainer

    def interrupt(self, number, progress):
        raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, "_epoch", interrupt)
    done = run_cli("baseline", image_file, *QUICK, "--out", tmp_path / "run")
    assert done.returncode == 130
    assert "--resume" in done.stderr
    assert not list(tmp_path.glob("run/*"))


def test_a_full_disk_ends_in_one_line(run_cli, image_file, tmp_path, monkeypatch):
    write = Path.write_bytes

    def full(self, data):
        if "checkpoint" in self.name:
            write(self, bytes(data)[:10])
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(self, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    done = run_cli("baseline", image_file, *QUICK, "--out", tmp_path / "run")
    assert done.returncode == 1
    assert "checkpoint.pt: the disk is full" in done.stderr
    assert not list(tmp_path.glob("run/*"))


def test_a_training_that_was_killed_before_its_figures_were_written_is_not_repeated(
    run_cli, image_file, tmp_path, monkeypatch
):
    out = tmp_path / "run"
    command = ("baseline", image_file, *QUICK, "--out", out, "--json")
    first = json.loads(run_cli(*command).stdout)
    (out / "result.json").unlink()
    (out / "checkpoint.pt").write_bytes(b"left behind")
    refused = run_cli(*command)
    assert (refused.returncode, "already exists" in refused.stderr) == (2, True)
    other = run_cli(*command, "--resume", "--lr", 0.01)
    assert (other.returncode, "already exists" in other.stderr) == (2, True)

    def train(self, after_epoch):
        raise AssertionError("trained again")

    monkeypatch.setattr("ldmlr.encoders.trainer.Trainer.run", train)
    again = json.loads(run_cli(*command, "--resume").stdout)
    same = ("rows", "last_epoch", "training_seconds", "config", "fingerprint", "train_images")
    assert [again[key] for key in same] == [first[key] for key in same]
    assert sorted(path.name for path in out.iterdir()) == ["model.safetensors", "result.json", "train.jsonl"]


def test_a_finished_training_on_other_images_or_weights_is_told(run_cli, image_file, tmp_path):
    first, out = tmp_path / "first", tmp_path / "run"
    assert run_cli("baseline", image_file, *QUICK, "--out", first).returncode == 0
    command = ("baseline", image_file, *QUICK, "--init", first, "--out", out, "--resume")
    assert run_cli(*command).returncode == 0
    assert "nothing to do" in run_cli(*command).stderr
    assert run_cli("baseline", image_file, *QUICK, "--seed", 1, "--out", first, "--overwrite").returncode == 0
    done = run_cli(*command)
    assert (done.returncode, f"the --init {first} has changed since" in done.stderr) == (2, True), done.stderr
    shutil.rmtree(first)
    assert "nothing to do" in run_cli(*command).stderr
    with h5py.File(image_file, "r+") as file:
        file["train/images"][0] = 0
    done = run_cli(*command)
    assert (done.returncode, "the image set has changed since" in done.stderr) == (2, True), done.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--weight-power", 2), "--weight-power: has no effect without --loss weighted"),
        (("--margin", 3), "--margin: has no effect without --loss ldam"),
        (("--cutmix-share", 0.3), "--cutmix-share: has no effect without both"),
        (("--augment", "none", "--crop-padding", 2), "--crop-padding: has no effect without --augment crop"),
        (("--cutout-size", 4), "--cutout-size: has no effect without --augment cutout"),
        (("--randaugment-ops", 3), "--randaugment-ops: has no effect without --augment randaugment"),
        (("--milestones", 3), "--milestones: has no effect without --schedule step"),
        (("--head-lr", 0.1), "--head-lr: has no effect without --head-epochs"),
    ],
)
def test_an_option_that_nothing_looks_at_is_refused(run_cli, image_file, options, words):
    done = run_cli("baseline", image_file, *options, "--dry-run")
    assert (done.returncode, words in done.stderr) == (2, True), done.stderr


@pytest.mark.parametrize("split", ["test", "val"])
@pytest.mark.parametrize("sizes", [(20, 20, 20), (16, 20, 16)])
def test_images_of_another_size_are_refused_before_training(run_cli, tmp_path, split, sizes):
    for name, pixels in (("train", (16, 16, 16)), (split, sizes)):
        for label in "ab":
            for number, side in enumerate(pixels):
                path = tmp_path / "set" / name / label / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (side, side), (9, number, 0)).save(path)
    options = ["--network", "small", "--epochs", 1, "--mixup", 0, "--augment", "none"]
    for more in (["--dry-run"], ["--out", tmp_path / "run"]):
        done = run_cli("baseline", tmp_path / "set", *options, *more)
        assert done.returncode == 1
        assert "images differ in size" in done.stderr or "images are [20, 20, 3]" in done.stderr
        assert done.stderr.rstrip().endswith("bring them to one size with --image-size PIXELS")
    assert not (tmp_path / "run").exists()
    fine = run_cli("baseline", tmp_path / "set", *options, "--image-size", 16, "--out", tmp_path / "run")
    assert fine.returncode == 0, fine.stderr


def test_a_batch_never_has_one_image(run_cli, tmp_path):
    with h5py.File(tmp_path / "odd.h5", "w") as file:
        file["train/images"] = np.random.default_rng(0).integers(0, 256, (9, 8, 8, 3), np.uint8)
        file["train/labels"] = np.arange(9) % 2
    done = run_cli(
        "baseline", tmp_path / "odd.h5", "--network", "resnet10", "--batch-size", 2, "--epochs", 1,
        "--augment", "none", "--out", tmp_path / "run",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_a_dry_run_says_how_long_it_would_take_and_leaves_random_numbers_alone(run_cli, image_file):
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    options = ("--network", "small", "--batch-size", 4, "--precision", "float32", "--threads", 1)
    few, many = (
        json.loads(run_cli("baseline", image_file, *options, "--epochs", count, "--dry-run", "--json").stdout)
        for count in (1, 1000)
    )
    assert 0 < few["estimated_seconds"] < many["estimated_seconds"]
    assert torch.equal(torch.random.get_rng_state(), before)
