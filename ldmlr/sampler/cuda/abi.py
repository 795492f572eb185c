"""The structs of ``csrc/cuda/params.h`` and ``csrc/params.h``, field by field, for calls by address."""

from __future__ import annotations

import ctypes
from typing import Any, ClassVar

_I32, _I64, _U32, _U64 = ctypes.c_int32, ctypes.c_int64, ctypes.c_uint32, ctypes.c_uint64
_F32, _ADDRESS = ctypes.c_float, ctypes.c_void_p

# Dtype of csrc/params.h
DTYPES = {"float32": 0, "float16": 1, "bfloat16": 2}


class Model(ctypes.Structure):
    """A prepared model: sizes, numbers and device addresses."""

    _fields_: ClassVar[list[tuple[str, Any]]] = [
        ("dim", _I32), ("hidden", _I32), ("layers", _I32), ("classes", _I32),
        ("dim_padded", _I32), ("hidden_padded", _I32), ("num_steps", _I32), ("folded", _I32),
        ("guidance", _F32), ("floor", _F32), ("seed", _U64),
        ("input", _ADDRESS), ("first", _ADDRESS), ("w1", _ADDRESS), ("w2", _ADDRESS), ("output", _ADDRESS),
        ("triangle", _ADDRESS), ("diagonal", _ADDRESS), ("mean", _ADDRESS), ("b_in", _ADDRESS),
        ("b2", _ADDRESS), ("b_out", _ADDRESS), ("bias_step", _ADDRESS), ("bias_class", _ADDRESS),
        ("steps", _ADDRESS),
    ]  # fmt: skip


class Rows(ctypes.Structure):
    """What changes from call to call."""

    _fields_: ClassVar[list[tuple[str, Any]]] = [
        ("first_row", _U64), ("count", _I64), ("labels", _ADDRESS), ("out", _ADDRESS),
        ("out_dtype", _I32), ("reserved", _I32),
    ]  # fmt: skip


class Call(ctypes.Structure):
    """One call of the sampler."""

    _fields_: ClassVar[list[tuple[str, Any]]] = [
        ("model", Model), ("rows", Rows),
        ("tier", _I32), ("device", _I32), ("slab", _I32), ("reserved", _I32),
        ("scratch", _ADDRESS), ("stream", _ADDRESS), ("graph_key", _U64),
    ]  # fmt: skip


class StepParams(ctypes.Structure):
    """One solver step of rows whose network output was computed elsewhere."""

    _fields_: ClassVar[list[tuple[str, Any]]] = [
        ("row", _F32 * 8), ("x", _ADDRESS), ("x0", _ADDRESS), ("f", _ADDRESS), ("rows", _I64), ("dim", _I64),
        ("seed", _U64), ("first_row", _U64), ("step", _U32),
    ]  # fmt: skip


class NoiseParams(ctypes.Structure):
    """Standard normals ``[rows, dim]``."""

    _fields_: ClassVar[list[tuple[str, Any]]] = [
        ("seed", _U64), ("first_row", _U64), ("rows", _I64), ("dim", _I64), ("stride", _I64),
        ("stream", _U32), ("step", _U32),
    ]  # fmt: skip
