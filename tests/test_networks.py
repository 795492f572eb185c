"""`ldmlr.encoders.networks`: sizes, shapes, import paths and exported programs."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from support.packages import importable
from torch import nn

from ldmlr.encoders.networks import build_network, parameter_count
from ldmlr.encoders.networks.custom import load_exported
from ldmlr.errors import InputError, UsageError
from ldmlr.heads.modules import make_head


@pytest.mark.parametrize(
    ("name", "shape", "dim", "parameters"),
    [
        ("resnet32", (32, 32, 3), 64, 463_504),
        ("resnet32x2", (32, 32, 3), 128, 1_848_608),
        ("resnet32x4", (32, 32, 3), 256, 7_383_616),
        ("resnet10", (64, 48, 3), 512, 4_905_792),
        ("resnet50", (64, 64, 3), 2048, 23_508_032),
        ("small", (8, 8, 1), 64, 28_192),
    ],
)
def test_sizes(name, shape, dim, parameters):
    network, found = build_network(name, shape)
    assert (found, parameter_count(network)) == (dim, parameters)
    height, width, channels = shape
    features = network.eval()(torch.randn(2, channels, height, width))
    assert features.shape == (2, dim)
    assert features.dtype == torch.float32
    assert (features >= 0).all()


def test_resnet32_with_its_head_has_the_published_size():
    network, dim = build_network("resnet32", (32, 32, 3))
    assert parameter_count(network) + parameter_count(make_head("linear", dim, 10)) == 464_154


def test_shortcuts_of_resnet32_have_no_parameters_and_subsample():
    from ldmlr.encoders.networks.cifar import Block

    block = Block(4, 8, stride=2).eval()
    for convolution in (block.conv1, block.conv2):
        nn.init.zeros_(convolution.weight)
    images = torch.rand(1, 4, 6, 6)
    out = block(images)
    assert torch.equal(out[:, 2:6], images[:, :, ::2, ::2])
    assert not out[:, :2].any()
    assert not out[:, 6:].any()


@pytest.mark.parametrize(("size", "channels"), [(8, 1), (9, 3), (15, 1)])
def test_the_small_network_takes_odd_sizes(size, channels):
    network, dim = build_network("small", (size, size, channels))
    assert network(torch.randn(3, channels, size, size)).shape == (3, dim)


@pytest.mark.parametrize("name", ["resnet32", "small"])
def test_gradients_reach_every_parameter(name):
    network, _ = build_network(name, (8, 8, 3))
    network(torch.randn(4, 3, 8, 8)).square().sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in network.parameters())


def test_an_unknown_network_names_the_nearest():
    with pytest.raises(UsageError, match="unknown network 'resnet23'; did you mean 'resnet32'"):
        build_network("resnet23", (32, 32, 3))


MODULE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 3, stride=2)
    def forward(self, x):
        return self.conv(x).amax((2, 3))

def flat():
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 7))

def maps():
    return nn.Conv2d(3, 5, 3)

def broken():
    raise ValueError("no weights here")

def number():
    return 3

value = 4
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with importable("nets_for_test", MODULE, tmp_path, monkeypatch) as name:
        yield name


def test_a_factory_by_import_path(package):
    network, dim = build_network(f"{package}:Net", (8, 8, 3))
    assert dim == 5
    assert network.training
    assert build_network(f"{package}:flat", (8, 8, 3))[1] == 7


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        (":maps", r"returned \[2, 5, 6, 6\] for 2 images; expected features \[n, D\]"),
        (":broken", "failed with ValueError: no weights here"),
        (":number", "returned int; expected a torch.nn.Module"),
        (":value", "no callable 'value'"),
        (":Nets", "no callable 'Nets'; did you mean 'Net'"),
        (":", "no import path; write package.module:factory"),
        (".deeper:Net", "cannot import"),
    ],
)
def test_a_wrong_factory_is_one_clear_line(package, factory, message):
    with pytest.raises(UsageError, match=message) as error:
        build_network(package + factory, (8, 8, 3))
    assert "\n" not in str(error.value)


def test_a_factory_for_other_images_is_told(package):
    with pytest.raises(UsageError, match=r"images \[n, 3, 9, 9\]"):
        build_network(f"{package}:flat", (9, 9, 3))


def exported(path: Path, dynamic: bool) -> nn.Module:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        shapes = ({0: torch.export.Dim("n", min=1)},) if dynamic else None
        program = torch.export.export(network, (torch.zeros(2, 3, 8, 8),), dynamic_shapes=shapes)
        torch.export.save(program, path)
    return network


def test_an_exported_program_encodes_as_its_source(tmp_path):
    source = exported(tmp_path / "net.pt2", dynamic=True)
    network, dim = load_exported(tmp_path / "net.pt2", (8, 8, 3))
    images = torch.randn(5, 3, 8, 8)
    assert dim == 4
    torch.testing.assert_close(network(images), source(images))


def test_a_program_of_fixed_batch_size_is_refused(tmp_path):
    exported(tmp_path / "net.pt2", dynamic=False)
    with pytest.raises(InputError, match="export it with a dynamic batch dimension"):
        load_exported(tmp_path / "net.pt2", (8, 8, 3))


def test_a_damaged_program_is_refused_and_none_is_trained(tmp_path):
    (tmp_path / "net.pt2").write_bytes(b"not a program")
    with pytest.raises(InputError, match=r"net\.pt2: not a program written by torch\.export\.save"):
        load_exported(tmp_path / "net.pt2", (8, 8, 3))
    with pytest.raises(UsageError, match="cannot be trained"):
        build_network(str(tmp_path / "net.pt2"), (8, 8, 3))
