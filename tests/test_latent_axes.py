"""Rows of D features from K latent axes: matrix, remainder, floors, gains; every backend of the CPU."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from support.latent_axes import latent_spec

from ldmlr import isa as cpu
from ldmlr.bench.models import random_spec
from ldmlr.device import Machine
from ldmlr.errors import UsageError
from ldmlr.sampler import backends, reference
from ldmlr.sampler.cpu.int8 import activation_ranges
from ldmlr.sampler.cpu.sampler import NativeSampler
from ldmlr.sampler.noise import Stream, standard_normal_reference
from ldmlr.sampler.solve import solve
from ldmlr.sampler.spec import SamplerSpec

AVAILABLE = [entry for entry in cpu.instruction_sets() if entry.available]
KERNELS = [(entry.name, "float32") for entry in AVAILABLE]
KERNELS += [(entry.name, "bfloat16") for entry in AVAILABLE if entry.bfloat16]
KERNELS += [(entry.name, "int8") for entry in AVAILABLE if entry.int8]
# As in test_cpu_sampler.py: unit roundoffs, and how many of them a deviation may be (maximum, RMS).
EPSILON = {"float32": 2.0**-24, "bfloat16": 2.0**-9, "int8": 2.0**-8}
ALLOWED = {"float32": (128, 32), "bfloat16": (16, 3), "int8": (24, 8)}
SHAPES = [
    (1, 1), (7, 1), (7, 5), (63, 16), (65, 64), (65, 5), (300, 1), (300, 100), (300, 128), (300, 300),
    (1280, 16), (1280, 128),
]  # fmt: skip


def labels_of(spec: SamplerSpec, rows: int) -> np.ndarray:
    return np.random.default_rng(rows).integers(0, spec.num_classes, rows)


def exact(spec: SamplerSpec, labels: np.ndarray, first_row: int) -> np.ndarray:
    return reference.sample(spec, labels, first_row, precision=torch.float64).numpy()


def check(spec: SamplerSpec, rows: int, first_row: int = 11) -> None:
    labels = labels_of(spec, rows)
    expected = exact(spec, labels, first_row)
    for isa, weights in KERNELS:
        deviation = NativeSampler(spec, weights=weights, isa=isa)(labels, first_row, threads=2) - expected
        allowed = np.multiply(ALLOWED[weights], EPSILON[weights])
        assert np.abs(deviation).max() < allowed[0] * np.abs(expected).max(), (isa, weights)
        assert np.sqrt(np.mean(deviation**2) / np.mean(expected**2)) < allowed[1], (isa, weights)


@pytest.mark.parametrize("guidance", [1.0, 1.5])
@pytest.mark.parametrize(("dim", "latent"), SHAPES)
def test_widths(dim: int, latent: int, guidance: float) -> None:
    check(latent_spec(dim, latent, guidance=guidance), rows=7)


@pytest.mark.parametrize("rows", [1, 97, 1000])
@pytest.mark.parametrize(("dim", "latent"), [(65, 16), (300, 100)])
def test_numbers_of_rows(dim: int, latent: int, rows: int) -> None:
    check(latent_spec(dim, latent, 40, 2), rows)


def test_a_wide_row() -> None:
    check(latent_spec(4096, 64), rows=3)


@pytest.mark.parametrize("psi", [False, True])
@pytest.mark.parametrize("floors", [False, True])
@pytest.mark.parametrize("gain", [False, True])
@pytest.mark.parametrize("bend", [False, True])
def test_each_piece_alone(psi: bool, floors: bool, gain: bool, bend: bool) -> None:
    check(latent_spec(70, 9, psi=psi, floors=floors, gain=gain, bend=bend, solver="ddpm"), rows=30)


@pytest.mark.parametrize("kind", ["diagonal", "triangle"])
def test_the_pieces_go_with_every_scale(kind: str) -> None:
    square = random_spec(37, 24, steps=3, classes=3, diagonal=kind == "diagonal")
    other = latent_spec(37, 37)
    spec = dataclasses.replace(square, psi=other.psi, floor=other.floor, gain=other.gain, bend=other.bend)
    assert spec.triangular == (kind == "triangle")
    check(spec, rows=30)


def test_a_square_matrix_is_no_triangle_unless_it_is_one() -> None:
    spec = latent_spec(40, 40)
    assert not spec.triangular
    assert dataclasses.replace(spec, scale=np.tril(spec.scale)).triangular


def test_the_reference_is_what_the_formula_says() -> None:
    """A network that always says the same: rows by hand from the counter's normals."""
    spec = latent_spec(20, 6)
    arrays = {f.name: getattr(spec.tables, f.name) for f in dataclasses.fields(spec.tables)}
    constant = {name: array if name == "b_out" else np.zeros_like(array) for name, array in arrays.items()}
    spec = dataclasses.replace(spec, tables=type(spec.tables)(**constant))
    labels = labels_of(spec, 50)

    def normals(dim: int, stream: Stream) -> np.ndarray:
        return standard_normal_reference(spec.seed, 5, 50, dim, stream).astype(np.float64)

    def network(x: np.ndarray, step: int) -> np.ndarray:
        return spec.gain[step, labels][:, None] * np.float64(constant["b_out"])

    z = solve(spec.rows, normals(6, Stream.START), network, lambda step: normals(6, Stream.SOLVER))
    spread = z @ spec.scale.T + spec.psi * normals(20, Stream.REMAINDER)
    cut = np.maximum(spec.floor, spec.mean[labels] + spec.k * spread)
    assert spec.bend is not None
    expected = cut * (spec.bend[0, labels] + spec.bend[1, labels] * cut)
    np.testing.assert_allclose(exact(spec, labels, 5), expected, rtol=1e-12, atol=1e-12)


