"""`ldmlr.encoders.augment.shrink`, smaller images in the early epochs: the growth of the side, and the
scaling.
"""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ldmlr.encoders.augment.shrink import shrink, side_share
from ldmlr.encoders.config import BaselineConfig
from ldmlr.encoders.networks import build_network
from ldmlr.errors import UsageError


@given(st.floats(0.05, 1), st.integers(1, 400))
def test_the_side_grows_from_the_first_share_to_the_full_one(first, epochs):
    shares = [side_share(first, epoch, epochs) for epoch in range(epochs)]
    assert shares[0] == pytest.approx(first)
    assert shares == sorted(shares)
    assert all(share == 1 for share in shares[-(-4 * epochs // 5) :])
    assert len(set(shares)) <= 5


def test_half_the_side_goes_over_three_quarters():
    shares = [side_share(0.5, epoch, 100) for epoch in range(100)]
    assert [shares.count(share) for share in (0.5, 0.75, 1.0)] == [40, 40, 20]
    assert sum(share**2 for share in shares) / 100 == pytest.approx(0.525)


@given(st.integers(1, 9), st.integers(1, 9), st.floats(0.05, 1))
def test_scaling_keeps_constants_and_never_ends_empty(height, width, share):
    images = torch.full((2, 3, height, width), 0.25)
    small = shrink(images, share)
    assert small.shape[2:] == (max(1, round(height * share)), max(1, round(width * share)))
    torch.testing.assert_close(small, torch.full_like(small, 0.25))


def test_half_is_the_mean_of_neighbours_inside():
    rows = torch.arange(8.0).repeat(8, 1)[None, None]
    small = shrink(rows, 0.5)[0, 0]
    # Antialiased bilinear weights 1, 3, 3, 1 over eight: on a slope the mean of the two pixels below.
    torch.testing.assert_close(small[1, 1:3], torch.tensor([2.5, 4.5]))
    assert shrink(rows, 1.0) is rows


@pytest.mark.parametrize("share", [0.5, 0.75])
def test_the_networks_take_smaller_images(share):
    network, dim = build_network("resnet32", (32, 32, 3))
    assert network.eval()(shrink(torch.zeros(1, 3, 32, 32), share)).shape == (1, dim)


@pytest.mark.parametrize("value", [0.0, 1.5])
def test_wrong_shares_name_the_option(value):
    with pytest.raises(UsageError, match="first_size: must be"):
        BaselineConfig(first_size=value)
