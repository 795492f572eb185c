"""Rows in the type that was asked for: bfloat16, which NumPy lacks, as its bit patterns in uint16."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def rounded(rows: npt.NDArray[np.floating[Any]], dtype: str) -> npt.NDArray[Any]:
    """Return rows rounded to the nearest ``float32``, ``float16`` or ``bfloat16``, ties to even."""
    if dtype == "bfloat16":
        return bfloat16_bits(rows.astype(np.float32, copy=False))
    with np.errstate(over="ignore"):  # what a type cannot hold is infinite
        return rows.astype(dtype, copy=False)


def bfloat16_bits(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    """Return the bit patterns of float32 numbers rounded to bfloat16."""
    bits = np.ascontiguousarray(values).view(np.uint32)
    found = ((bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)).astype(
        np.uint16
    )
    found[np.isnan(values)] = 0x7FC0
    return found
