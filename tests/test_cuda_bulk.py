"""The tier with bulk copies on emulated clusters: layout, products, and what the emulator would report."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest
from support.emulator import Emulator, check, classes_of

from ldmlr.bench.models import random_spec
from ldmlr.sampler.cuda.tiers import Tier

# What the emulator says of each kernel of csrc/tests/emulated_faults.h.
OUTCOMES = (
    "", "",
    "the copy is not there",
    "threads wait for each other forever",
    "threads wait for each other forever",
    "a barrier expects bytes that never came",
    "a barrier was used before it was initialised",
    "a barrier was used before it was initialised",
    "an arrival too many at a barrier",
    "a barrier was written over",
    "a bulk copy was never waited for",
    "a bulk copy to a block that has ended",
    "an arrival at a block that has ended",
    "a copy to blocks that are not there",
)  # fmt: skip


@pytest.mark.parametrize("number", range(len(OUTCOMES)))
def test_the_emulator_reports_faults(emulator: Emulator, number: int) -> None:
    message = ctypes.create_string_buffer(100)
    assert emulator.library.emulated_fault(number, message)
    assert message.value.decode() == OUTCOMES[number]
    assert not emulator.library.emulated_fault(len(OUTCOMES), message)


@pytest.mark.parametrize("width", [64, 192])
def test_an_operand_is_an_image_of_shared_memory(emulator: Emulator, width: int) -> None:
    """Tiles of 128 rows in one piece, and in each the order that the descriptors of wgmma describe."""
    rows = 384
    at = emulator.library.emulated_operand_at
    at.restype = ctypes.c_int64
    places = np.array([[at(row, column, width) for column in range(width)] for row in range(rows)])
    assert np.array_equal(np.sort(places, axis=None), np.arange(rows * width))
    for row in (0, 1, 7, 127, 128, 300):
        for column in range(0, width, 3):
            tile = (row // 128 * (width // 64) + column // 64) * 128 * 128  # bytes
            address = row % 128 * 128 + column % 64 * 2
            address ^= (address >> 7 & 7) << 4
            assert places[row, column] == (tile + address) // 2


@pytest.mark.parametrize("guidance", [1.5, 1.0])
@pytest.mark.parametrize(
    ("tier", "dim", "hidden", "layers"),
    [
        (Tier("bulk", 64, 128), 33, 100, 2),  # blocks alone, fewer steps than stages
        (Tier("bulk", 64, 384), 50, 300, 2),  # three columns of blocks: alone, six steps
        (Tier("bulk", 64, 512), 64, 500, 1),  # in pairs, eight steps for four stages
        (Tier("bulk", 192, 128), 150, 40, 3),  # 64 columns over; not folded
        (Tier("bulk", 256, 256), 200, 150, 1),  # in pairs, not folded, the transform in twelve steps
    ],
)
def test_widths(emulator: Emulator, tier: Tier, dim: int, hidden: int, layers: int, guidance: float) -> None:
    check(emulator, random_spec(dim, hidden, layers, steps=2, classes=3, guidance=guidance), tier, rows=13)


@pytest.mark.parametrize("rows", [1, 65, 257])
def test_numbers_of_rows_in_pairs(emulator: Emulator, rows: int) -> None:
    check(emulator, random_spec(20, 140, 2, steps=2, classes=3), Tier("bulk", 64, 256), rows)


@pytest.mark.parametrize("hidden", [128, 256, 384])
def test_bits_are_those_of_the_warpgroup_kernels_however_it_is_split(emulator: Emulator, hidden: int) -> None:
    spec = random_spec(30, 100, 1, steps=2, classes=3, solver="ddpm")
    labels, first = classes_of(spec, 300), 2**32 - 50
    tier = Tier("bulk", 64, hidden)
    whole = emulator.sample(spec, labels, tier, first, slab=512)
    assert np.array_equal(emulator.sample(spec, labels, Tier("warpgroup", 64, hidden), first), whole)
    for start, stop in ((0, 1), (1, 70), (70, 300)):
        part = emulator.sample(spec, labels[start:stop].copy(), tier, first + start)
        assert np.array_equal(part, whole[start:stop])
