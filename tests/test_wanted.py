"""`ldmlr.encoders.wanted`: what an encoder from elsewhere wants its images to be."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from PIL import Image
from support.packages import importable
from torch import nn

from ldmlr.data import open_image_set
from ldmlr.encoders.config import EncodeConfig
from ldmlr.encoders.encoder import open_encoder
from ldmlr.encoders.wanted import normalisation, wanted_size
from ldmlr.errors import UsageError
from ldmlr.store import FeatureStore

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class Net(nn.Module):
    """The mean of every channel, with attributes."""

    def __init__(self, **attributes):
        super().__init__()
        for name, value in attributes.items():
            setattr(self, name, value)

    def forward(self, x):
        return x.mean((2, 3))


@dataclasses.dataclass
class Configuration:
    mean: tuple[float, ...]
    std: tuple[float, ...]
    input_size: tuple[int, int, int] = (3, 32, 32)
    crop_pct: float | None = 0.8


def times_255(values):
    return pytest.approx([255 * value for value in values])


@pytest.mark.parametrize(
    ("attributes", "origin"),
    [
        ({"mean": IMAGENET[0], "std": IMAGENET[1]}, "module"),
        ({"default_cfg": {"mean": IMAGENET[0], "std": IMAGENET[1]}}, "default_cfg"),
        ({"pretrained_cfg": Configuration(*IMAGENET)}, "pretrained_cfg"),
        ({"inside": Net(pretrained_cfg=Configuration(*IMAGENET))}, "pretrained_cfg"),
        ({}, "imagenet"),
    ],
)
def test_every_way_to_say_imagenets_numbers_is_the_same(attributes, origin):
    found = normalisation(Net(**attributes), "net", 3, (), ())
    assert (found.mean, found.std) == (times_255(IMAGENET[0]), times_255(IMAGENET[1]))
    assert found.origin == origin
    assert found.unit == (origin != "imagenet")


@pytest.mark.parametrize(
    ("mean", "std", "unit"),
    [
        (IMAGENET[0], IMAGENET[1], True),
        ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), True),
        ((-1.0, 0.0, 0.0), (1.0, 1.0, 1.0), True),
        ((124.0, 116.0, 104.0), (58.0, 57.0, 57.0), False),
        ((0.0, 0.0, 0.0), (255.0, 255.0, 255.0), False),
        ((0.0, 0.0, 1.5), (1.0, 1.0, 1.0), False),
    ],
)
def test_numbers_up_to_one_are_of_the_unit_interval(mean, std, unit):
    found = normalisation(Net(), "net", 3, mean, std)
    assert found.unit == unit
    assert found.mean == (times_255(mean) if unit else list(mean))
    assert found.std == (times_255(std) if unit else list(std))
    assert ("times 255" in found.words()) == unit
    assert "as given" in found.words()


def test_what_is_given_goes_before_what_the_network_says():
    net = Net(
        mean=(1.0, 2.0, 3.0), std=(1.0, 1.0, 1.0), default_cfg={"mean": IMAGENET[0], "std": IMAGENET[1]}
    )
    assert normalisation(net, "net", 3, (9.0,) * 3, (2.0,) * 3).mean == [9, 9, 9]
    assert normalisation(net, "net", 3, (), ()).mean == [1, 2, 3]
    with pytest.raises(UsageError, match="mean, std: 1 value for images with 3 channels"):
        normalisation(net, "net", 3, (9.0,), (2.0,))


def test_a_configuration_that_fits_no_image_is_told():
    net = Net(pretrained_cfg={"mean": (0.5,), "std": (0.5,), "input_size": (1, 28, 28)})
    with pytest.raises(UsageError, match=r"^MODEL: net: its pretrained_cfg mean is \(0\.5,\), expected 3"):
        normalisation(net, "net", 3, (), ())
    assert normalisation(net, "net", 1, (), ()).mean == [127.5]


@pytest.mark.parametrize(
    ("configuration", "expected"),
    [
        ({"mean": 0, "input_size": (3, 224, 224), "crop_pct": 0.875}, (224, 0.875)),
        ({"mean": 0, "input_size": [3, 32, 32]}, (32, 1.0)),
        ({"mean": 0, "input_size": (3, 32, 32), "crop_pct": None}, (32, 1.0)),
        ({"mean": 0, "input_size": (3, 224, 160)}, None),
        ({"mean": 0}, None),
        ("words", None),
        (None, None),
    ],
)
def test_the_size_that_a_network_wants(configuration, expected):
    assert wanted_size(Net(default_cfg=configuration)) == expected


NETWORK = """
import torch
from torch import nn

