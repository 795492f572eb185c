"""`ldmlr.encoders.encode`: the same rows however they are batched, provenance, heads, views, other
encoders.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import ldmlr
from ldmlr.data import open_image_set
from ldmlr.data.longtail import hold_out
from ldmlr.encoders.baseline import train_baseline
from ldmlr.encoders.config import BaselineConfig, EncodeConfig
from ldmlr.encoders.encode import encode_images
from ldmlr.encoders.encoder import open_encoder
from ldmlr.encoders.model import Baseline, file_hash
from ldmlr.errors import InputError, UsageError
from ldmlr.heads.modules import from_stored
from ldmlr.store import FeatureStore

SMALL = {"network": "small", "epochs": 2, "batch_size": 16, "precision": "float32", "mixup": 0.0}


@pytest.fixture
def model(image_file: Path, tmp_path: Path) -> Path:
    train_baseline(open_image_set(image_file), BaselineConfig(**SMALL), tmp_path / "model", device="cpu")
    return tmp_path / "model"


def encode(model: Path | str, source: Path, out: Path, seed: int = 0, **changes) -> FeatureStore:
    images, config = open_image_set(source), EncodeConfig(**changes)
    encode_images(open_encoder(str(model), images, config), images, out, config, seed=seed, device="cpu")
    return ldmlr.FeatureStore.open(out)


def test_a_store_holds_rows_labels_ids_head_and_origin(model, image_file, tmp_path):
    with encode(model, image_file, tmp_path / "f.h5") as store:
        images = open_image_set(image_file)
        assert (len(store.train), len(store.test), store.dim) == (62, 30, 64)
        assert np.array_equal(store.train.labels, images.train.labels)
        assert np.array_equal(store.train.ids, np.arange(62))
        assert store.class_names == ("red", "green", "blue")
        assert store.val is None
        assert store.train.views is None
        baseline = Baseline.load(model)
        pixels = torch.from_numpy(images.test.load(slice(0, 30))).permute(0, 3, 1, 2)
        expected = baseline.features(pixels, torch.device("cpu"))
        np.testing.assert_allclose(store.test.float32(), expected, rtol=0, atol=1e-4 * expected.max())
        logits = from_stored(store.head)(torch.from_numpy(store.test.float32()))
        torch.testing.assert_close(logits, baseline.head(expected), atol=1e-3, rtol=0)
        config = store.config
        assert config["encoder"]["model_sha256"] == file_hash(model / "model.safetensors")
        assert config["encoder"]["mean"] == baseline.mean
        assert config["encoder"]["trained_on"]["counts"] == [40, 16, 6]
        assert config["images_fingerprint"] == images.fingerprint()
    with h5py.File(tmp_path / "f.h5") as file:
        assert file.attrs["complete"]
        assert file.attrs["encoder"] == "small"


@pytest.mark.parametrize("size", [1, 7, 62])
def test_rows_do_not_depend_on_the_batch_size(model, image_file, tmp_path, size):
    with (
        encode(model, image_file, tmp_path / "a.h5", views=2) as whole,
        encode(model, image_file, tmp_path / "b.h5", views=2, batch_size=size) as parts,
    ):
        for view in (None, 0, 1):
            one, two = (store.train.float32(view=view) for store in (whole, parts))
            np.testing.assert_allclose(one, two, rtol=0, atol=1e-4 * np.abs(one).max())


def test_encoding_is_repeatable_and_views_follow_the_seed(model, image_file, tmp_path):
    stores = [
        encode(model, image_file, tmp_path / f"{i}.h5", seed, views=3) for i, seed in enumerate((0, 0, 1))
    ]
    first, again, other = stores
    assert first.fingerprint() == again.fingerprint()
    assert first.train.view_kinds == ("weak", "weak", "strong")
    assert np.asarray(first.train.views).shape == (3, 62, 64)
    assert np.array_equal(first.train.float32(), other.train.float32())
    assert first.test.views is None
    for view in range(3):
        assert not np.array_equal(first.train.float32(view=view), other.train.float32(view=view))
        assert not np.array_equal(first.train.float32(view=view), first.train.float32())
    strong = np.abs(first.train.float32(view=2) - first.train.float32()).mean()
    assert strong > 2 * np.abs(first.train.float32(view=0) - first.train.float32()).mean()


def test_short_types_round_the_same_rows(model, image_file, tmp_path):
    with encode(model, image_file, tmp_path / "a.h5") as exact:
        for dtype, digits in (("float16", 2**-10), ("bfloat16", 2**-7)):
            with encode(model, image_file, tmp_path / f"{dtype}.h5", dtype=dtype) as short:
                np.testing.assert_allclose(
                    short.train.float32(), exact.train.float32(), rtol=digits, atol=1e-6
                )


@pytest.mark.parametrize("head", ["cosine", "wcdas"])
def test_other_heads_are_stored(image_file, tmp_path, head):
    config = BaselineConfig(**SMALL, head=head)
    train_baseline(open_image_set(image_file), config, tmp_path / "model", device="cpu")
    with encode(tmp_path / "model", image_file, tmp_path / "f.h5") as store:
        assert store.head.kind == head
        features = torch.from_numpy(store.test.float32())
        expected = Baseline.load(tmp_path / "model").head(features)
        assert torch.equal(from_stored(store.head)(features), expected)


def test_held_out_images_become_val(image_file, tmp_path):
    config = BaselineConfig(**SMALL, val_fraction=0.25)
    train_baseline(open_image_set(image_file), config, tmp_path / "model", seed=5, device="cpu")
    with encode(tmp_path / "model", image_file, tmp_path / "f.h5") as store:
        assert (len(store.train), len(store.val)) == (46, 16)
        assert store.val.counts.tolist() == [10, 4, 2]
        assert sorted([*store.train.ids, *store.val.ids]) == list(range(62))


def test_the_rows_held_out_at_training_are_those_of_val(image_file, tmp_path):
    images = open_image_set(image_file)
    kept, held = hold_out(images.train.labels, 0.1, 5)
    config = BaselineConfig(**SMALL, val_fraction=0.1)
    train_baseline(images, config, tmp_path / "model", seed=5, device="cpu")
    with encode(tmp_path / "model", image_file, tmp_path / "f.h5", seed=3) as store:
        assert store.val.ids.tolist() == held.tolist()
        assert store.train.ids.tolist() == kept.tolist()
        # At least one of each class, the smallest of 6 images included.
        assert store.val.counts.tolist() == [4, 2, 1]
        record = store.config["held_out"]
    assert record == Baseline.load(tmp_path / "model").provenance["held_out"]
    assert (record["fraction"], record["seed"], record["counts"]) == (0.1, 5, [4, 2, 1])


def test_nothing_is_held_out_of_images_that_the_baseline_never_saw(image_file, tmp_path, colour_images):
    config = BaselineConfig(**SMALL, val_fraction=0.25)
    train_baseline(open_image_set(image_file), config, tmp_path / "model", device="cpu")
    other = tmp_path / "other.h5"
    with h5py.File(other, "w") as file:
        file["train/images"], file["train/labels"] = colour_images((5, 5, 5), 9)
        file["class_names"] = ["red", "green", "blue"]
    with encode(tmp_path / "model", other, tmp_path / "f.h5") as store:
        assert list(store.splits) == ["train"]
        assert len(store.train) == 15
        assert store.config["held_out"] == {}


def test_images_in_files_keep_their_paths(model, tmp_path):
    from PIL import Image

    generator = np.random.default_rng(0)
    for name in ("red", "green", "blue"):
        for number in range(2):
            path = tmp_path / "photos" / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(generator.integers(0, 256, (10, 12, 3), np.uint8)).save(path)
    images, config = open_image_set(tmp_path / "photos", image_size=8), EncodeConfig()
    baseline = Baseline.load(model)
    baseline.class_names = images.class_names
    baseline.save(tmp_path / "renamed.safetensors")
    encoder = open_encoder(str(tmp_path / "renamed.safetensors"), images, config)
    encode_images(encoder, images, tmp_path / "f.h5", config, device="cpu")
    with ldmlr.FeatureStore.open(tmp_path / "f.h5") as store:
        assert [str(name) for name in store.train.ids] == images.train.ids
        assert store.train.ids[0].endswith(".png")


# --- encoders from elsewhere -------------------------------------------------------------------


@pytest.fixture
def pretrained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "pretrained_net.py").write_text(
        "import torch\nfrom torch import nn\n"
        "class Means(nn.Module):\n"
        "    def forward(self, x):\n"
        "        return x.mean((2, 3))\n"
        "class Own(Means):\n"
        "    mean, std = (10.0, 20.0, 30.0), (2.0, 2.0, 2.0)\n"
        "class Poison(Means):\n"
        "    def forward(self, x):\n"
        "        return x.mean((2, 3)) / (x[:, 0].std() > 0.001)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "pretrained_net"
    sys.modules.pop("pretrained_net", None)


@pytest.mark.parametrize(
    ("factory", "changes", "mean", "std", "origin"),
    [
        ("Own", {}, (10, 20, 30), (2, 2, 2), "module"),
        ("Means", {}, (123.675, 116.28, 103.53), (58.395, 57.12, 57.375), "imagenet"),
        ("Own", {"mean": (1, 2, 3), "std": (4, 5, 6)}, (1, 2, 3), (4, 5, 6), "given"),
    ],
)
def test_a_pretrained_encoder_without_head(
    pretrained, image_file, tmp_path, factory, changes, mean, std, origin
):
    with encode(f"{pretrained}:{factory}", image_file, tmp_path / "f.h5", **changes) as store:
        pixels = open_image_set(image_file).train.load(slice(0, 62)).astype(float)
        np.testing.assert_allclose(
            store.train.float32(), (pixels.mean((1, 2)) - mean) / std, rtol=1e-4, atol=1e-4
        )
        assert store.head is None
        assert store.config["encoder"]["normalisation"] == origin


def test_an_exported_program_encodes(image_file, tmp_path):
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(
            network, (torch.zeros(2, 3, 8, 8),), dynamic_shapes=({0: torch.export.Dim("n", min=1)},)
        )
        torch.export.save(program, tmp_path / "net.pt2")
    with encode(tmp_path / "net.pt2", image_file, tmp_path / "f.h5", views=1, batch_size=31) as store:
        assert (store.dim, store.head, len(store.train)) == (4, None, 62)
        assert "net.pt2" in store.attributes["encoder"]
        assert store.config["encoder"]["model_sha256"] == file_hash(tmp_path / "net.pt2")


# --- what does not fit -------------------------------------------------------------------------


def write_images(path: Path, images: np.ndarray, labels: np.ndarray, names: list[str]) -> Path:
    with h5py.File(path, "w") as file:
        file["train/images"], file["train/labels"], file["class_names"] = images, labels, names
    return path


def test_images_of_another_size_do_not_fit_the_model(model, tmp_path, colour_images):
    names = ["red", "green", "blue"]
    other = write_images(tmp_path / "other.h5", *colour_images((3, 3, 3), size=9), names)
    with pytest.raises(InputError, match=r"trained on images \[8, 8, 3\], but other has \[9, 9, 3\]"):
        encode(model, other, tmp_path / "f.h5")
    assert not (tmp_path / "f.h5").exists()


@pytest.mark.parametrize(
    ("counts", "names"), [((3, 3), ["red", "green"]), ((3, 3, 3), ["red", "blue", "green"])]
)
def test_images_of_other_classes_are_encoded_without_the_head(model, tmp_path, colour_images, counts, names):
    other = write_images(tmp_path / "other.h5", *colour_images(counts, size=8), names)
    encode(model, other, tmp_path / "f.h5")
    store = FeatureStore.open(tmp_path / "f.h5")
    assert (store.head, store.class_names) == (None, tuple(names))


def test_another_size_of_test_images_fits_no_encoder(pretrained, tmp_path):
    for split, side in (("train", 8), ("test", 9)):
        for label in "ab":
            path = tmp_path / "set" / split / label / "0.png"
            path.parent.mkdir(parents=True)
            Image.new("RGB", (side, side), (9, 8, 7)).save(path)
    with pytest.raises(InputError, match=r"its test images are \[9, 9, 3\], .* training are \[8, 8, 3\]"):
        encode(f"{pretrained}:Means", tmp_path / "set", tmp_path / "f.h5")


def test_features_that_are_not_finite_leave_no_file(pretrained, image_file, tmp_path):
    with h5py.File(image_file, "r+") as file:
        images = file["train/images"][()]
        images[40] = 128
        file["train/images"][...] = images
    with pytest.raises(InputError, match="NaN or infinity for row 40 of train"):
        encode(f"{pretrained}:Poison", image_file, tmp_path / "f.h5", batch_size=1)
    assert not list(tmp_path.glob("*f.h5*"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"views": 2, "view_kinds": ("weak", "mild")}, "unknown value 'mild'"),
        ({"views": 3, "view_kinds": ("weak", "strong")}, "2 kinds for views 3"),
        ({"mean": (1.0,)}, "give both"),
        ({"mean": (1.0,), "std": (0.0,)}, "std: every value must be above 0"),
        ({"dtype": "float8"}, "dtype: unknown value 'float8'"),
    ],
)
def test_wrong_settings(changes, message):
    with pytest.raises(UsageError, match=message):
        EncodeConfig(**changes)


def test_a_baseline_keeps_its_normalisation(model, image_file, tmp_path):
    with pytest.raises(UsageError, match="brings its own normalisation"):
        encode(model, image_file, tmp_path / "f.h5", mean=(1, 1, 1), std=(1, 1, 1))
    with pytest.raises(UsageError, match="1 value for images with 3 channels"):
        encode("torch.nn:Flatten", image_file, tmp_path / "f.h5", mean=(1,), std=(1,))


# --- the command -------------------------------------------------------------------------------


def test_from_images_to_a_store_by_commands(run_cli, image_file, tmp_path):
    out = tmp_path / "model"
    options = ("--network", "small", "--epochs", "8", "--batch-size", "16")
    trained = run_cli("baseline", image_file, *options, "--out", out, "--json")
    assert trained.returncode == 0, trained.stderr
    done = run_cli("encode", out, image_file, "--views", 2, "--out", tmp_path / "f.h5", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["splits"] == {"train": 62, "test": 30}
    assert result["views"] == ["weak", "strong"]
    assert result["rows"] == json.loads(trained.stdout)["rows"]
    assert json.loads((tmp_path / "f.h5.result.json").read_text()) == result
    assert run_cli("store", "verify", tmp_path / "f.h5").returncode == 0
    again = run_cli("encode", out, image_file, "--out", tmp_path / "f.h5")
    assert again.returncode == 2
    assert "already exists" in again.stderr
    kinds = ("--views", 2, "--view-kinds", "strong", "--view-kinds", "weak")
    assert (
        run_cli("encode", out, image_file, *kinds, "--out", tmp_path / "f.h5", "--overwrite").returncode == 0
    )


def test_dry_run_and_a_note_for_other_images(run_cli, model, image_file, tmp_path, colour_images):
    plan = run_cli("encode", model, image_file, "--dry-run", "--json")
    assert json.loads(plan.stdout)["rows"] == {"train": 62, "test": 30}
    assert "note" not in plan.stderr
    names = ["red", "green", "blue"]
    other = write_images(tmp_path / "other.h5", *colour_images((3, 3, 3)), names)
    assert "is not the image set" in run_cli("encode", model, other, "--dry-run").stderr


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["missing", "IMAGES"], 1, "no such model"),
        (["MODEL", "missing.h5"], 1, "no such file"),
        (["no.such:net", "IMAGES"], 2, "cannot import"),
        (["IMAGES", "IMAGES"], 1, "is a feature store (HDF5), not a baseline"),
        (["MODEL", "IMAGES", "--dtype", "float8"], 2, "--dtype"),
        (["MODEL", "IMAGES", "--views", "-1"], 2, "--views: must be at least 0"),
        (["MODEL"], 2, "missing argument 'SOURCE'"),
    ],
)
def test_wrong_use_ends_in_one_line(run_cli, model, image_file, tmp_path, arguments, status, message):
    given = [{"MODEL": model, "IMAGES": image_file}.get(word, word) for word in arguments]
    done = run_cli("encode", *given, "--out", tmp_path / "f.h5")
    assert done.returncode == status
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "f.h5").exists()


def test_an_interrupted_encoding_leaves_no_file(run_cli, model, image_file, tmp_path, monkeypatch):
    from ldmlr.encoders.encoder import Encoder

    features = Encoder.features

    def interrupt(self, images):
        if len(images) < 10:
            raise KeyboardInterrupt
        return features(self, images)

    monkeypatch.setattr(Encoder, "features", interrupt)
    done = run_cli("encode", model, image_file, "--batch-size", 20, "--out", tmp_path / "f.h5")
    assert done.returncode == 130
    assert not list(tmp_path.glob("*f.h5*"))
