"""The structs of the extension as Python sees them: fields by name, addresses as integers, zeros at first."""

from __future__ import annotations

import ctypes
import struct
from typing import Any

import pytest

from ldmlr import _native

# Fields in the order of csrc/params.h and csrc/cuda/params.h with their letter in `struct`; P: an address.
FIELDS: dict[type[Any], list[tuple[str, str]]] = {
    _native.Denoiser: [
        *((name, "i") for name in ("latent", "hidden", "layers", "classes", "folded")),
        *((name, "P") for name in ("input", "first", "w1", "w2", "output", "b_in", "b2", "b_out")),
        *((name, "P") for name in ("bias_step", "bias_class", "quantise")),
    ],
    _native.Transform: [
        ("dim", "i"), ("triangular", "i"),
        *((name, "P") for name in ("mean", "diagonal", "matrix", "psi", "floor", "slope", "curve")),
    ],
    _native.NoiseParams: [
        ("seed", "Q"), ("first_row", "Q"), ("rows", "q"), ("dim", "q"), ("stride", "q"), ("stream", "I"),
        ("step", "I"),
    ],
    _native.CudaModel: [
        *((name, "i") for name in ("dim", "latent", "hidden", "layers", "classes")),
        *((name, "i") for name in ("dim_padded", "latent_padded", "hidden_padded", "num_steps", "folded")),
        ("guidance", "f"), ("seed", "Q"),
        *((name, "P") for name in ("input", "first", "w1", "w2", "output", "matrix", "diagonal", "psi")),
        *((name, "P") for name in ("floor", "slope", "curve", "gain", "mean", "b_in", "b2")),
        *((name, "P") for name in ("b_out", "bias_step", "bias_class", "steps")),
    ],
}  # fmt: skip


def memory_of(value: Any) -> bytes:
    return ctypes.string_at(value.address, value.size)


def examples(kind: type[Any]) -> dict[str, Any]:
    """Return another value for each field, large where the type has room."""
    large = {"i": 2**30, "f": -0.5, "Q": 2**63, "q": -(2**62), "I": 2**31, "P": 2**63}
    return {name: large[letter] + number for number, (name, letter) in enumerate(FIELDS[kind], 1)}


@pytest.mark.parametrize("kind", FIELDS)
def test_a_field_lies_where_the_kernels_read_it(kind: type[Any]) -> None:
    values = examples(kind)
    layout = "".join(letter for _, letter in FIELDS[kind])
    layout += "0P"  # the end of a struct is aligned as its widest field is
    assert struct.calcsize(layout) == kind.size
    by_keyword = kind(**values)
    assert struct.unpack(layout, memory_of(by_keyword)) == tuple(values.values())
    one_by_one = kind()
    assert not any(memory_of(one_by_one))
    for name, value in values.items():
        setattr(one_by_one, name, value)
        assert getattr(one_by_one, name) == value
    assert memory_of(one_by_one) == memory_of(by_keyword)


def test_a_struct_in_a_struct_is_copied_and_can_be_written_in_place() -> None:
    model = _native.CudaModel(seed=5)
    rows = _native.CudaRows(count=3, out_dtype=_native.Dtype.bfloat16)
    call = _native.CudaCall(model=model, rows=rows, tier=_native.CudaTier.bulk, stream=7)
    model.seed = 6
    assert (call.model.seed, call.rows.count, call.rows.out_dtype) == (5, 3, _native.Dtype.bfloat16)
    assert (call.tier, call.stream, call.graph_key) == (_native.CudaTier.bulk, 7, 0)
    assert call.model.address == call.address
    call.model.seed = 9
    assert call.model.seed == 9


def test_a_copy_has_a_life_of_its_own() -> None:
    params = _native.SampleParams(net=_native.Denoiser(latent=4), seed=2**64 - 1, guidance=1.5)
    copy = _native.SampleParams(params)
    params.net.latent, params.seed = 8, 0
    assert (copy.net.latent, copy.seed, copy.guidance) == (4, 2**64 - 1, 1.5)


def test_a_solver_row_is_eight_numbers() -> None:
    row = [1.0, -2.0, 3.0, float("-inf"), 5.0, 6.0, 7.0, 8.5]
    params = _native.StepParams(row=row, step=3)
    assert list(params.row) == row
    assert struct.unpack("8f", memory_of(params)[:32]) == tuple(row)
    with pytest.raises(TypeError):
        _native.StepParams(row=row[:7])


@pytest.mark.parametrize(
    ("fields", "error"),
    [({"hiden": 1}, AttributeError), ({"dim": 2**31}, TypeError), ({"input": -1}, TypeError),
     ({"seed": 1.5}, TypeError), ({"size": 3}, AttributeError)],
)  # fmt: skip
def test_what_is_not_there_or_does_not_fit_is_refused(fields: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        _native.CudaModel(**fields)
