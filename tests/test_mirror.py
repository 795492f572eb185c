"""``encode --mirror``: the mean of the features of an image and its mirror image, in every row and view."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

import ldmlr
from ldmlr.data import open_image_set
from ldmlr.encoders.baseline import train_baseline
from ldmlr.encoders.config import BaselineConfig, EncodeConfig
from ldmlr.encoders.encode import encode_images
from ldmlr.encoders.encoder import open_encoder
from ldmlr.encoders.model import Baseline
from ldmlr.errors import UsageError
from ldmlr.metrics.accuracy import accuracy
from ldmlr.store import FeatureStore

SMALL = {"network": "small", "epochs": 2, "batch_size": 16, "precision": "float32", "mixup": 0.0}


def trained(source: Path, out: Path, **changes) -> Path:
    train_baseline(open_image_set(source), BaselineConfig(**{**SMALL, **changes}), out, device="cpu")
    return out


def encode(model: Path, source: Path, out: Path, **changes) -> FeatureStore:
    images, config = open_image_set(source), EncodeConfig(**changes)
    encode_images(open_encoder(str(model), images, config), images, out, config, device="cpu")
    return ldmlr.FeatureStore.open(out)


def mirrored(source: Path, out: Path) -> Path:
    """Write the image set with every image turned."""
    with h5py.File(source) as file, h5py.File(out, "w") as other:
        for split in ("train", "test"):
            other[f"{split}/images"] = file[f"{split}/images"][:][:, :, ::-1]
            other[f"{split}/labels"] = file[f"{split}/labels"][:]
        other["class_names"] = file["class_names"][:]
    return out


def test_rows_are_the_mean_of_both_sides(image_file, tmp_path):
    model = trained(image_file, tmp_path / "model")
    turned = mirrored(image_file, tmp_path / "turned.h5")
    with (
        encode(model, image_file, tmp_path / "one.h5") as one,
        encode(model, turned, tmp_path / "two.h5") as two,
        encode(model, image_file, tmp_path / "both.h5", mirror=True) as both,
        encode(model, turned, tmp_path / "again.h5", mirror=True, batch_size=7) as again,
    ):
        for name in ("train", "test"):
            left, right = one.split(name).float32(), two.split(name).float32()
            assert np.abs(left - right).max() > 1e-2
            found = both.split(name).float32()
            np.testing.assert_allclose(found, (left + right) / 2, rtol=0, atol=1e-4 * left.max())
            # So an image and its mirror image have the same row.
            np.testing.assert_allclose(again.split(name).float32(), found, rtol=0, atol=1e-4 * left.max())
        assert both.config["mirror"] is True
        assert one.config["mirror"] is False


def test_views_are_averaged_too(image_file, tmp_path):
    """Without random flips, a view of the turned image is not the turned view: shifts differ in sign."""
    model = trained(image_file, tmp_path / "model")
    kinds = {"views": 2, "view_kinds": ("weak", "strong"), "view_flip": "no"}
    with (
        encode(model, image_file, tmp_path / "one.h5", **kinds) as one,
        encode(model, image_file, tmp_path / "both.h5", mirror=True, **kinds) as both,
    ):
        images, baseline = open_image_set(image_file), Baseline.load(model)
        encoder = open_encoder(str(model), images, EncodeConfig())
        assert not encoder.mirror
        from ldmlr.encoders.augment.views import View

        pixels = torch.from_numpy(images.train.load(slice(0, 62))).permute(0, 3, 1, 2)
        for index, kind in enumerate(("weak", "strong")):
            view = View(kind, 62, (8, 8, 3), flip=False, seed=0, index=index)
            seen = view(pixels, 0, encoder.normalise)
            with torch.no_grad():
                sides = [baseline.network(seen).numpy(), baseline.network(seen.flip(3)).numpy()]
            tolerance = 1e-4 * sides[0].max()
            plain, mean = one.train.float32(view=index), both.train.float32(view=index)
            np.testing.assert_allclose(plain, sides[0], rtol=0, atol=tolerance)
            np.testing.assert_allclose(mean, (sides[0] + sides[1]) / 2, rtol=0, atol=tolerance)


def test_the_accuracy_is_that_of_the_averaged_rows(image_file, tmp_path):
    model = trained(image_file, tmp_path / "model", epochs=6)
    images, config = open_image_set(image_file), EncodeConfig(mirror=True)
    encoder = open_encoder(str(model), images, config)
    figures = encode_images(encoder, images, tmp_path / "f.h5", config, device="cpu")
    with ldmlr.FeatureStore.open(tmp_path / "f.h5") as store:
        rows = torch.from_numpy(store.test.float32())
        with torch.no_grad():
            logits = encoder.head(rows).numpy()
        counts = np.bincount(store.train.labels, minlength=3)
        assert figures["rows"][0]["all"]["mean"] == accuracy(logits, store.test.labels, counts)["all"]


def test_an_encoder_that_never_saw_mirrored_images_is_refused(run_cli, image_file, tmp_path):
    model = trained(image_file, tmp_path / "model", augment=("crop",))
    with pytest.raises(UsageError, match="is not trained on mirrored images"):
        open_encoder(str(model), open_image_set(image_file), EncodeConfig(mirror=True))
    for end in (("--dry-run",), ("--out", tmp_path / "f.h5")):
        done = run_cli("encode", model, image_file, "--mirror", *end)
        assert done.returncode == 2
        assert "leave the option out, or train with --augment flip" in done.stderr
        assert not (tmp_path / "f.h5").exists()
    digits = run_cli("run", "digits-lt", "--set", "encode.mirror=true", "--dry-run")
    assert digits.returncode == 2
    assert "--set baseline.augment=flip" in digits.stderr


def test_through_the_commands(run_cli, image_file, tmp_path):
    model = trained(image_file, tmp_path / "model")
    plan = json.loads(run_cli("encode", model, image_file, "--mirror", "--dry-run", "--json").stdout)
    assert plan["mirror"] is True
    out = tmp_path / "f.h5"
    done = run_cli("encode", model, image_file, "--mirror", "--views", 2, "--out", out, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["config"]["mirror"] is True
    sets = {
        **{f"baseline.{key}": value for key, value in SMALL.items()}, "encode.mirror": "true",
        "baseline.augment": "flip",
        "diffuse.iterations": 10, "diffuse.hidden": 8, "finetune.epochs": 1,
    }  # fmt: skip
    options = [part for key, value in sets.items() for part in ("--set", f"{key}={value}")]
    done = run_cli("run", image_file, "--seeds", 1, "--out", tmp_path / "run", *options, "--json")
    assert done.returncode == 0, done.stderr
    store = next((tmp_path / "run").glob("seed-0/encode-*/features.h5"))
    with ldmlr.FeatureStore.open(store) as opened:
        assert opened.config["mirror"] is True
