"""Encoding large images piece by piece: the features of one batch, in memory that is kept and given back."""

from __future__ import annotations

from typing import cast

import numpy as np
import pytest
import torch
from torch import nn

from ldmlr.encoders import encode
from ldmlr.encoders.encoder import Encoder
from ldmlr.encoders.memory import kept_memory


class Seen(nn.Module):
    """A depthwise network that notes the batches it was given."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2), nn.SiLU(), nn.Conv2d(8, 8, 3, groups=8), nn.SiLU(),
        )  # fmt: skip
        self.batches: list[tuple[int, bool]] = []

    @torch.no_grad()
    def features(self, images: torch.Tensor) -> torch.Tensor:
        self.batches.append((len(images), images.is_contiguous(memory_format=torch.channels_last)))
        found: torch.Tensor = self.layers(images).mean((2, 3))
        return found


def test_large_images_go_in_pieces_and_small_ones_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encode, "PIECE", 3 * 80 * 80 * 4)
    network = Seen()
    large, small = torch.rand(10, 3, 80, 80), torch.rand(10, 3, 32, 32)
    expected = network.features(large).numpy()
    network.batches.clear()
    found = encode._features(cast(Encoder, network), large)
    assert network.batches == [(4, True), (4, True), (2, True)]
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()
    network.batches.clear()
    encode._features(cast(Encoder, network), small)
    assert network.batches == [(10, False)]


def test_an_image_larger_than_a_piece_goes_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encode, "PIECE", 10)
    network = Seen()
    assert encode._features(cast(Encoder, network), torch.rand(2, 3, 64, 64)).shape == (2, 8)
    assert [rows for rows, _ in network.batches] == [1, 1]


def test_memory_is_usable_within_and_after_and_when_an_error_ends_it() -> None:
    def fail() -> None:
        with kept_memory():
            assert np.ones(1 << 22).sum() == 1 << 22
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    with kept_memory():
        again = np.ones(1 << 22)
    assert again.sum() == 1 << 22
