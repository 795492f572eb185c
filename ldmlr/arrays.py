"""What a caller may pass for rows, seeds and types, as plain NumPy and Python values."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
import numpy.typing as npt

from ldmlr.errors import UsageError

SEED_LIMIT = 2**64


def as_array(values: Any) -> npt.NDArray[Any]:
    """Return a NumPy array of an array, a tensor on any device or a nested list.

    Tensors lose their gradient; those of floating point become float32.
    """
    if hasattr(values, "detach"):
        values = values.detach().cpu().float() if values.is_floating_point() else values.detach().cpu()
        return np.asarray(values.numpy())
    return np.asarray(values)


def check_seed(seed: Any) -> int:
    """Return a seed as an int.

    Raises
    ------
    UsageError
        It is no whole number, or not in 0 .. 2^64 - 1.
    """
    number = _whole(seed)
    if number is None or not 0 <= number < SEED_LIMIT:
        raise UsageError(f"--seed: must be a whole number, at least 0 and below 2^64, not {seed!r}")
    return number


def check_first_row(first_row: Any, rows: int) -> int:
    """Return the global number of the first of `rows` rows as an int; `UsageError` where it has none."""
    number = _whole(first_row)
    if number is None or not 0 <= number <= SEED_LIMIT - rows:
        raise UsageError(f"first_row: must be a whole number, at least 0 and below 2^64, not {first_row!r}")
    return number


def type_name(dtype: Any) -> str:
    """Return the name of a type given as a name, a NumPy type or a torch type: ``float32`` of all three."""
    if isinstance(dtype, str):
        return dtype
    try:
        return str(np.dtype(dtype).name)
    except TypeError:
        return str(dtype).removeprefix("torch.")


def _whole(value: Any) -> int | None:
    if isinstance(value, bool | np.bool_):
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None
