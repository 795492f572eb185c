"""`ldmlr.encoders.encoder`, encoders that are no baseline: what is asked of them, their normalisation,
their seed, their errors.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from support.packages import importable
from torch import nn

from ldmlr.data import open_image_set
from ldmlr.encoders.baseline import train_baseline
from ldmlr.encoders.config import BaselineConfig, EncodeConfig
from ldmlr.encoders.encoder import open_encoder
from ldmlr.encoders.networks import build_network
from ldmlr.encoders.networks.custom import load_exported
from ldmlr.errors import InputError, UsageError
from ldmlr.store import FeatureStore

MODULE = """
import torch
from torch import nn

class Means(nn.Module):
    def forward(self, x):
        return x.mean((2, 3))

class Unset(Means):
    mean = std = None

class Methods(Means):
    def mean(self):
        return 3
    def std(self):
        return 3

class Half(Means):
    mean, std = (1.0, 2.0, 3.0), None

class Tensors(Means):
    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.tensor([10, 20, 30]).view(1, 3, 1, 1))
        self.std = nn.Parameter(torch.full((3,), 2.0))

class Words(Means):
    mean, std = "grey", (1.0, 1.0, 1.0)

class Flat(Means):
    mean, std = (1.0, 1.0, 1.0), (1.0, 0.0, 1.0)

class Long(Means):
    mean, std = list(range(99)), list(range(99))

class Batch(Means):
    def forward(self, x):
        return super().forward(x - x.mean((0, 2, 3), keepdim=True))

class Growing(Means):
    def forward(self, x):
        return super().forward(x).repeat(1, len(x))

class Nothing(Means):
    def forward(self, x):
        return x.flatten(1)[:, :0]

class Waves(Means):
    def forward(self, x):
        return torch.fft.fft(x.mean(1).flatten(1))

class Rounded(Means):
    def forward(self, x):
        return super().forward(x).bfloat16()

def running():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Flatten())

def drawn():
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 5))

def broken():
    raise ValueError("no weights here")

def number():
    return 3
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with importable("foreign_nets", MODULE, tmp_path, monkeypatch) as name:
        yield name


def export(network: nn.Module, path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(
            network, (torch.zeros(2, 3, 8, 8),), dynamic_shapes=({0: torch.export.Dim("n", min=1)},)
        )
        torch.export.save(program, path)
    return path


# --- features of an image alone ------------------------------------------------------------------


def normalising() -> nn.Module:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return network.train()


def test_a_program_exported_in_training_mode_is_refused(run_cli, image_file, tmp_path):
    path = export(normalising(), tmp_path / "train.pt2")
    with pytest.raises(
        InputError, match=r"train\.pt2 returned other features .* export it after \.eval\(\)$"
    ):
        load_exported(path, (8, 8, 3))
    done = run_cli("encode", path, image_file, "--out", tmp_path / "f.h5")
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done.stderr
    assert not (tmp_path / "f.h5").exists()
    assert load_exported(export(normalising().eval(), tmp_path / "eval.pt2"), (8, 8, 3))[1] == 4


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("Batch", "returned other features for the same images in another batch, .*; let them depend on"),
        (
            "Growing",
            r"returned features of 6 dimensions for 2 images and 9 for 3; expected features \[n, D\]",
        ),
        ("Nothing", r"returned \[2, 0\] for 2 images; expected features \[n, D\]"),
        ("Waves", r"returned complex64 features; return real numbers, such as their \.abs\(\)"),
    ],
)
def test_what_is_no_encoder_is_told(package, image_file, factory, message):
    with pytest.raises(UsageError, match=rf"^network: {package}:{factory} {message}") as caught:
        build_network(f"{package}:{factory}", (8, 8, 3))
    assert "\n" not in str(caught.value)
    with pytest.raises(UsageError, match=rf"^MODEL: {package}:{factory} {message}"):
        open_encoder(f"{package}:{factory}", open_image_set(image_file), EncodeConfig())


@pytest.mark.parametrize(("factory", "dim"), [("running", 144), ("Rounded", 3), ("drawn", 5)])
def test_layers_that_differ_in_training_alone_are_fine(package, factory, dim):
    network, found = build_network(f"{package}:{factory}", (8, 8, 3))
    assert (found, network.training) == (dim, True)


