"""Encoders that are no baseline: what is asked of them."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn

from ldmlr.encoders.networks import build_network
from ldmlr.encoders.networks.custom import load_exported
from ldmlr.errors import InputError, UsageError

MODULE = """
import torch
from torch import nn

class Means(nn.Module):
    def forward(self, x):
        return x.mean((2, 3))

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
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "foreign_nets.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "foreign_nets"
    sys.modules.pop("foreign_nets", None)


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
def test_what_is_no_encoder_is_told(package, factory, message):
    with pytest.raises(UsageError, match=rf"^--network: {package}:{factory} {message}") as caught:
        build_network(f"{package}:{factory}", (8, 8, 3))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("factory", "dim"), [("running", 144), ("Rounded", 3), ("drawn", 5)])
def test_layers_that_differ_in_training_alone_are_fine(package, factory, dim):
    network, found = build_network(f"{package}:{factory}", (8, 8, 3))
    assert (found, network.training) == (dim, True)
