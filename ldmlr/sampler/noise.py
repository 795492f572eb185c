"""Counter-based standard normals: a pure function of (seed, row, step, dim).

Philox4x32-10 (Salmon et al., Parallel random numbers: as easy as 1, 2, 3, SC 2011) turned into
normals by Box-Muller. The same rows come out whatever the batch split, thread count, shard or
resume point. `standard_normal` runs in the extension; `standard_normal_reference` says the same
in NumPy and is equal to the bit. ``csrc/philox.h`` defines the layout of the counter.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ldmlr import _native
from ldmlr import isa as cpu
from ldmlr.arguments import MAX_ROWS
from ldmlr.errors import UsageError

Floats = npt.NDArray[np.float32]
Words = npt.NDArray[np.uint32]

MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)
MASK = 0xFFFFFFFF

# Coefficients as in csrc/philox.h, exact in float32.
LOG = tuple(map(float.fromhex, (
    "-0x1.000000p+1", "0x1.000000p+0", "-0x1.555564p-1", "0x1.00023cp-1", "-0x1.999860p-2",
    "0x1.546790p-2", "-0x1.236438p-2", "0x1.0e6826p-2", "-0x1.025beap-2", "0x1.2d3636p-3",
)))  # fmt: skip
MINUS_TWO_LN2 = float.fromhex("-0x1.62e430p+0")
SIN = tuple(map(float.fromhex, ("0x1.921fb6p+0", "-0x1.4abbecp-1", "0x1.466b22p-4", "-0x1.2f5a1ep-8")))
COS = tuple(map(float.fromhex, (
    "0x1.000000p+0", "-0x1.3bd3ccp+0", "0x1.03c1b8p-2", "-0x1.55b7cep-6", "0x1.d684a8p-11"
)))  # fmt: skip
SQRT_HALF_BITS = 0x3F3504F3


class Stream(enum.IntEnum):
    """What normals are for, so that no two uses share them: the streams of ``csrc/philox.h``."""

    START = 0  # the state the solver starts from, K dims
    SOLVER = 1  # noise of the solver's steps, K dims, by step
    CALIBRATION = 2  # start (step 0) and steps (step + 1) of the draw that finds the ranges of int8
    REMAINDER = 3  # what the latent axes do not hold, D dims, step 0
    TRAIN_NOISE = 4  # noise of a training step's rows, K dims, by step
    TRAIN_ROW = 5  # words: class, row of it, and whether its label is dropped
    TRAIN_TIME = 6  # words: times of a training step


def standard_normal(
    seed: int,
    first_row: int,
    rows: int,
    dim: int,
    stream: int = 0,
    step: int = 0,
    out: Floats | None = None,
    isa: str | None = None,
) -> Floats:
    """Return standard normals for global rows ``first_row .. first_row + rows - 1``.

    Parameters
    ----------
    seed
        0 .. 2^64 - 1.
    first_row
        Global number of the first row: the value of a row depends on this number, not on its
        place in the batch.
    rows, dim
        Shape of the result. A longer row starts with the values of a shorter one.
    stream
        0 .. 255; `Stream` says which is for what.
    step
        0 .. 2^24 - 1; the solver step.
    out
        Array to fill, float32, C order, shape [rows, dim].
    isa
        Instruction set; None: the fastest, or that of ``LDMLR_ISA``. All give the same bits.

    Returns
    -------
    float32 [rows, dim]; `out` if it was given.

    Raises
    ------
    UsageError
        A number out of its range, or an `out` of another type, shape or order.
    """
    check_counter(seed, first_row, rows, dim, stream, step)
    if out is None:
        out = np.empty((rows, dim), np.float32)
    elif not isinstance(out, np.ndarray) or out.dtype != np.float32 or out.shape != (rows, dim):
        raise UsageError(f"out: expected a float32 array of shape [{rows}, {dim}]")
    elif not out.flags.c_contiguous or not out.flags.writeable:
        raise UsageError("out: expected a writable array in C order; pass np.ascontiguousarray(out)")
    params = noise_params(seed, first_row, rows, dim, stream, step)
    _native.standard_normal(cpu.choose(isa).name, params, out.ctypes.data)
    return out


def noise_params(
    seed: int, first_row: int, rows: int, dim: int, stream: int = 0, step: int = 0
) -> _native.NoiseParams:
    """Return what the extension is told of normals ``[rows, dim]`` without gaps between the rows."""
    return _native.NoiseParams(
        seed=seed, first_row=first_row, rows=rows, dim=dim, stride=dim, stream=stream, step=step
    )


def check_counter(seed: int, first_row: int, rows: int, dim: int, stream: int = 0, step: int = 0) -> None:
    """Raise `UsageError` for a number that the counter cannot hold."""
    limits = {
        "seed": (seed, 0, 2**64 - 1),
        "first_row": (first_row, 0, 2**64 - 1),
        "rows": (rows, 0, MAX_ROWS),
        "dim": (dim, 1, 2**31 - 1),
        "stream": (stream, 0, 2**8 - 1),
        "step": (step, 0, 2**24 - 1),
    }
    for name, (value, low, high) in limits.items():
        if isinstance(value, bool) or not isinstance(value, int | np.integer):
            raise UsageError(f"{name}: expected a whole number, not {value!r}")
        if not low <= value <= high:
            raise UsageError(f"{name}: must be from {low} to {high}, not {value}")
    if int(first_row) + int(rows) > 2**64:
        raise UsageError("first_row: first_row + rows must not pass 2^64; choose a smaller first_row")


def philox4x32(counter: Sequence[npt.ArrayLike], key: tuple[int, int]) -> tuple[Words, Words, Words, Words]:
    """Return the four output words of Philox4x32-10 for arrays of counters.

    Parameters
    ----------
    counter
        Four arrays (or numbers) of 32-bit words that broadcast together.
    key
        Two 32-bit words.
    """
    a, b, c, d = np.broadcast_arrays(*(np.asarray(word, np.uint64) for word in counter))
    low, shift = np.uint64(MASK), np.uint64(32)
    key0, key1 = key
    for _ in range(10):
        p, q = np.uint64(MULTIPLIERS[0]) * a, np.uint64(MULTIPLIERS[1]) * c
        a, b, c, d = (q >> shift) ^ b ^ np.uint64(key0), q & low, (p >> shift) ^ d ^ np.uint64(key1), p & low
        key0, key1 = (key0 + WEYL[0]) & MASK, (key1 + WEYL[1]) & MASK
    first, second, third, fourth = (word.astype(np.uint32) for word in (a, b, c, d))
    return first, second, third, fourth


def fused_multiply_add(x: npt.ArrayLike, y: npt.ArrayLike, z: npt.ArrayLike) -> Floats:
    """Return ``x * y + z`` of float32 numbers, rounded once to float32.

    The product is exact in float64; the sum is rounded to odd there, so that the second rounding
    to float32 is that of the exact sum (Boldo and Melquiond, Emulation of FMA, IEEE ToC 2008).
    """
    product = np.asarray(x, np.float64) * np.asarray(y, np.float64)
    addend = np.asarray(z, np.float64)
    total = np.asarray(product + addend)
    part = total - product
    error = (product - (total - part)) + (addend - part)
    bits = total.view(np.int64)
    # Inexact with an even last bit: one unit towards the exact sum makes it odd. The bits of a
    # float grow with its magnitude, so "towards" is up where error and total have the same sign.
    step = np.where((error > 0) == (total > 0), 1, -1)
    odd = np.where((error != 0) & (bits & 1 == 0), bits + step, bits)
    return odd.view(np.float64).astype(np.float32)


def box_muller(radius_words: Words, angle_words: Words) -> tuple[Floats, Floats]:
    """Return two independent standard normals for each pair of words, as ``csrc/philox.h`` does."""
    fma = fused_multiply_add
    tiny = 2.0**-32
    u = fma(radius_words.astype(np.float32), tiny, tiny)
    bits = u.view(np.int32)
    exponent = (bits - SQRT_HALF_BITS) >> 23
    f = (bits - (exponent << 23)).view(np.float32) - np.float32(1)
    radius = np.sqrt(fma(exponent, MINUS_TWO_LN2, f * _horner(LOG, f)))

    quadrant = (angle_words + np.uint32(0x20000000)) >> np.uint32(30)
    offset = (angle_words - (quadrant << np.uint32(30))).view(np.int32)
    x = offset.astype(np.float32) * np.float32(2.0**-30)
    square = x * x
    sine, cosine = x * _horner(SIN, square), _horner(COS, square)
    odd = (quadrant & 1).astype(bool)
    first, second = np.where(odd, sine, cosine), np.where(odd, cosine, sine)
    first = np.where((quadrant + 1) & 2, -first, first)
    second = np.where(quadrant & 2, -second, second)
    return radius * first, radius * second


def _horner(coefficients: Sequence[float], x: Floats) -> Floats:
    """Evaluate a polynomial, lowest power first, with one fused multiply-add per coefficient."""
    value: Floats = np.full_like(x, coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        value = fused_multiply_add(value, x, coefficient)
    return value


def standard_normal_reference(
    seed: int, first_row: int, rows: int, dim: int, stream: int = 0, step: int = 0
) -> Floats:
    """Return what `standard_normal` returns, bit for bit, computed in NumPy (readable, slow)."""
    check_counter(seed, first_row, rows, dim, stream, step)
    row = np.uint64(first_row) + np.arange(rows, dtype=np.uint64)[:, None]
    block = np.arange((dim + 3) // 4, dtype=np.uint64)[None, :]
    counter = (block, row & np.uint64(MASK), row >> np.uint64(32), (stream << 24) | step)
    words = philox4x32(counter, (seed & MASK, seed >> 32))
    normals = [*box_muller(words[0], words[1]), *box_muller(words[2], words[3])]
    return np.ascontiguousarray(np.stack(normals, axis=-1).reshape(rows, 4 * block.size)[:, :dim])