# --- normalisation -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("factory", "mean", "origin"),
    [
        ("Unset", [123.675, 116.28, 103.53], "imagenet"),
        ("Methods", [123.675, 116.28, 103.53], "imagenet"),
        ("Half", [123.675, 116.28, 103.53], "imagenet"),
        ("Tensors", [10, 20, 30], "module"),
    ],
)
def test_attributes_that_are_not_set_are_no_normalisation(package, image_file, factory, mean, origin):
    encoder = open_encoder(f"{package}:{factory}", open_image_set(image_file), EncodeConfig())
    assert (encoder.mean, encoder.provenance["normalisation"]) == (mean, origin)


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("Words", "its attribute mean is 'grey', expected 3 numbers, one per channel"),
        ("Flat", r"its attribute std is \(1\.0, 0\.0, 1\.0\), expected 3 numbers above 0, one per channel"),
        ("Long", r"its attribute mean is \[0, 1, .* \.\.\., expected 3 numbers"),
    ],
)
def test_attributes_that_are_no_normalisation_are_told(run_cli, package, image_file, factory, message):
    images = open_image_set(image_file)
    with pytest.raises(UsageError, match=rf"^MODEL: {package}:{factory}: {message}") as caught:
        open_encoder(f"{package}:{factory}", images, EncodeConfig())
    assert str(caught.value).endswith("; correct it, or give mean and std")
    given = EncodeConfig(mean=(1.0, 2.0, 3.0), std=(1.0, 1.0, 1.0))
    assert open_encoder(f"{package}:{factory}", images, given).mean == [1, 2, 3]


# --- weights that a factory draws ----------------------------------------------------------------


def test_a_factory_draws_by_the_seed(run_cli, package, image_file, tmp_path):
    for start, (name, seed) in enumerate((("one", 3), ("two", 3), ("other", 4))):
        torch.manual_seed(start)
        options = ("--seed", seed, "--out", tmp_path / f"{name}.h5")
        done = run_cli("encode", f"{package}:drawn", image_file, *options)
        assert done.returncode == 0, done.stderr
    rows = [FeatureStore.open(tmp_path / f"{name}.h5").train.float32() for name in ("one", "two", "other")]
    assert np.array_equal(rows[0], rows[1])
    assert not np.array_equal(rows[0], rows[2])


def test_the_callers_random_numbers_stay(package, image_file):
    before = torch.random.get_rng_state()
    open_encoder(f"{package}:drawn", open_image_set(image_file), EncodeConfig(), seed=7)
    assert torch.equal(torch.random.get_rng_state(), before)


# --- the words of errors -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("no.such:net", "MODEL: cannot import 'no.such'"),
        ("foreign_nets:", "MODEL: 'foreign_nets:' is no import path; write package.module:factory"),
        ("foreign_nets:drawm", "MODEL: foreign_nets has no callable 'drawm'; did you mean 'drawn'?"),
        ("foreign_nets:broken", "MODEL: foreign_nets:broken() failed with ValueError: no weights here"),
        ("foreign_nets:number", "MODEL: foreign_nets:number() returned int; expected a torch.nn.Module"),
        ("some:net.pt2", "some:net.pt2: no such model"),
    ],
)
def test_encode_does_not_name_an_option_that_it_lacks(run_cli, package, image_file, model, message):
    done = run_cli("encode", model, image_file, "--dry-run")
    assert message in done.stderr
    assert "--network" not in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_baseline_whose_network_is_gone_is_told(run_cli, package, image_file, tmp_path):
    config = BaselineConfig(network=f"{package}:drawn", epochs=1, precision="float32")
    train_baseline(open_image_set(image_file), config, tmp_path / "model", device="cpu")
    (tmp_path / "foreign_nets.py").write_text("")
    sys.modules.pop("foreign_nets")
    done = run_cli("encode", tmp_path / "model", image_file, "--network", f"{package}:drawn", "--dry-run")
    expected = "model.safetensors: its network: foreign_nets has no callable 'drawn'"
    assert (done.returncode, expected in done.stderr) == (1, True), done.stderr


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("script.pt", "is a TorchScript program, not a baseline; name a function that returns it, FILE.py:"),
        (
            "state.pt",
            "is a file of torch.save, such as weights without their network, not a baseline; ",
        ),
        ("old.pth", "is a file of torch.save, such as weights without their network, not a baseline; "),
        ("code.py", "is code; name its function as well"),
        ("rows.npz", "is a .npz file, not a baseline; give one made by ldmlr baseline"),
    ],
)
def test_a_network_in_another_form_is_told_how_to_be_named(name, what, image_file, tmp_path):
    network = nn.Conv2d(3, 2, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(network).save(tmp_path / "script.pt")
    torch.save(network.state_dict(), tmp_path / "state.pt")
    torch.save(network.state_dict(), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    (tmp_path / "code.py").write_text("def network(): ...")
    np.savez(tmp_path / "rows.npz", features=np.ones(3))
    with pytest.raises((InputError, UsageError)) as caught:
        open_encoder(str(tmp_path / name), open_image_set(image_file), EncodeConfig())
    assert f"{tmp_path / name}: {what}" in str(caught.value)
