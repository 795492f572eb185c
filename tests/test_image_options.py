"""The options of the commands that read images, and what these say of them."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from ldmlr.data.open import open_image_set
from ldmlr.encoders.config import EncodeConfig
from ldmlr.store import FeatureStore


@pytest.fixture
def photos(tmp_path):
    """Two classes of four images, and a file that is none."""
    for name in "ab":
        (tmp_path / "set" / name).mkdir(parents=True)
        for number in range(4):
            Image.new("RGB", (8, 8), (30 * number, 0, 0)).save(tmp_path / "set" / name / f"{number}.png")
    (tmp_path / "set" / "a" / "bad.png").write_text("no image")
    return tmp_path / "set"


SHORT = ("--network", "small", "--epochs", 1, "--batch-size", 4, "--precision", "float32", "--threads", 1)


def test_a_dry_run_lists_all_bad_images(run_cli, photos):
    (photos / "b" / "worse.png").write_text("")
    done = run_cli("baseline", photos, *SHORT, "--dry-run")
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert len(lines) == 3
    assert "a/bad.png: not an image that Pillow can read" in lines[0]
    assert "b/worse.png" in lines[1]
    assert lines[2].startswith("Error: 2 images cannot be decoded")
    assert lines[2].endswith("or go on without with --skip-bad")


def test_bad_images_are_skipped_and_recorded(run_cli, photos, tmp_path):
    out = tmp_path / "out"
    options = ("--skip-bad", "--test-fraction", 0.25, "--image-size", 8)
    done = run_cli("baseline", photos, *SHORT, *options, "--out", out, "--json")
    assert done.returncode == 0, done.stderr
    assert "left out, cannot be decoded: 1 image" in done.stderr
    document = json.loads(done.stdout)
    assert [entry["why"] for entry in document["images"]["skipped"]] == ["not an image that Pillow can read"]
    assert (document["train_images"], len(document["rows"])) == (6, 2)
    assert document["config"]["test_fraction"] == 0.25
    assert document["config"]["skip_bad"] is True
    assert document["notes"] == [f"{photos}: left out, cannot be decoded: 1 image"]
    done = run_cli("encode", out, photos, *options, "--out", tmp_path / "f.h5", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["splits"] == {"train": 6, "test": 2}
    assert "is not the image set" not in done.stderr


def test_a_run_draws_the_test_split_that_baseline_and_encode_draw(run_cli, photos, tmp_path):
    (photos / "a" / "bad.png").unlink()
    settings = {
        "baseline.network": "small", "baseline.epochs": 1, "baseline.batch_size": 4,
        "baseline.precision": "float32", "diffuse.hidden": 8, "diffuse.iterations": 5, "finetune.epochs": 1,
        "generate.strategy": "ratio",
    }  # fmt: skip
    assigned = [part for name, value in settings.items() for part in ("--set", f"{name}={value}")]
    common = ("run", photos, "--seed", 0, "--threads", 1, *assigned)
    refused = run_cli(*common, "--out", tmp_path / "no")
    assert refused.returncode == 1
    assert "has no test images to measure on; add a test split, or draw one with --test-fraction" in (
        refused.stderr
    )
    done = run_cli(*common, "--test-fraction", 0.25, "--out", tmp_path / "run", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    encoded = FeatureStore.open(next((tmp_path / "run").glob("seed-0/encode-*/features.h5")))
    drawn = open_image_set(photos, test_fraction=0.25)
    assert (len(encoded.split("train")), len(encoded.split("test"))) == (6, 2)
    assert encoded.split("test").ids.tolist() == list(drawn.test.ids)
    assert result["test_rows"] == 2
    assert result["measured"].startswith("measured on 0.25 of the images of every class, drawn as a test")
    assert {row["measured_on"] for row in result["rows"]} == {"test"}
    folds = run_cli(*common, "--folds", 3, "--out", tmp_path / "folds")
    assert (folds.returncode, folds.stderr.count("\n")) == (2, 1)
    assert "--folds: the network would have to be trained anew for every fold" in folds.stderr
    assert not (tmp_path / "folds").exists()


def test_the_layout_of_a_folder_is_in_the_help(run_cli):
    for command in ("baseline", "encode", "run"):
        text = run_cli(command, "--help").stdout
        assert "SRC/train/CLASS/*.jpg" in text
        assert "SRC/test/CLASS/*.jpg" in text


@pytest.mark.parametrize(
    ("command", "option", "texts", "key", "expected"),
    [
        ("encode", "--view-kinds", ["weak,weak,strong"], "view_kinds", ["weak", "weak", "strong"]),
        ("encode", "--view-kinds", ["weak, weak", "strong"], "view_kinds", ["weak", "weak", "strong"]),
        ("baseline", "--milestones", ["10,20"], "milestones", [10, 20]),
        ("baseline", "--augment", ["crop,flip"], "augment", ["crop", "flip"]),
    ],
)
def test_lists_may_be_written_with_commas(run_cli, tmp_path, photos, command, option, texts, key, expected):
    (photos / "a" / "bad.png").unlink()
    given = [word for text in texts for word in (option, text)]
    if command == "encode":
        assert run_cli("baseline", photos, *SHORT, "--out", tmp_path / "out").returncode == 0
        done = run_cli("encode", tmp_path / "out", photos, "--views", 3, *given, "--dry-run", "--json")
    else:
        more = ("--schedule", "step") if key == "milestones" else ()
        done = run_cli("baseline", photos, *SHORT, *more, *given, "--dry-run", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["config"][key] == expected


def test_numbers_may_be_written_with_commas():
    config = EncodeConfig(mean="124,116,104", std="58, 57, 57")
    assert (config.mean, config.std) == ((124, 116, 104), (58, 57, 57))


def test_a_run_lists_skips_and_says_the_same(run_cli, photos, tmp_path):
    for name in "ab":
        (photos / "train" / name).mkdir(parents=True)
        for file in (photos / name).iterdir():
            file.rename(photos / "train" / name / file.name)
        (photos / name).rmdir()
        (photos / "val" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(photos / "val" / name / "1.png")
    (photos / "train" / "b" / "3.png").unlink()
    options = ("--image-size", 8, "--out", tmp_path / "run", "--dry-run")
    done = run_cli("run", photos, *options)
    assert done.returncode == 1
    assert "train/a/bad.png: not an image that Pillow can read" in done.stderr
    done = run_cli("run", photos, *options, "--skip-bad")
    assert done.returncode == 0, done.stderr
    assert "left out, cannot be decoded: 1 image" in done.stderr
    assert "has no test split, so val is the test set" in done.stderr
    # Every image is looked at, not a sample: one of another size is found before anything is trained.
    Image.new("RGB", (9, 12)).save(photos / "train" / "a" / "wide.png")
    done = run_cli("run", photos, *options[2:], "--skip-bad")
    assert (done.returncode, "the images differ in size: 8x8" in done.stderr) == (1, True), done.stderr
