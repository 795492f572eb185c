"""Latent axes in every tier of the CUDA kernels, on emulated threads: matrix, remainder, floors and gains."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from support.emulator import Emulator, check, classes_of
from support.latent_axes import latent_spec

from ldmlr.bench.models import random_spec
from ldmlr.floats import bfloat16_bits
from ldmlr.sampler.cuda import tiers
from ldmlr.sampler.cuda.tiers import Tier

SMALL = {
    "resident": Tier("resident", 64, 64),
    "streamed": Tier("streamed", 64, 128),
    "layered": Tier("layered", 64, 64),
    "warpgroup": Tier("warpgroup", 64, 128),
    "bulk": Tier("bulk", 64, 128),
}


@pytest.mark.parametrize("guidance", [1.5, 1.0])
@pytest.mark.parametrize(("dim", "latent"), [(1, 1), (7, 5), (65, 16), (130, 20), (200, 64)])
@pytest.mark.parametrize("name", SMALL)
def test_widths(emulator: Emulator, name: str, dim: int, latent: int, guidance: float) -> None:
    check(emulator, latent_spec(dim, latent, 40, steps=2, guidance=guidance), SMALL[name], rows=17)


@pytest.mark.parametrize(
    "tier", [Tier("streamed", 64, 256), Tier("streamed", 128, 256), Tier("layered", 128, 256)], ids=str
)
def test_guidance_in_two_passes_and_more_axes(emulator: Emulator, tier: Tier) -> None:
    check(emulator, latent_spec(150, tier.latent - 20, 200, 2, steps=2), tier, rows=9)


@pytest.mark.parametrize("psi", [False, True])
@pytest.mark.parametrize("floors", [False, True])
@pytest.mark.parametrize("gain", [False, True])
@pytest.mark.parametrize("bend", [False, True])
@pytest.mark.parametrize("name", SMALL)
def test_each_piece_alone(
    emulator: Emulator, name: str, psi: bool, floors: bool, gain: bool, bend: bool
) -> None:
    spec = latent_spec(70, 9, psi=psi, floors=floors, gain=gain, bend=bend, steps=2, solver="ddpm")
    check(emulator, spec, SMALL[name], rows=20)


@pytest.mark.parametrize("diagonal", [False, True])
@pytest.mark.parametrize("name", SMALL)
def test_the_pieces_go_with_every_scale(emulator: Emulator, name: str, diagonal: bool) -> None:
    other = latent_spec(13, 13, steps=2)
    spec = dataclasses.replace(
        random_spec(13, 40, 1, steps=2, classes=3, diagonal=diagonal),
        psi=other.psi, floor=other.floor, gain=other.gain, bend=other.bend,
    )  # fmt: skip
    check(emulator, spec, SMALL[name], rows=20)


@pytest.mark.parametrize("name", SMALL)
def test_same_bits_however_it_is_split_and_types(emulator: Emulator, name: str) -> None:
    spec = latent_spec(90, 30, steps=2, solver="ddpm")
    labels, first = classes_of(spec, 150), 2**32 - 50
    whole = emulator.sample(spec, labels, SMALL[name], first)
    assert (whole >= np.float32(spec.floor))[:, ::2].all()  # which are not bent
    for start, stop in ((0, 1), (1, 70), (70, 150)):
        part = emulator.sample(spec, labels[start:stop].copy(), SMALL[name], first + start)
        assert np.array_equal(part, whole[start:stop])
    half = emulator.sample(spec, labels, SMALL[name], first, dtype="float16")
    assert np.array_equal(half, whole.astype(np.float16))
    short = emulator.sample(spec, labels, SMALL[name], first, dtype="bfloat16")
    assert np.array_equal(short, bfloat16_bits(whole))


def test_the_bulk_kernels_have_the_bits_of_the_warpgroup_kernels(emulator: Emulator) -> None:
    spec = latent_spec(300, 100, 60, steps=2)
    labels = classes_of(spec, 40)
    bulk, warpgroup = (emulator.sample(spec, labels, Tier(name, 128, 128)) for name in tiers.BY_WGMMA)
    assert np.array_equal(bulk, warpgroup)


def test_the_tier_follows_from_the_axes_not_from_the_features(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(tiers.VARIABLE, raising=False)
    spec = latent_spec(1280, 64, 128, 2)
    hidden = len(spec.tables.w_in)
    assert tiers.choose(spec.latent, hidden, 2, True, 232448) == Tier("resident", 64, 128)
    assert tiers.padded_features(spec.dim) == 1280