def test_a_gain_of_one_changes_nothing_and_of_zero_silences_the_network() -> None:
    spec = latent_spec(30, 8, gain=False)
    labels = labels_of(spec, 60)
    shape = (len(spec.rows), spec.num_classes)
    for isa, weights in KERNELS:

        def draw(model: SamplerSpec, isa: str = isa, weights: str = weights) -> np.ndarray:
            return NativeSampler(model, isa=isa, weights=weights)(labels)

        assert np.array_equal(draw(dataclasses.replace(spec, gain=np.ones(shape))), draw(spec))
        zeros = dataclasses.replace(spec.tables, w_out=0 * spec.tables.w_out, b_out=0 * spec.tables.b_out)
        silent = draw(dataclasses.replace(spec, tables=zeros))
        held_back = np.ones(shape)
        held_back[:, 1] = 0
        mixed = draw(dataclasses.replace(spec, gain=held_back))
        assert np.array_equal(mixed[labels == 1], silent[labels == 1])
        if weights != "int8":  # whose ranges belong to the whole model
            assert np.array_equal(mixed[labels != 1], draw(spec)[labels != 1])


@pytest.mark.parametrize(("isa", "weights"), KERNELS)
@pytest.mark.parametrize(("dim", "latent"), [(70, 16), (600, 33)])
def test_same_bits_however_it_is_split(isa: str, weights: str, dim: int, latent: int) -> None:
    sampler = NativeSampler(latent_spec(dim, latent, solver="ddpm"), weights=weights, isa=isa)
    labels, first = np.random.default_rng(0).integers(0, 3, 301), 2**32 - 50
    whole = sampler(labels, first)
    for threads in (2, 3, 400):
        assert np.array_equal(sampler(labels, first, threads=threads), whole)
    for start, stop in ((0, 1), (1, 8), (8, 136), (136, 301)):
        assert np.array_equal(sampler(labels[start:stop].copy(), first + start, threads=2), whole[start:stop])


def test_same_bits_of_the_reference_however_it_is_split() -> None:
    spec = latent_spec(30, 8, solver="ddpm")
    labels = labels_of(spec, 600)
    whole = reference.sample(spec, labels, 100, threads=2)
    for start, stop in ((0, 1), (1, 450), (450, 600)):
        assert torch.equal(reference.sample(spec, labels[start:stop], 100 + start), whole[start:stop])


@pytest.mark.parametrize("isa", [entry.name for entry in AVAILABLE])
@pytest.mark.parametrize("dim", [19, 261, 300])
def test_output_types_are_the_rounded_float32_rows(isa: str, dim: int) -> None:
    sampler = NativeSampler(latent_spec(dim, 12), isa=isa)
    labels = np.arange(99) % 3
    single = sampler(labels)
    assert np.array_equal(sampler(labels, dtype="float16"), single.astype(np.float16))
    bfloat = torch.from_numpy(single).to(torch.bfloat16).view(torch.uint16).numpy()
    assert np.array_equal(sampler(labels, dtype="bfloat16"), bfloat)


@pytest.mark.parametrize("backend", ["native", "reference"])
def test_a_widening_per_class(backend: str) -> None:
    spec, machine = latent_spec(30, 8), Machine("cpu", 2, backend)
    labels = labels_of(spec, 200)
    each = dataclasses.replace(spec, class_k=np.array([0.5, 1.0, spec.k]))
    found = backends.prepare(each, machine, "float32")(labels, 3)
    for label, factor in enumerate(each.class_k):
        one = backends.prepare(dataclasses.replace(spec, k=factor), machine, "float32")(labels, 3)
        np.testing.assert_allclose(found[labels == label], one[labels == label], rtol=1e-5, atol=1e-5)
    straight = slice(0, None, 2)  # which dimensions are not bent
    assert (found >= np.float32(spec.floor))[:, straight].all()
    assert (found == np.float32(spec.floor))[:, straight].any()


def test_the_ranges_of_int8_know_the_gain() -> None:
    spec = latent_spec(30, 8, gain=False)
    loud = dataclasses.replace(spec, gain=np.full((len(spec.rows), 3), 40.0))
    assert activation_ranges(loud)[1:].sum() > 1.1 * activation_ranges(spec)[1:].sum()


WRONG = [
    ({"scale": np.zeros((20, 7))}, r"scale: expected \[20, 8\], not \[20, 7\]"),
    ({"scale": np.zeros(20)}, r"scale: expected \[20, 8\], not \[20\]"),
    ({"mean": np.zeros((3, 7))}, "tables: expected a network from K to K numbers with K at most 7"),
    ({"mean": np.zeros(20)}, r"mean: expected \[C, D\], not \[20\]"),
    ({"psi": np.zeros(8)}, r"psi: expected \[20\], not \[8\]"),
    ({"floor": np.zeros(8)}, r"floor: expected \[\] or \[20\], not \[8\]"),
    ({"gain": np.zeros((3, 2))}, r"gain: expected \[3, 3\], not \[3, 2\]"),
    ({"class_k": np.zeros(4)}, r"class_k: expected \[3\], not \[4\]"),
]


@pytest.mark.parametrize(("fields", "message"), WRONG)
def test_shapes_that_do_not_fit_are_named(fields: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        dataclasses.replace(latent_spec(20, 8), **fields)
