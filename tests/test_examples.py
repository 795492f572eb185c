"""The examples run, on small data, and do what they say; each is a page at most."""

from __future__ import annotations

import importlib
import os
import sys
import types

import numpy as np
import pytest
import torch
from support.pages import ROOT
from support.photos import write_photos
from support.scripts import script
from torch import nn

import ldmlr
from ldmlr.store import SplitData

EXAMPLES = sorted((ROOT / "examples").iterdir())


def load(name):
    return script(ROOT / "examples" / f"{name}.py")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A store of three classes that can be told apart, and a small model of it."""
    folder = tmp_path_factory.mktemp("examples")
    rng = np.random.default_rng(0)

    def split(counts):
        y = np.repeat(np.arange(3), counts)
        return SplitData((rng.standard_normal((len(y), 6)) + 4 * np.eye(3, 6)[y]).astype(np.float32), y)

    store = folder / "features.h5"
    ldmlr.FeatureStore.write(store, train=split((120, 40, 8)), test=split((30, 30, 30)))
    model = ldmlr.LatentDiffusion(hidden=16, layers=1, iterations=20).fit_store(
        ldmlr.FeatureStore.open(store)
    )
    model.save(folder / "model.safetensors")
    return folder


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_an_example_is_a_page(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) < 60


def test_every_example_has_a_test():
    text = (ROOT / "tests" / "test_examples.py").read_text() + (
        ROOT / "tests" / "test_engines.py"
    ).read_text()
    assert [path.name for path in EXAMPLES if path.stem not in text] == []


def test_features_to_head(made, capsys):
    figures = load("features_to_head").main(made / "features.h5", made / "head.safetensors", iterations=30)
    assert min(figures.values()) > 80
    assert (made / "head.safetensors").is_file()
    assert "Gaussian" in capsys.readouterr().out


def test_table_pipeline():
    pytest.importorskip("imblearn")
    scores = load("table_pipeline").main(iterations=40)
    assert list(scores) == ["none", "copies", "SMOTE", "ldmlr"]
    assert scores["ldmlr"] > 0.8


@pytest.mark.parametrize("workers", [0, 1])
def test_while_training(made, workers):
    main = load("while_training").main
    assert main(made / "features.h5", made / "model.safetensors", epochs=3, workers=workers) > 80


def test_own_denoiser():
    module = load("own_denoiser")
    network = module.train(300)
    whole, part = module.sample(network, 200), module.sample(network, 50, first_row=150)
    assert whole.norm(dim=1).mean().item() == pytest.approx(1.4, abs=0.2)
    assert whole.norm(dim=1).std().item() < 0.45  # of a Gaussian with this variance: 0.65
    torch.testing.assert_close(whole[150:], part)


class Net(nn.Module):
    """A network with random weights, for machines that have no timm."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3)
        self.pretrained_cfg = {
            "input_size": (3, 8, 8),
            "mean": (0.5,) * 3,
            "std": (0.25,) * 3,
            "crop_pct": 1.0,
        }

    def forward(self, images):
        return self.stem(images).mean((2, 3))


@pytest.fixture
def network(tmp_path, monkeypatch):
    """The name of a network and a file with random weights for it: of timm, or of a stand-in."""
    torch.manual_seed(0)
    try:
        import timm

        name, net = "resnet10t", timm.create_model("resnet10t", pretrained=False, num_classes=0)
    except ImportError:
        module = types.ModuleType("timm")
        module.create_model, module.list_models = lambda *_, **__: Net(), lambda: ["stand_in"]
        monkeypatch.setitem(sys.modules, "timm", module)
        name, net = "stand_in", Net()
    torch.save(net.state_dict(), tmp_path / "weights.pt")
    return name, tmp_path / "weights.pt"


def test_timm_features(network, tmp_path, monkeypatch, run_cli):
    module = load("timm_features")

    def here(*arguments):  # in this process, where the stand-in is
        done = run_cli(*arguments)
        assert done.returncode == 0, done.stderr

    monkeypatch.setattr(module, "ldmlr", here)
    splits = {"train": (20, 10, 6), "test": (5, 5, 5)}
    photos = write_photos(tmp_path / "photos", splits, 16, "png", np.random.default_rng(0))
    name, weights = network
    quick = ("--seed", 0, "--set", 'select.methods=["balanced-softmax", "gaussian"]')
    run = module.main(photos, name, tmp_path / "out", weights, quick)
    assert (run / "result.json").is_file()
    assert ldmlr.FeatureStore.open(tmp_path / "out" / "features.h5").num_classes == 3


def test_on_ray(made, tmp_path, monkeypatch):
    ray = pytest.importorskip("ray")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    paths = {"PYTHONPATH": os.pathsep.join([str(ROOT / "examples"), *filter(None, sys.path)])}
    monkeypatch.syspath_prepend(str(ROOT / "examples"))  # a worker finds the task by its module
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, runtime_env={"env_vars": paths})
    try:
        module = importlib.import_module("on_ray")
        assert module.main(made / "model.safetensors", tmp_path / "pseudo.h5", per_class=20, parts=2) == 60
    finally:
        ray.shutdown()
    store = ldmlr.FeatureStore.open(tmp_path / "pseudo.h5")
    model = ldmlr.LatentDiffusion.load(made / "model.safetensors")
    alone = model.sample(np.repeat(np.arange(3), 20), seed=0, threads=1)
    assert np.array_equal(store.train.features, alone)
    assert store.train.source[:].all()
