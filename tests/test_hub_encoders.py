"""Encoders by name and baselines of other classes; the hubs' packages are stood in for."""

from __future__ import annotations

import sys
import types

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from ldmlr.encoders.model import Baseline
from ldmlr.encoders.networks import build_network
from ldmlr.heads.modules import make_head
from ldmlr.store import FeatureStore

PIXELS = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 3), np.uint8)


class Net(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.stem = nn.Conv2d(3, 5, 3)
        if classes:
            self.head = nn.Linear(5, classes)
        self.pretrained_cfg = {
            "input_size": (3, 6, 6),
            "crop_pct": 1.0,
            "mean": (0.5,) * 3,
            "std": (0.25,) * 3,
        }

    def forward(self, images):
        return self.stem(images).mean((2, 3))


@pytest.fixture
def images(tmp_path):
    with h5py.File(tmp_path / "images.h5", "w") as file:
        for split in ("train", "test"):
            file[f"{split}/images"], file[f"{split}/labels"] = PIXELS, np.arange(12) % 4
    return tmp_path / "images.h5"


@pytest.fixture
def timm(monkeypatch):
    module = types.ModuleType("timm")

    def create_model(name, pretrained, num_classes):
        if pretrained:
            raise OSError("the hub cannot be reached")
        return Net(num_classes)

    module.create_model, module.list_models = create_model, lambda: ["netto50", "other"]
    monkeypatch.setitem(sys.modules, "timm", module)


@pytest.fixture
def open_clip(monkeypatch):
    module = types.ModuleType("open_clip")

    class Tower(Net):
        image_size, image_mean, image_std = (6, 6), (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)

        def forward(self, images):
            return super().forward(images), "tokens"

    def create_model(name, pretrained):
        tower = Tower(0)
        tower.load_state_dict(torch.load(pretrained, weights_only=True))
        return types.SimpleNamespace(visual=tower)

    module.create_model, module.list_models = create_model, lambda: ["ViT-tiny"]
    monkeypatch.setitem(sys.modules, "open_clip", module)


def weights_of(path, classes=0):
    torch.manual_seed(5)
    net = Net(classes)
    if path.suffix == ".safetensors":
        save_file(net.state_dict(), path)
    else:
        torch.save(net.state_dict(), path)
    return path, net


def expected(net):
    # The middle of eight pixels, resized to the six that the network wants.
    from ldmlr.data.images import ArraySplit

    split = ArraySplit(PIXELS, np.zeros(12, np.int64), 1).brought_to(6, 1.0)
    pixels = torch.from_numpy(split.load(slice(0, 12))).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        return net((pixels - 0.5) / 0.25).numpy()


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt"])
def test_a_network_of_timm_with_weights_from_a_file(run_cli, tmp_path, images, timm, name):
    # The file has the head too, as those of the hub have.
    weights, net = weights_of(tmp_path / name, classes=7)
    done = run_cli("encode", "timm:netto50", images, "--weights", weights, "--out", tmp_path / "f.h5")
    assert done.returncode == 0, done.stderr
    assert "images of 6 pixels" in done.stderr
    store = FeatureStore.open(tmp_path / "f.h5")
    np.testing.assert_allclose(store.train.float32(), expected(net), rtol=1e-4, atol=1e-5)
    assert store.head is None
    assert store.config["encoder_trained_on_rows"] is False
    assert len(store.config["encoder"]["weights_sha256"]) == 64


def test_a_tower_of_open_clip(run_cli, tmp_path, images, open_clip):
    weights, net = weights_of(tmp_path / "w.pt")
    done = run_cli("encode", "open_clip:ViT-tiny", images, "--weights", weights, "--out", tmp_path / "f.h5")
    assert done.returncode == 0, done.stderr
    store = FeatureStore.open(tmp_path / "f.h5")
    np.testing.assert_allclose(store.train.float32(), expected(net), rtol=1e-4, atol=1e-5)


def test_what_a_hub_lacks_is_told(run_cli, tmp_path, images, timm):
    def failure(model, *args):
        done = run_cli("encode", model, images, *args, "--out", tmp_path / "f.h5")
        assert done.returncode
        assert done.stderr.count("\n") == 1
        assert not (tmp_path / "f.h5").exists()
        return done.stderr

    assert "timm has no such model; did you mean 'netto50'" in failure("timm:neto50")
    assert "its weights are not in the hub's cache and cannot be had (the hub" in failure("timm:netto50")
    save_file({"stem.weight": torch.zeros(5, 3, 3, 3)}, tmp_path / "half.safetensors")
    message = failure("timm:netto50", "--weights", tmp_path / "half.safetensors")
    assert "half.safetensors: does not hold the weights of timm:netto50 (it lacks stem.bias)" in message
    message = failure("mynets:backbone", "--weights", tmp_path / "half.safetensors")
    assert "--weights: goes with timm:NAME or open_clip:NAME, not with mynets:backbone" in message


def test_a_hub_that_is_not_installed_is_told(run_cli, tmp_path, images, monkeypatch):
    monkeypatch.setitem(sys.modules, "open_clip", None)
    done = run_cli("encode", "open_clip:ViT-B-32", images, "--out", tmp_path / "f.h5")
    assert done.returncode == 1
    assert "run pip install open_clip_torch" in done.stderr


def test_the_head_of_a_baseline_of_other_classes_is_left_out(run_cli, tmp_path, images):
    torch.manual_seed(1)
    network, dim = build_network("small", (8, 8, 3))
    names = tuple("abcdefg")
    model = Baseline(
        network, make_head("linear", dim, 7), "small", (8, 8, 3), [120.0] * 3, [60.0] * 3, names, {}, {}
    )
    model.save(tmp_path / "model.safetensors")
    done = run_cli("encode", tmp_path / "model.safetensors", images, "--out", tmp_path / "f.h5")
    assert done.returncode == 0, done.stderr
    assert "was trained on other classes (7) than" in done.stderr
    assert "has (4): its head is left out" in done.stderr
    store = FeatureStore.open(tmp_path / "f.h5")
    assert store.head is None
    assert store.config["encoder_trained_on_rows"] is False
    pixels = torch.from_numpy(PIXELS).permute(0, 3, 1, 2)
    wanted = model.features(pixels, torch.device("cpu")).numpy()
    np.testing.assert_allclose(store.train.float32(), wanted, rtol=1e-4, atol=1e-5)