class Plain(nn.Module):
    def forward(self, x):
        return torch.cat([x.mean((2, 3)), x.amin((2, 3)), x.amax((2, 3))], 1)

class Wants(Plain):
    default_cfg = {"mean": (0.5,) * 3, "std": (0.5,) * 3, "input_size": (3, 16, 16), "crop_pct": 0.5}
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    with importable("net_that_says", NETWORK, tmp_path, monkeypatch) as name:
        yield name


def test_features_do_not_depend_on_the_unit(image_file, package):
    images = open_image_set(image_file)
    options = [
        {"mean": IMAGENET[0], "std": IMAGENET[1]},
        {"mean": [255 * v for v in IMAGENET[0]], "std": [255 * v for v in IMAGENET[1]]},
    ]
    both = [open_encoder(f"{package}:Plain", images, EncodeConfig(**values)) for values in options]
    pixels = torch.from_numpy(images.train.load(slice(0, 4))).permute(0, 3, 1, 2)
    first, second = (encoder.features(encoder.normalise(pixels)) for encoder in both)
    assert torch.allclose(first, second, rtol=1e-5, atol=1e-5)
    assert first.abs().max() < 10


@pytest.fixture
def photos(tmp_path):
    """Images of different sizes: the centre white, the rest black."""
    for label, name in enumerate("ab"):
        for number, size in enumerate(((40, 40), (60, 44), (48, 80))):
            pixels = np.zeros((size[1], size[0], 3), np.uint8)
            half = int(0.35 * min(size))
            middle = (size[1] // 2, size[0] // 2)
            pixels[middle[0] - half : middle[0] + half, middle[1] - half : middle[1] + half] = 255
            folder = tmp_path / "photos" / ("train" if number else "test") / name
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / f"{number}{label}.png")
    return tmp_path / "photos"


def test_encode_uses_what_the_network_says_and_prints_it(run_cli, photos, package, tmp_path):
    done = run_cli("encode", f"{package}:Wants", photos, "--out", tmp_path / "f.h5")
    assert done.returncode == 0, done.stderr
    assert f"{package}:Wants: pixels less 127.5, 127.5, 127.5, over 127.5" in done.stderr
    assert "images of 16 pixels, as it wants them, from 0.5 of the shorter side" in done.stderr
    rows = FeatureStore.open(tmp_path / "f.h5").train.float32()
    assert np.allclose(rows, 1, atol=0.01)  # the centre alone
    config = json.loads((tmp_path / "result.json").read_text())["config"]
    assert (config["image_size"], config["image_crop"]) == (16, 0.5)
    done = run_cli("encode", f"{package}:Wants", photos, "--image-size", 8, "--out", tmp_path / "g.h5")
    assert done.returncode == 0, done.stderr
    rows = FeatureStore.open(tmp_path / "g.h5").train.float32()
    assert (rows[:, 3:6] < -0.9).all()
    assert "as it wants them" not in done.stderr


def test_a_crop_needs_a_size_and_changes_the_set(photos):
    with pytest.raises(UsageError, match="image_crop: needs image_size, the size after it"):
        open_image_set(photos, image_crop=0.5)
    with pytest.raises(UsageError, match="image_crop: must be above 0 and at most 1"):
        open_image_set(photos, image_size=8, image_crop=1.5)
    whole, part = (open_image_set(photos, image_size=8, image_crop=crop) for crop in (1, 0.5))
    assert (part.train.load([0]) == 255).all()
    assert not (whole.train.load([0]) == 255).all()
    assert whole.fingerprint() == open_image_set(photos, image_size=8).fingerprint() != part.fingerprint()
    assert part.train.subset(np.array([1])).load([0]).min() == 255


def test_a_crop_of_images_in_memory():
    digits = open_image_set("digits-lt", image_size=8, image_crop=0.5)
    assert digits.train.shape == (8, 8, 1)
    assert np.array_equal(
        open_image_set("digits-lt", image_size=8).train.load([0]), open_image_set("digits-lt").train.load([0])
    )
    assert not np.array_equal(digits.train.load([0]), open_image_set("digits-lt").train.load([0]))
    assert np.array_equal(digits.train.subset(np.array([3, 0])).load([1]), digits.train.load([0]))
