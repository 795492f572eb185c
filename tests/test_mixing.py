"""`ldmlr.encoders.augment.mixing`, Mixup and CutMix: what is blended, in which proportion, and who
decides.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ldmlr.encoders.augment.mixing import Mixing, box, cutmix, mixup
from ldmlr.encoders.config import BaselineConfig
from ldmlr.errors import UsageError


def batch(count: int = 8, height: int = 6, width: int = 10) -> tuple[torch.Tensor, torch.Tensor]:
    """Images whose every pixel is their number, and one class each."""
    images = torch.arange(count, dtype=torch.float32).view(-1, 1, 1, 1).expand(count, 3, height, width)
    return images, torch.eye(count)


def mix(seed: int = 0, views: int = 1, **alphas: float) -> list[tuple[torch.Tensor, torch.Tensor]]:
    config = BaselineConfig(**{"mixup": 0.0, **alphas})
    images, targets = batch()
    generator = torch.Generator().manual_seed(seed)
    return Mixing(config)([images] * views, targets, np.random.default_rng(seed), generator)


def test_mixup_blends_images_and_targets_alike():
    images, targets = batch()
    partner = torch.tensor([1, 0, 3, 2, 5, 4, 7, 6])
    mixed, soft = mixup(images, targets, 0.7, partner)
    assert mixed[0].unique().tolist() == pytest.approx([0.3])
    assert soft[2].tolist() == pytest.approx([0, 0, 0.7, 0.3, 0, 0, 0, 0])


@given(st.floats(0, 1), st.integers(1, 40), st.integers(1, 40), st.data())
def test_the_box_has_the_wanted_area_where_it_lies_inside(weight, height, width, data):
    centre = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    top, bottom, left, right = box(height, width, weight, centre)
    assert 0 <= top <= bottom <= height
    assert 0 <= left <= right <= width
    whole = box(height, width, weight, (height // 2, width // 2))
    assert whole[1] - whole[0] == pytest.approx(height * np.sqrt(1 - weight), abs=0.5 + 1e-9)
    assert whole[3] - whole[2] == pytest.approx(width * np.sqrt(1 - weight), abs=0.5 + 1e-9)
    assert (bottom - top) * (right - left) <= (whole[1] - whole[0]) * (whole[3] - whole[2])


@given(st.floats(0, 1), st.integers(0, 5), st.integers(0, 9))
def test_targets_of_cutmix_are_the_shares_of_the_pixels(weight, row, column):
    images, targets = batch()
    partner = torch.arange(8).roll(1)
    mixed, soft = cutmix(images, targets, weight, partner, (row, column))
    for index in range(8):
        shares = [(mixed[index, 0] == other).float().mean().item() for other in range(8)]
        assert soft[index].tolist() == pytest.approx(shares, abs=1e-6)
        assert set(np.flatnonzero(shares)) <= {index, (index - 1) % 8}
    assert torch.equal(images, batch()[0])


def test_one_view_is_mixed_by_what_is_on():
    ((plain, hard),) = mix()
    assert torch.equal(plain, batch()[0])
    assert torch.equal(hard, batch()[1])
    ((blended, _),) = mix(mixup=1.0)
    assert all(len(image.unique()) == 1 for image in blended)
    ((pasted, soft),) = mix(cutmix=1.0)
    assert set(pasted.unique().tolist()) <= set(range(8))
    assert max(len(image.unique()) for image in pasted) == 2
    torch.testing.assert_close(soft.sum(1), torch.ones(8))


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_a_coin_decides_between_mixup_and_cutmix(share):
    cut = [
        all(
            value.is_integer()
            for value in mix(seed, mixup=0.5, cutmix=0.5, cutmix_share=share)[0][0].unique().tolist()
        )
        for seed in range(400)
    ]
    assert np.mean(cut) == pytest.approx(share, abs=0.06)


def test_two_views_share_partners_and_proportion():
    (blended, first), (pasted, second) = mix(3, views=2, mixup=1.0, cutmix=1.0)
    for index in range(8):
        assert set(torch.nonzero(second[index]).flatten().tolist()) <= set(
            torch.nonzero(first[index]).flatten().tolist()
        )
    # Where the border cut nothing, the shares differ by the rounding of the box alone.
    assert all(len(image.unique()) == 1 for image in blended)
    assert max(len(image.unique()) for image in pasted) == 2
    unmixed = mix(3, views=2)
    assert all(torch.equal(images, batch()[0]) for images, _ in unmixed)
    (_, hard), (_, soft) = mix(3, views=2, cutmix=1.0)
    assert torch.equal(hard, torch.eye(8))
    assert not torch.equal(soft, torch.eye(8))


def test_two_views_need_one_alpha():
    with pytest.raises(UsageError, match=r"mixup 1 and cutmix 0\.5 must be equal"):
        BaselineConfig(mixup=1.0, cutmix=0.5, consistency=1.0)
    assert BaselineConfig(mixup=0.0, cutmix=0.5, consistency=1.0).cutmix == 0.5
