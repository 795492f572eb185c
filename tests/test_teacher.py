"""`ldmlr.encoders.teacher`, ``--teacher``: a training matches the logits of an earlier one, on the images
it is shown itself.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from support.training import killed_before

from ldmlr.data import open_image_set
from ldmlr.encoders.augment.augmentation import Normalise
from ldmlr.encoders.baseline import train_baseline
from ldmlr.encoders.config import BaselineConfig
from ldmlr.encoders.model import Baseline, file_hash
from ldmlr.encoders.objective import Objective, distillation
from ldmlr.encoders.teacher import Teacher
from ldmlr.encoders.trainer import Trainer
from ldmlr.errors import InputError, UsageError
from ldmlr.heads.modules import make_head

QUICK = {"network": "small", "epochs": 2, "batch_size": 16, "precision": "float32", "mixup": 0.0}


def quick(**changes) -> BaselineConfig:
    return BaselineConfig(**{**QUICK, **changes})


@pytest.fixture
def first(image_file, tmp_path) -> Path:
    """A baseline that knows its three colours."""
    train_baseline(open_image_set(image_file), quick(epochs=20, lr=0.05), tmp_path / "first", device="cpu")
    return tmp_path / "first"


def divergence(wanted: np.ndarray, found: np.ndarray) -> float:
    """The mean Kullback-Leibler divergence of rows of probabilities."""
    return float((wanted * np.log(wanted / found)).sum(1).mean())


def soft(logits: np.ndarray) -> np.ndarray:
    shifted = np.exp(logits - logits.max(1, keepdims=True))
    return shifted / shifted.sum(1, keepdims=True)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_distillation_is_the_divergence_times_the_squared_temperature(temperature):
    rng = np.random.default_rng(0)
    student, teacher = 3 * rng.standard_normal((2, 7, 5))
    found = distillation(torch.from_numpy(student), torch.from_numpy(teacher), temperature)
    expected = temperature**2 * divergence(soft(teacher / temperature), soft(student / temperature))
    assert float(found) == pytest.approx(expected)
    assert float(distillation(torch.from_numpy(teacher), torch.from_numpy(teacher), temperature)) == 0


def test_high_temperatures_match_the_centred_logits():
    """Times T^2 it tends to half the mean squared difference per class, whatever the temperature."""
    rng = np.random.default_rng(1)
    student, teacher = rng.standard_normal((2, 6, 4))
    student, teacher = (x - x.mean(1, keepdims=True) for x in (student, teacher))
    found = distillation(torch.from_numpy(student), torch.from_numpy(teacher), 1000.0)
    assert float(found) == pytest.approx(((student - teacher) ** 2).sum(1).mean() / 8, rel=0.01)


@pytest.mark.parametrize("loss", ["cross-entropy", "balanced-softmax"])
def test_the_share_weighs_labels_against_the_teacher(loss):
    torch.manual_seed(0)
    head = make_head("linear", 6, 4)
    features, taught = torch.randn(5, 6), torch.randn(5, 4)
    targets = torch.eye(4)[torch.tensor([0, 1, 2, 3, 0])]
    counts = np.array([40, 20, 10, 5])
    alone, _ = Objective(quick(loss=loss), head, counts)([features], [targets])
    for share in (0.25, 1.0):
        config = quick(loss=loss, teacher="x", distil=share, temperature=3.0)
        total, logits = Objective(config, head, counts)([features], [targets], [taught])
        # The teacher's logits are compared without the prior that the labels' loss adds.
        matched = distillation(head(features), taught, 3.0)
        assert torch.allclose(total, (1 - share) * alone + share * matched)
        assert torch.equal(logits[0], head(features))


def test_two_views_are_taught_one_by_one():
    torch.manual_seed(0)
    head = make_head("linear", 6, 4)
    views, taught = list(torch.randn(2, 5, 6)), list(torch.randn(2, 5, 4))
    targets = [torch.full((5, 4), 0.25)] * 2
    total, _ = Objective(quick(teacher="x", distil=1.0), head, np.array([4, 3, 2, 1]))(views, targets, taught)
    expected = sum(distillation(head(view), logits, 2.0) for view, logits in zip(views, taught, strict=True))
    assert torch.allclose(total, expected)


def test_the_teacher_sees_the_students_images_in_its_own_normalisation(image_file, first):
    images, model = open_image_set(image_file), Baseline.load(first)
    teacher = Teacher.open(quick(teacher=str(first)), images)
    pixels = torch.randint(0, 256, (9, 3, 8, 8), dtype=torch.uint8)
    mean, std = [100.0, 50.0, 7.0], [30.0, 80.0, 2.0]
    logits = teacher.prepare(mean, std, quick(), torch.device("cpu"))(Normalise(mean, std)(pixels))
    expected = model.head(model.features(pixels, torch.device("cpu")))
    assert torch.allclose(logits, expected, rtol=1e-3, atol=1e-3)
    assert not logits.requires_grad


def test_small_images_are_for_the_student_alone(image_file, first, monkeypatch):
    images, sides = open_image_set(image_file), {"student": [], "teacher": []}
    config = quick(teacher=str(first), first_size=0.5, mixup=1.0, epochs=5)
    trainer = Trainer(config, images.train, 0, torch.device("cpu"), None, Teacher.open(config, images))
    look, features = trainer.teacher, Trainer._features

    def teaching(batch):
        sides["teacher"].append(batch.shape[2])
        return look(batch)

    def learning(self, batch):
        sides["student"].append(batch.shape[2])
        return features(self, batch)

    trainer.teacher = teaching
    monkeypatch.setattr(Trainer, "_features", learning)
    trainer.run(lambda: None)
    assert set(sides["teacher"]) == {8}
    assert set(sides["student"]) == {4, 6, 8}


def test_a_student_of_the_teacher_alone_learns_the_classes(image_file, tmp_path, first):
    """With the whole loss its labels are never looked at, and may as well be wrong."""
    images = open_image_set(image_file)
    wrong = tmp_path / "wrong.h5"
    with h5py.File(image_file) as file, h5py.File(wrong, "w") as out:
        for name in ("train/images", "test/images", "test/labels", "class_names"):
            out[name] = file[name][...]
        out["train/labels"] = np.roll(file["train/labels"][:], 20)
    other = open_image_set(wrong)
    assert (other.train.labels != images.train.labels).any()
    config = quick(teacher=str(first), distil=1.0, epochs=20, lr=0.05)
    taught = train_baseline(other, config, tmp_path / "taught", device="cpu")
    alone = train_baseline(other, quick(epochs=20, lr=0.05), tmp_path / "alone", device="cpu")
    assert taught["rows"][0]["all"]["mean"] > 90
    assert alone["rows"][0]["all"]["mean"] < 70


def test_resume_and_the_record(image_file, tmp_path, first):
    images = open_image_set(image_file)
    config = quick(teacher=str(first), init=str(first), epochs=3, distil=0.25, head_epochs=1)
    whole = train_baseline(images, config, tmp_path / "whole", device="cpu")
    with killed_before(2):
        train_baseline(images, config, tmp_path / "parts", device="cpu")
    shutil.copytree(tmp_path / "parts", tmp_path / "other")
    parts = train_baseline(images, config, tmp_path / "parts", resume=True, device="cpu")
    assert file_hash(Path(parts["model"])) == file_hash(Path(whole["model"]))
    assert whole["teacher"]["sha256"] == whole["init"]["sha256"] == file_hash(first / "model.safetensors")
    provenance = Baseline.load(tmp_path / "whole").provenance
    assert provenance["teacher"]["network"] == "small"
    assert provenance["teacher"]["config"]["epochs"] == 20
    # Another teacher under the same name is another training.
    train_baseline(images, quick(), first, seed=1, overwrite=True, device="cpu")
    with pytest.raises(UsageError, match=r"was made with (init|teacher) '\w{64}', not"):
        train_baseline(images, config, tmp_path / "other", resume=True, device="cpu")


def test_images_that_the_teacher_has_seen_are_not_held_out(image_file, tmp_path, first):
    images = open_image_set(image_file)
    with pytest.raises(UsageError, match=r"teacher .* may have been trained on images that"):
        train_baseline(images, quick(teacher=str(first), val_fraction=0.2), tmp_path / "x", device="cpu")
    train_baseline(images, quick(val_fraction=0.2), tmp_path / "held", device="cpu")
    config = quick(teacher=str(tmp_path / "held"), val_fraction=0.2)
    assert train_baseline(images, config, tmp_path / "y", device="cpu")["val_images"] == 12
    # A student of a teacher that has seen everything has, by its lessons, seen everything too.
    train_baseline(images, quick(teacher=str(first)), tmp_path / "all", device="cpu")
    with pytest.raises(UsageError, match=r"init .* may have been trained on images that"):
        train_baseline(
            images, quick(init=str(tmp_path / "all"), val_fraction=0.2), tmp_path / "z", device="cpu"
        )


def test_a_finished_training_knows_its_teacher(run_cli, image_file, tmp_path, first):
    options = ("--network", "small", "--epochs", 1, "--teacher", first, "--out", tmp_path / "out", "--resume")
    assert run_cli("baseline", image_file, *options).returncode == 0
    again = run_cli("baseline", image_file, *options)
    assert (again.returncode, "nothing to do" in again.stderr) == (0, True)
    shutil.move(first, tmp_path / "away")
    assert run_cli("baseline", image_file, *options).returncode == 0
    train_baseline(open_image_set(image_file), quick(), first, seed=1, device="cpu")
    changed = run_cli("baseline", image_file, *options)
    assert changed.returncode == 2
    assert f"the --teacher {first} has changed since" in changed.stderr


def test_the_dry_run_names_it(run_cli, image_file, first):
    options = ("--network", "small", "--teacher", first, "--dry-run")
    plan = json.loads(run_cli("baseline", image_file, *options, "--json").stdout)
    assert plan["teacher"] == str(first / "model.safetensors")
    assert "teacher" not in json.loads(run_cli("baseline", image_file, "--dry-run", "--json").stdout)


@pytest.mark.parametrize("dry", [True, False])
def test_wrong_use_is_one_line(run_cli, image_file, tmp_path, first, dry):
    grey, renamed, bad = tmp_path / "grey.h5", tmp_path / "renamed.h5", tmp_path / "bad.safetensors"
    with h5py.File(image_file) as file, h5py.File(grey, "w") as one, h5py.File(renamed, "w") as two:
        one["train/images"], one["train/labels"] = file["train/images"][..., :1], file["train/labels"][:]
        two["train/images"], two["train/labels"] = file["train/images"][:], file["train/labels"][:]
        two["class_names"] = ["green", "red", "blue"]
    bad.write_bytes(b"no model")
    cases = [
        (image_file, ("--teacher", tmp_path / "none"), "none: no such model; check the path"),
        (image_file, ("--teacher", bad), "bad.safetensors: not a safetensors file, or damaged"),
        (grey, ("--teacher", first), "was trained on images [8, 8, 3], but"),
        (
            renamed,
            ("--teacher", first),
            "was trained on classes red, green, blue, but renamed has green, red, blue; use the image set",
        ),
        (image_file, ("--distil", 0.3), "--distil: has no effect without --teacher; leave it out"),
        (image_file, ("--temperature", 3), "--temperature: has no effect without --teacher; leave it out"),
        (image_file, ("--teacher", first, "--distil", 0), "--distil"),
        (image_file, ("--teacher", first, "--val-fraction", 0.2), "may have been trained on images that"),
    ]
    for source, options, words in cases:
        end = ("--dry-run",) if dry else ("--out", tmp_path / "out")
        done = run_cli("baseline", source, "--network", "small", "--epochs", 1, *options, *end)
        assert done.returncode in (1, 2), done.stderr
        assert words in done.stderr
        assert "Traceback" not in done.stderr
        assert not (tmp_path / "out" / "model.safetensors").exists()


def test_a_dry_run_of_all_stages_refuses_what_training_would(run_cli, image_file, tmp_path):
    train_baseline(open_image_set(image_file), quick(), tmp_path / "all", device="cpu")
    settings = [f"baseline.teacher={tmp_path / 'all'}", "baseline.val_fraction=0.2", "baseline.network=small"]
    arguments = [word for setting in settings for word in ("--set", setting)]
    done = run_cli("run", image_file, *arguments, "--dry-run")
    assert done.returncode == 2, done.stderr
    assert "may have been trained on images that --set baseline.val_fraction would hold out" in done.stderr


def test_the_errors_of_the_library_are_typed(image_file, tmp_path):
    with pytest.raises(InputError, match="none"):
        train_baseline(
            open_image_set(image_file), quick(teacher=str(tmp_path / "none")), tmp_path / "o", device="cpu"
        )
