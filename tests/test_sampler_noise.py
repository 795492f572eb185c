"""ldmlr.sampler.noise: known answers, equality to the bit, distribution, independence."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ldmlr import _native
from ldmlr import isa as cpu
from ldmlr.errors import UsageError
from ldmlr.sampler import noise

ONES = 0xFFFFFFFF
AVAILABLE = [entry.name for entry in cpu.instruction_sets() if entry.available]
# Random123, kat_vectors: counter, key, answer.
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((ONES,) * 4, (ONES,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and np.array_equal(a.view(np.uint32), b.view(np.uint32))


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN)
def test_known_answers(counter: tuple, key: tuple, answer: tuple) -> None:
    assert _native.philox4x32(*counter, *key) == answer
    assert tuple(int(word) for word in noise.philox4x32(counter, key)) == answer


@given(
    seed=st.integers(0, 2**64 - 1),
    first_row=st.one_of(st.integers(0, 100), st.integers(2**32 - 5, 2**32 + 5), st.integers(0, 2**64 - 100)),
    rows=st.integers(0, 70),
    dim=st.integers(1, 70),
    stream=st.integers(0, 255),
    step=st.integers(0, 2**24 - 1),
)
def test_equals_the_reference_to_the_bit(
    seed: int, first_row: int, rows: int, dim: int, stream: int, step: int
) -> None:
    reference = noise.standard_normal_reference(seed, first_row, rows, dim, stream, step)
    for isa in AVAILABLE:
        native = noise.standard_normal(seed, first_row, rows, dim, stream, step, isa=isa)
        assert native.dtype == np.float32
        assert same_bits(native, reference), isa


@given(start=st.integers(0, 200), rows=st.integers(1, 60), dim=st.integers(1, 130))
def test_a_value_depends_on_its_row_and_dim_only(start: int, rows: int, dim: int) -> None:
    whole = noise.standard_normal(7, 1000, 260, 131, 1, 5)
    part = noise.standard_normal(7, 1000 + start, rows, dim, 1, 5)
    assert same_bits(part, np.ascontiguousarray(whole[start : start + rows, :dim]))


def test_row_number_crosses_32_bits() -> None:
    block = noise.standard_normal(3, 2**32 - 2, 4, 8)
    assert same_bits(block[2:], noise.standard_normal(3, 2**32, 2, 8))
    assert not same_bits(block[2:3], noise.standard_normal(3, 0, 1, 8))
    last = noise.standard_normal(3, 2**64 - 1, 1, 8)
    assert same_bits(last, noise.standard_normal_reference(3, 2**64 - 1, 1, 8))


def test_fused_multiply_add_rounds_once() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, 2000)).astype(np.float32)
    near = -(x.astype(np.float64) * y).astype(np.float32)
    z = np.where(rng.random(2000) < 0.5, near, rng.standard_normal(2000)).astype(np.float32)
    z *= np.float32(2.0) ** rng.integers(-30, 30, 2000).astype(np.float32)
    result = noise.fused_multiply_add(x, y, z)
    for a, b, c, found in zip(x, y, z, result, strict=True):
        exact = Fraction(float(a)) * Fraction(float(b)) + Fraction(float(c))
        error = abs(Fraction(float(found)) - exact)
        for neighbour in (np.nextafter(found, np.float32(np.inf)), np.nextafter(found, np.float32(-np.inf))):
            assert error <= abs(Fraction(float(neighbour)) - exact)


def test_accuracy_against_float64() -> None:
    rng = np.random.default_rng(1)
    radius_words, angle_words = rng.integers(0, 2**32, (2, 400_000), dtype=np.uint32)
    radius_words[:1000] = np.arange(1000)
    radius_words[1000:2000] = ONES - np.arange(1000, dtype=np.uint32)
    first, second = noise.box_muller(radius_words, angle_words)
    tiny = np.float32(2.0**-32)
    u = noise.fused_multiply_add(radius_words.astype(np.float32), tiny, tiny)
    radius = np.sqrt(-2.0 * np.log(u.astype(np.float64)))
    angle = angle_words.astype(np.float64) * (2 * np.pi / 2**32)
    exact = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])
    found = np.concatenate([first, second]).astype(np.float64)
    error = np.abs(found - exact)
    # Relative to the radius for all; relative to the value itself where the cosine is not tiny.
    assert np.max(error / np.maximum(np.concatenate([radius, radius]), 1e-30)) < 2 * np.finfo(np.float32).eps
    large = np.abs(exact) > 1e-3
    assert np.max(error[large] / np.abs(exact[large])) < 3 * np.finfo(np.float32).eps


def test_extreme_words_are_finite() -> None:
    words = np.array([0, 1, 2**31, ONES - 1, ONES], np.uint32)
    radius, angle = (grid.ravel() for grid in np.meshgrid(words, words))
    for normals in noise.box_muller(radius, angle):
        assert np.all(np.isfinite(normals))
        assert np.max(np.abs(normals)) <= 6.7


@pytest.mark.parametrize(("stream", "step"), [(0, 0), (1, 3)])
def test_distribution(stream: int, step: int) -> None:
    z = noise.standard_normal(11, 0, 20_000, 50, stream, step).astype(np.float64)
    n = z.size
    # Five standard errors of each moment of a standard normal.
    assert abs(z.mean()) < 5 / np.sqrt(n)
    assert abs(z.var() - 1) < 5 * np.sqrt(2 / n)
    assert abs((z**3).mean()) < 5 * np.sqrt(15 / n)
    assert abs((z**4).mean() - 3) < 5 * np.sqrt(96 / n)
    assert 4.5 < np.abs(z).max() <= 6.7
    tail = stats.norm.sf(4) * 2 * n
    assert abs(np.sum(np.abs(z) > 4) - tail) < 5 * np.sqrt(tail)
    assert stats.kstest(z.ravel()[::5], "norm").pvalue > 1e-4
    correlation = np.corrcoef(z.T) - np.eye(50)
    assert np.abs(correlation).max() < 6 / np.sqrt(20_000)


def test_rows_steps_streams_and_seeds_are_independent() -> None:
    base = noise.standard_normal(5, 0, 4000, 64)
    others = {
        "next row": noise.standard_normal(5, 1, 4000, 64),
        "next step": noise.standard_normal(5, 0, 4000, 64, 0, 1),
        "next stream": noise.standard_normal(5, 0, 4000, 64, 1),
        "next seed": noise.standard_normal(6, 0, 4000, 64),
        "seed in the high word": noise.standard_normal(5 + 2**32, 0, 4000, 64),
        "next block": np.roll(base, 4, axis=1),
        "partner": np.roll(base, 1, axis=1),
    }
    for name, other in others.items():
        correlation = float(np.corrcoef(base.ravel(), other.ravel())[0, 1])
        squares = float(np.corrcoef(base.ravel() ** 2, other.ravel() ** 2)[0, 1])
        assert abs(correlation) < 5 / np.sqrt(base.size), name
        assert abs(squares) < 5 / np.sqrt(base.size), name


@pytest.mark.parametrize("isa", AVAILABLE)
def test_many_words_agree_on_all_instruction_sets(isa: str) -> None:
    fast = noise.standard_normal(99, 2**40, 3000, 129, 255, 2**24 - 1, isa=isa)
    assert same_bits(fast, noise.standard_normal_reference(99, 2**40, 3000, 129, 255, 2**24 - 1))


@pytest.mark.parametrize("isa", AVAILABLE)
def test_nothing_beyond_the_array_is_written(isa: str) -> None:
    for dim in (1, 3, 5, 15, 17, 63, 66, 130):
        room = np.full(3 * dim + 64, 7, np.float32)
        noise.standard_normal(1, 2, 3, dim, out=room[: 3 * dim].reshape(3, dim), isa=isa)
        assert (room[3 * dim :] == 7).all()
        assert not (room[: 3 * dim] == 7).any()


def test_out_is_filled_in_place() -> None:
    out = np.zeros((5, 7), np.float32)
    assert noise.standard_normal(1, 2, 5, 7, out=out) is out
    assert same_bits(out, noise.standard_normal(1, 2, 5, 7))


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"seed": -1}, "seed"),
        ({"seed": 2**64}, "seed"),
        ({"seed": 1.5}, "seed"),
        ({"seed": True}, "seed"),
        ({"first_row": -1}, "first_row"),
        ({"first_row": 2**64 - 1, "rows": 2}, "first_row"),
        ({"rows": -1}, "rows"),
        ({"dim": 0}, "dim"),
        ({"stream": 256}, "stream"),
        ({"step": 2**24}, "step"),
        ({"isa": "neon"}, "isa"),
        ({"out": np.zeros((2, 3))}, "float32"),
        ({"out": np.zeros((3, 2), np.float32)}, "shape"),
        ({"out": np.zeros((3, 2), np.float32).T}, "C order"),
    ],
)
def test_wrong_arguments_are_named(change: dict, word: str) -> None:
    arguments = {"seed": 0, "first_row": 0, "rows": 2, "dim": 3, **change}
    with pytest.raises(UsageError, match=word):
        noise.standard_normal(**arguments)
