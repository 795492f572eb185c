"""Augmentation of batches: determinism, range, identity at zero, each image by itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageEnhance, ImageOps

from ldmlr.encoders.augment import colour, geometry, policies
from ldmlr.encoders.augment.crop import crop_flip, cutout, mixup, shift_mirror
from ldmlr.encoders.augment.pipeline import Augmentation, Normalise
from ldmlr.encoders.augment.views import View
from ldmlr.encoders.config import AUGMENTATIONS, BaselineConfig

GREY = torch.tensor([120.0, 120.0, 120.0])


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pixels(n: int = 6, size: int = 16, channels: int = 3, seed: int = 1) -> torch.Tensor:
    return torch.randint(0, 256, (n, channels, size, size), generator=generator(seed), dtype=torch.uint8)


def smooth(n: int = 4, size: int = 16) -> torch.Tensor:
    """Images like photographs: neighbours alike, all values used."""
    ramp = torch.linspace(0, 1, size)
    phase = torch.arange(n).view(-1, 1, 1, 1) + torch.tensor([0.0, 0.7, 1.9]).view(1, 3, 1, 1)
    waves = torch.sin(5 * ramp.view(1, 1, -1, 1) + phase) + torch.cos(
        4 * ramp.view(1, 1, 1, -1) * (1 + phase)
    )
    return ((waves + 2) / 4 * 255).round()


# --- flip, crop, cutout, mixup ---------------------------------------------------------------


def test_crop_and_flip_do_as_told():
    images = torch.arange(12, dtype=torch.uint8).view(1, 1, 3, 4)
    moved = shift_mirror(images, torch.tensor([[1], [-1]]), torch.tensor([False]))
    assert moved[0, 0].tolist() == [[0, 4, 5, 6], [0, 8, 9, 10], [0, 0, 0, 0]]
    mirrored = shift_mirror(images, None, torch.tensor([True]))
    assert torch.equal(mirrored, images.flip(3))
    assert torch.equal(shift_mirror(images, torch.zeros(2, 1, dtype=torch.long), None), images)


@given(st.integers(0, 2**32), st.integers(1, 4), st.integers(0, 5))
def test_crop_flip_is_a_window_of_the_padded_image(seed, n, padding):
    images = pixels(n, 8, seed=seed % 97) // 2 + 1
    result = crop_flip(images, generator(seed), padding, flip=True)
    assert torch.equal(result, crop_flip(images, generator(seed), padding, flip=True))
    padded = torch.nn.functional.pad(images, (padding,) * 4)
    for before, after in zip(padded, result, strict=True):
        windows = before.unfold(1, 8, 1).unfold(2, 8, 1)  # [C, y, x, 8, 8]
        both = torch.stack([windows, windows.flip(4)])
        assert (both == after[:, None, None]).all(dim=1).all(-1).all(-1).any()


def test_half_of_the_images_are_mirrored():
    images = pixels(1, 8).expand(4000, 3, 8, 8)
    mirrored = (crop_flip(images, generator(), flip=True) != images).flatten(1).any(1)
    assert 0.45 < mirrored.float().mean() < 0.55


@given(st.integers(0, 2**32), st.integers(1, 20))
def test_cutout_blanks_one_square_per_image(seed, size):
    images = torch.ones(5, 3, 16, 16)
    result = cutout(images, generator(seed), size)
    assert torch.equal(result[:, 0], result[:, 1])
    for image in result[:, 0]:
        blank = torch.nonzero(image == 0)
        low, high = blank.amin(0), blank.amax(0) + 1
        assert ((high - low) <= size).all()
        assert len(blank) == (high - low).prod()
        assert len(blank) >= (size // 2) ** 2 or size == 1
    assert images.all()


def test_mixup_blends_images_and_targets_alike():
    images = torch.eye(6).view(6, 1, 6, 1)
    targets = torch.eye(6)
    mixed, soft = mixup(images, targets, 0.7, generator())
    assert torch.equal(mixed.view(6, 6), soft)
    torch.testing.assert_close(soft.sum(1), torch.ones(6))
    assert torch.equal(mixup(images, targets, 1.0, generator())[0], images)


# --- geometry ----------------------------------------------------------------------------------


def test_the_identity_warp_is_exact_and_shifts_move_content():
    images = smooth()
    torch.testing.assert_close(geometry.warp(images, geometry.identity(4)), images, atol=1e-3, rtol=0)
    zero = torch.zeros(4)
    moved = geometry.warp(images, geometry.similarity(zero, zero + 1, torch.tensor([[3.0, -2.0]] * 4)))
    torch.testing.assert_close(moved[:, :, :-2, 3:], images[:, :, 2:, :-3], atol=1e-2, rtol=0)
    assert moved[:, :, :, :3].abs().max() < 1e-2


def test_rotation_by_a_right_angle_and_enlargement():
    images = smooth()
    one = torch.ones(4)
    turned = geometry.warp(images, geometry.similarity(90 * one, one, torch.zeros(4, 2)))
    torch.testing.assert_close(turned, torch.rot90(images, -1, (2, 3)), atol=2e-2, rtol=0)
    larger = geometry.warp(images, geometry.similarity(0 * one, 2 * one, torch.zeros(4, 2)))
    reference = torch.nn.functional.interpolate(images[:, :, 4:12, 4:12], scale_factor=2, mode="bilinear")
    torch.testing.assert_close(larger[:, :, 2:-2, 2:-2], reference[:, :, 2:-2, 2:-2], atol=1e-2, rtol=0)


def test_warps_fill_with_the_given_colour():
    away = geometry.similarity(torch.zeros(2), torch.ones(2), torch.full((2, 2), 99.0))
    filled = geometry.warp(pixels(2).float(), away, fill=torch.tensor([1.0, 2.0, 3.0]))
    torch.testing.assert_close(filled, torch.tensor([1.0, 2.0, 3.0]).view(1, 3, 1, 1).expand_as(filled))


def test_resized_crops_stay_inside_the_image():
    plain = torch.full((50, 3, 16, 16), 7.0)
    torch.testing.assert_close(geometry.resized_crop(plain, generator()), plain)
    whole = geometry.resized_crop(smooth(), generator(), area=(1.0, 1.0), ratio=(1.0, 1.0))
    torch.testing.assert_close(whole, smooth(), atol=1e-2, rtol=0)


# --- colours, against Pillow -------------------------------------------------------------------


def pillow(image: torch.Tensor) -> Image.Image:
    return Image.fromarray(image.permute(1, 2, 0).numpy().astype(np.uint8))


def tensor(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float()


@pytest.mark.parametrize("factor", [0.1, 0.6, 1.0, 1.4, 1.9])
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (colour.brightness, ImageEnhance.Brightness),
        (colour.colour, ImageEnhance.Color),
        (colour.contrast, ImageEnhance.Contrast),
        (colour.sharpness, ImageEnhance.Sharpness),
    ],
)
def test_blends_are_pillows(ours, theirs, factor):
    images = pixels(3).float()
    result = ours(images, torch.full((3,), factor))
    for image, after in zip(images, result, strict=True):
        # Pillow rounds its degenerate image and its result.
        torch.testing.assert_close(after, tensor(theirs(pillow(image)).enhance(factor)), atol=2.0, rtol=0)


@pytest.mark.parametrize(
    ("ours", "theirs", "tolerance"),
    [
        (lambda x: colour.posterize(x, torch.full((len(x),), 5.0)), lambda i: ImageOps.posterize(i, 5), 0),
        (lambda x: colour.solarize(x, torch.full((len(x),), 99.0)), lambda i: ImageOps.solarize(i, 99), 0),
        (colour.invert, ImageOps.invert, 0),
        (colour.autocontrast, ImageOps.autocontrast, 1),
        (colour.equalize, ImageOps.equalize, 0),
    ],
)
@pytest.mark.parametrize("images", [pixels(3, 24).float(), smooth(3, 24), torch.full((2, 3, 8, 8), 9.0)])
def test_plain_operations_are_pillows(ours, theirs, tolerance, images):
    for image, after in zip(images, ours(images), strict=True):
        torch.testing.assert_close(after, tensor(theirs(pillow(image))), atol=tolerance, rtol=0)


# --- policies ----------------------------------------------------------------------------------


def everything(n: int) -> torch.Tensor:
    return torch.arange(n) % len(policies.OPERATIONS)


@given(st.integers(0, 2**32), st.sampled_from([1, 3]))
def test_operations_keep_the_range_and_the_other_images(seed, channels):
    images = pixels(32, 8, channels, seed % 101).float()
    draws = generator(seed)
    operation, fraction = everything(32), torch.rand(32, generator=draws)
    sign = torch.where(torch.rand(32, generator=draws) < 0.5, 1.0, -1.0)
    fill = GREY[:channels]
    result = policies.apply(images, operation, fraction, sign, fill)
    assert result.min() >= 0
    assert result.max() <= 255
    order = torch.randperm(32, generator=draws)
    shuffled = policies.apply(images[order], operation[order], fraction[order], sign[order], fill)
    torch.testing.assert_close(shuffled, result[order])


def test_operations_with_a_strength_are_the_identity_at_zero():
    images = pixels(32).float()
    operation = everything(32)
    result = policies.apply(images, operation, torch.zeros(32), torch.ones(32), GREY)
    plain = torch.tensor([policies.OPERATIONS[i] in policies._PLAIN for i in operation.tolist()])
    torch.testing.assert_close(result[~plain], images[~plain])
    assert not torch.equal(result[plain], images[plain])


def test_every_operation_does_something_at_full_strength():
    images = smooth(len(policies.OPERATIONS))
    count = len(images)
    result = policies.apply(images, everything(count), torch.ones(count), torch.ones(count), GREY)
    changed = (result != images).flatten(1).any(1)
    assert changed.tolist() == [name != "identity" for name in policies.OPERATIONS]


def test_geometric_operations_move_as_their_names_say():
    images = smooth(1, 32).expand(3, 3, 32, 32)
    index = [policies.OPERATIONS.index(name) for name in ("translate-x", "translate-y", "shear-x")]
    moved = policies.apply(images, torch.tensor(index), torch.ones(3), torch.ones(3), GREY)
    reach = round(150 / 331 * 32)
    assert torch.equal(moved[0, :, :, :-reach], images[0, :, :, reach:])
    assert torch.equal(moved[1, :, :-reach], images[1, :, reach:])
    assert torch.equal(moved[2, :, 0], images[2, :, 0])
    assert (moved[2, :, -1, -9:] == GREY[0]).all()


@pytest.mark.parametrize("policy", [policies.autoaugment, policies.randaugment])
def test_policies_draw_for_each_image(policy):
    same = smooth(1).expand(64, 3, 16, 16)
    first, again = (policy(same, generator(3), GREY) for _ in range(2))
    assert torch.equal(first, again)
    assert len(torch.unique(first.flatten(1), dim=0)) > 15
    assert not torch.equal(first, policy(same, generator(4), GREY))
    assert first.min() >= 0
    assert first.max() <= 255


def test_the_cifar_policy_has_25_sub_policies_of_known_operations():
    assert len(policies.CIFAR_POLICY) == 25
    for pair in policies.CIFAR_POLICY:
        for name, probability, level in pair:
            assert name in policies.OPERATIONS
            assert 0 <= probability <= 1
            assert 0 <= level <= 9


# --- the pipeline and the views ---------------------------------------------------------------


def test_without_augmentation_the_pipeline_only_normalises():
    config = BaselineConfig(augment=("none",))
    mean, std = [100.0, 110.0, 120.0], [50.0, 60.0, 70.0]
    images = Augmentation(config, mean, std)(pixels(), generator())
    expected = (pixels().double() - torch.tensor(mean).view(1, 3, 1, 1)) / torch.tensor(std).view(1, 3, 1, 1)
    torch.testing.assert_close(images.double(), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", AUGMENTATIONS)
@pytest.mark.parametrize("channels", [1, 3])
def test_every_augmentation_is_a_function_of_the_generator(name, channels):
    augment = Augmentation(BaselineConfig(augment=(name,)), [120.0] * channels, [60.0] * channels)
    images = pixels(16, 16, channels)
    first, again, other = (augment(images, generator(seed)) for seed in (5, 5, 6))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.dtype == torch.float32
    assert torch.isfinite(first).all()


@pytest.mark.parametrize("kind", ["weak", "strong"])
def test_views_do_not_depend_on_the_batches(kind):
    images, normalise = pixels(10), Normalise([120.0] * 3, [60.0] * 3)
    view = View(kind, 10, (16, 16, 3), flip=True, seed=0, index=1)
    whole = view(images, 0, normalise)
    parts = torch.cat([view(images[i : i + 3], i, normalise) for i in range(0, 10, 3)])
    torch.testing.assert_close(parts, whole)
    other = View(kind, 10, (16, 16, 3), flip=True, seed=0, index=2)(images, 0, normalise)
    assert not torch.equal(other, whole)


def test_strong_views_have_the_strength_they_promise():
    rows = 5000
    view = View("strong", rows, (32, 32, 3), flip=True, seed=0, index=0)
    assert (view.reach, view.size) == (4, 9)
    for values, low, high in [
        (view.angle, -20, 20), (view.scale, 0.75, 1.25), (view.move, -4, 4), (view.contrast, 0.7, 1.3),
        (view.channel_shift, -0.2, 0.2),
    ]:  # fmt: skip
        assert low <= values.min() < low + 0.02 * (high - low)
        assert high - 0.02 * (high - low) < values.max() <= high
    blank = view(torch.full((rows, 3, 32, 32), 120, dtype=torch.uint8), 0, Normalise([120.0] * 3, [60.0] * 3))
    squares = (blank == 0).all(1).flatten(1).sum(1)
    assert squares.max() == 81
    assert squares.min() >= 20


def test_views_without_mirroring_for_encoders_that_never_saw_it():
    assert not View("weak", 50, (8, 8, 1), flip=False, seed=0, index=0).mirrored.any()
    assert View("weak", 50, (8, 8, 1), flip=True, seed=0, index=0).mirrored.any()
