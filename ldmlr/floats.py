"""The types of floats that rows are kept in: bfloat16, which NumPy lacks, as its bit patterns in uint16."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Bits = npt.NDArray[np.uint16]


def storage_type(name: str) -> np.dtype[Any]:
    """Return the NumPy type that elements of ``float32``, ``float16`` or ``bfloat16`` have in a file."""
    return np.dtype({"float32": "<f4", "float16": "<f2", "bfloat16": "<u2"}[name])


def encode(values: npt.NDArray[Any], name: str) -> npt.NDArray[Any]:
    """Return float values as elements of a type, rounded to nearest even.

    Values too large for the type become infinite, NaN stays NaN; the caller checks.
    """
    if name == "bfloat16":
        return bfloat16_bits(values)
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(values, dtype=storage_type(name))


def bfloat16_bits(values: npt.NDArray[Any]) -> Bits:
    """Return the bit patterns of float values rounded to bfloat16, to nearest even."""
    bits = np.ascontiguousarray(values, dtype="<f4").view("<u4")
    rounded = bits + (np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1)))
    words: Bits = (rounded >> np.uint32(16)).astype("<u2")
    # Rounding carries some NaN over into a number.
    words[(bits & np.uint32(0x7FFFFFFF)) > 0x7F800000] = 0x7FC0
    return words


def from_bfloat16(bits: Bits) -> npt.NDArray[np.float32]:
    """Return the float32 values of bit patterns."""
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)
