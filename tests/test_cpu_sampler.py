"""ldmlr.sampler.cpu.sampler: equal to a float64 evaluation, same bits however it is split, clear refusals."""

from __future__ import annotations

import dataclasses
import threading

import numpy as np
import pytest
import torch
from support.solvers import SOLVERS

from ldmlr import isa as cpu
from ldmlr.diffusion.schedule import make_schedule
from ldmlr.diffusion.solvers import step_rows
from ldmlr.diffusion.tables import AdaLNTables, DenoiserTables
from ldmlr.errors import UsageError
from ldmlr.sampler.cpu import sampler as native
from ldmlr.sampler.cpu.sampler import NativeSampler
from ldmlr.sampler.noise import standard_normal_reference
from ldmlr.sampler.solve import solve
from ldmlr.sampler.spec import SamplerSpec

AVAILABLE = [entry for entry in cpu.instruction_sets() if entry.available]
KERNELS = [(entry.name, "float32") for entry in AVAILABLE]
KERNELS += [(entry.name, "bfloat16") for entry in AVAILABLE if entry.bfloat16]
KERNELS += [(entry.name, "int8") for entry in AVAILABLE if entry.int8]
# Unit roundoff of the operands, and how many of them a deviation may be: (maximum, RMS), relative
# to the largest value and to the RMS of the exact rows.
EPSILON = {"float32": 2.0**-24, "bfloat16": 2.0**-9, "int8": 2.0**-8}
ALLOWED = {"float32": (128, 32), "bfloat16": (16, 3), "int8": (24, 8)}


def make_spec(
    dim: int = 10,
    hidden: int = 32,
    layers: int = 2,
    classes: int = 3,
    *,
    steps: int = 4,
    solver: str = "dpmpp2m",
    prediction: str = "v",
    eta: float = 0.0,
    guidance: float = 1.5,
    diagonal: bool = False,
    floor: float = 0.0,
) -> SamplerSpec:
    """Return a random model whose signals stay of order one through its layers."""
    rng = np.random.default_rng(dim * 1000 + hidden)

    def normal(*shape: int, scale: float) -> np.ndarray:
        return (scale * rng.standard_normal(shape, np.float32)).astype(np.float32)

    # An estimate of x0 from eps divides by alpha: a later start keeps the amplification small.
    start = -2.0 if prediction == "eps" else -5.1
    rows = step_rows(solver, steps, make_schedule("cosine"), prediction, eta, clip=6.0, lambda_min=start)
    tables = DenoiserTables(
        w_in=normal(hidden, dim, scale=dim**-0.5),
        b_in=normal(hidden, scale=0.1),
        w1=normal(layers, hidden, hidden, scale=hidden**-0.5),
        w2=normal(layers, hidden, hidden, scale=0.5 * hidden**-0.5),
        b2=normal(layers, hidden, scale=0.1),
        w_out=normal(dim, hidden, scale=0.5 * hidden**-0.5),
        b_out=normal(dim, scale=0.1),
        bias_step=normal(len(rows), layers, hidden, scale=0.5),
        bias_class=normal(classes + 1, layers, hidden, scale=0.5),
    )
    scale = 0.5 + rng.random(dim)
    if not diagonal:
        scale = np.diag(scale) + np.tril(rng.standard_normal((dim, dim)), -1) * 0.3 * dim**-0.5
    mean = rng.random((classes, dim))
    return SamplerSpec(tables, rows, mean, scale, 1.41, floor, guidance, seed=2**40 + 7)


def silu(x: np.ndarray) -> np.ndarray:
    return x / (1 + np.exp(-x))


def exact(spec: SamplerSpec, labels: np.ndarray, first_row: int) -> np.ndarray:
    """Evaluate the sampler in float64, as the formulas say."""
    w = {f.name: getattr(spec.tables, f.name).astype(np.float64) for f in dataclasses.fields(spec.tables)}

    def noise(stream: int, step: int) -> np.ndarray:
        rows = standard_normal_reference(spec.seed, first_row, len(labels), spec.dim, stream, step)
        return rows.astype(np.float64)

    def network(x: np.ndarray, step: int, y: np.ndarray) -> np.ndarray:
        h = x @ w["w_in"].T + w["b_in"]
        for layer in range(len(w["w1"])):
            bias = w["bias_step"][step, layer] + w["bias_class"][y, layer]
            h = h + silu(h @ w["w1"][layer].T + bias) @ w["w2"][layer].T + w["b2"][layer]
        return silu(h) @ w["w_out"].T + w["b_out"]

    def guided(x: np.ndarray, step: int) -> np.ndarray:
        null = network(x, step, np.full_like(labels, spec.num_classes))
        return null + spec.guidance * (network(x, step, labels) - null)

    x = solve(spec.rows, noise(0, 0), guided, lambda step: noise(1, step))
    spread = x @ spec.scale.T if spec.scale.ndim == 2 else x * spec.scale
    return np.maximum(spec.floor, spec.mean[labels] + spec.k * spread)


def check_against_float64(spec: SamplerSpec, rows: int, first_row: int = 11) -> None:
    labels = np.random.default_rng(rows).integers(0, spec.num_classes, rows)
    expected = exact(spec, labels, first_row)
    for isa, weights in KERNELS:
        found = NativeSampler(spec, weights=weights, isa=isa)(labels, first_row, threads=2)
        deviation = found - expected
        largest = np.abs(deviation).max() / np.abs(expected).max()
        rms = np.sqrt(np.mean(deviation**2) / np.mean(expected**2))
        amplified = max(1.0, np.abs(spec.rows.q).max())
        allowed = np.multiply(ALLOWED[weights], EPSILON[weights] * amplified)
        assert largest < allowed[0], (isa, weights, largest)
        assert rms < allowed[1], (isa, weights, rms)


@pytest.mark.parametrize("rows", [1, 7, 63, 65, 1000])
def test_numbers_of_rows(rows: int) -> None:
    check_against_float64(make_spec(), rows)


@pytest.mark.parametrize(
    ("dim", "hidden", "layers"),
    [(1, 1, 1), (10, 64, 1), (17, 33, 3), (64, 64, 2), (64, 128, 2), (100, 80, 2), (100, 96, 4), (63, 48, 1)],
)
def test_widths(dim: int, hidden: int, layers: int) -> None:
    check_against_float64(make_spec(dim, hidden, layers), rows=13)


@pytest.mark.parametrize(
    ("dim", "hidden", "rows"),
    [(512, 128, 14), (512, 512, 7), (2048, 32, 7), (10, 2048, 3), (2048, 2048, 1), (100, 1024, 13)],
)
def test_large_widths(dim: int, hidden: int, rows: int) -> None:
    check_against_float64(make_spec(dim, hidden, 1, steps=2, diagonal=dim == 2048), rows)


@pytest.mark.parametrize("classes", [1, 2, 8142])
def test_numbers_of_classes(classes: int) -> None:
    check_against_float64(make_spec(classes=classes), rows=100)


@pytest.mark.parametrize("guidance", [0.0, 1.0, 3.0])
@pytest.mark.parametrize(("solver", "eta", "prediction"), SOLVERS)
def test_solvers_and_guidance(solver: str, eta: float, prediction: str, guidance: float) -> None:
    spec = make_spec(18, 40, 2, steps=6, solver=solver, eta=eta, prediction=prediction, guidance=guidance)
    check_against_float64(spec, rows=20)


@pytest.mark.parametrize("diagonal", [False, True])
@pytest.mark.parametrize("floor", [0.0, -np.inf, 0.5])
def test_transforms(diagonal: bool, floor: float) -> None:
    spec = make_spec(37, diagonal=diagonal, floor=floor)
    check_against_float64(spec, rows=30)
    rows = NativeSampler(spec)(np.zeros(100, np.int64))
    assert rows.min() >= floor
    assert (rows.min() < 0) == (floor < 0)


@pytest.mark.parametrize(("isa", "weights"), KERNELS)
@pytest.mark.parametrize(
    ("dim", "hidden", "solver"), [(10, 48, "ddpm"), (64, 128, "dpmpp2m"), (70, 100, "ddim")]
)
def test_same_bits_however_it_is_split(isa: str, weights: str, dim: int, hidden: int, solver: str) -> None:
    sampler = NativeSampler(make_spec(dim, hidden, solver=solver), weights=weights, isa=isa)
    labels = np.random.default_rng(0).integers(0, 3, 301)
    whole = sampler(labels, 2**32 - 50)
    for threads in (2, 3, 400):
        assert np.array_equal(sampler(labels, 2**32 - 50, threads=threads), whole)
    for start, stop in ((0, 1), (1, 8), (8, 71), (71, 136), (136, 301), (300, 301)):
        part = sampler(labels[start:stop].copy(), 2**32 - 50 + start, threads=2)
        assert np.array_equal(part, whole[start:stop])
    assert np.array_equal(sampler(labels, 2**32 - 50), whole)


@pytest.mark.skipif("amx" not in {entry.name for entry in AVAILABLE}, reason="no AMX here")
@pytest.mark.parametrize(("dim", "hidden"), [(64, 128), (48, 80), (63, 192), (512, 96)])
def test_int8_rows_by_tiles_are_those_of_vectors(dim: int, hidden: int) -> None:
    spec, labels = make_spec(dim, hidden), np.arange(205) % 3
    vectors, tiles = (NativeSampler(spec, weights="int8", isa=isa) for isa in ("avx512vnni", "amx"))
    assert np.array_equal(vectors(labels, 5), tiles(labels, 5))


def test_products_of_torch_around_a_call_stay_the_same() -> None:
    # Both may configure the tiles of a thread.
    matrix = torch.randn(256, 256, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    sampler, labels = NativeSampler(make_spec(64, 64)), np.arange(60) % 3
    rows, product = sampler(labels), matrix @ matrix
    for _ in range(3):
        assert torch.equal(matrix @ matrix, product)
        assert np.array_equal(sampler(labels), rows)


def test_neighbours_do_not_matter() -> None:
    spec = make_spec(64, 64)
    sampler = NativeSampler(spec)
    labels = np.array([0, 1, 2] * 40)
    changed = labels.copy()
    changed[::2] = 2 - changed[::2]
    same = sampler(labels)[1::2] == sampler(changed)[1::2]
    assert same.all()


@pytest.mark.parametrize("isa", [entry.name for entry in AVAILABLE])
def test_output_types_are_the_rounded_float32_rows(isa: str) -> None:
    spec = make_spec(19, floor=-np.inf)
    # Means from far below to beyond the range of float16: subnormals, ties, infinity.
    spread = np.concatenate([10.0 ** np.arange(-9, 6), [65519.0, 65520.0, 1.0, 2049.0]])
    tiny = dataclasses.replace(spec, mean=np.stack([spread, -spread, spread * 1.5]), k=1e-10)
    for chosen in (spec, tiny):
        sampler = NativeSampler(chosen, isa=isa)
        labels = np.arange(99) % 3
        single = sampler(labels)
        with np.errstate(over="ignore"):
            assert np.array_equal(sampler(labels, dtype="float16"), single.astype(np.float16))
        bfloat = torch.from_numpy(single).to(torch.bfloat16).view(torch.uint16).numpy()
        assert np.array_equal(sampler(labels, dtype="bfloat16"), bfloat)


def test_a_broken_network_shows() -> None:
    spec = make_spec()
    tables = dataclasses.replace(spec.tables, b_out=np.full_like(spec.tables.b_out, np.nan))
    broken = dataclasses.replace(spec, tables=tables)
    for isa, weights in KERNELS:
        if weights == "int8":  # rounding would hide it
            with pytest.raises(UsageError, match="finite"):
                NativeSampler(broken, isa=isa, weights=weights)
            continue
        sampler = NativeSampler(broken, isa=isa, weights=weights)
        assert np.isnan(sampler(np.zeros(5, np.int64))).all()


def test_extreme_activations_stay_finite() -> None:
    spec = make_spec()
    tables = dataclasses.replace(spec.tables, bias_class=spec.tables.bias_class * np.float32(1e4))
    broad = dataclasses.replace(spec, tables=tables)
    labels = np.arange(50) % 3
    for isa, weights in KERNELS:
        rows = NativeSampler(broad, isa=isa, weights=weights)(labels)
        assert np.isfinite(rows).all()


def test_no_rows() -> None:
    assert NativeSampler(make_spec())(np.zeros(0, np.int64)).shape == (0, 10)


def test_no_thread_is_left_and_the_caller_may_drop_its_arrays() -> None:
    before = threading.active_count()
    tasks = len(list_tasks())
    sampler = NativeSampler(make_spec())
    sampler(np.zeros(2000, np.int64), threads=8)
    assert threading.active_count() == before
    assert len(list_tasks()) == tasks


def list_tasks() -> list[str]:
    import os

    return os.listdir("/proc/self/task") if os.path.isdir("/proc/self/task") else []


def test_what_the_kernels_cannot_run_is_named() -> None:
    spec = make_spec()
    fields = {field.name: np.zeros((10, 10), np.float32) for field in dataclasses.fields(AdaLNTables)}
    other = dataclasses.replace(spec, tables=AdaLNTables(**fields))
    with pytest.raises(UsageError, match="AdaLN"):
        NativeSampler(other)


def test_instruction_set_is_chosen_and_overridden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LDMLR_ISA", raising=False)
    assert cpu.choose() == AVAILABLE[-1]
    monkeypatch.setenv("LDMLR_ISA", "baseline")
    assert cpu.choose().name == "baseline"
    assert NativeSampler(make_spec()).isa == "baseline"
    assert native.build_info()["chosen"] == "baseline"
    monkeypatch.setenv("LDMLR_ISA", "avx1024")
    with pytest.raises(UsageError, match="LDMLR_ISA"):
        NativeSampler(make_spec())


def test_more_than_the_processor_has_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    sets = [("baseline", True, False, False), ("avx512", False, False, False)]
    monkeypatch.setattr("ldmlr._native.instruction_sets", lambda: sets)
    monkeypatch.setenv("LDMLR_ISA", "avx512")
    with pytest.raises(UsageError, match="does not have avx512; use one of baseline"):
        cpu.choose()


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"weights": "int4"}, "weights"),
        ({"weights": "bfloat16", "isa": "baseline"}, "baseline has no bfloat16"),
        ({"weights": "int8", "isa": "baseline"}, "baseline has no int8"),
        ({"isa": "neon"}, "isa"),
    ],
)
def test_wrong_options_are_named(options: dict, word: str) -> None:
    with pytest.raises(UsageError, match=word):
        NativeSampler(make_spec(), **options)


@pytest.mark.parametrize(
    ("labels", "options", "word"),
    [
        (np.array([3]), {}, "labels"),
        (np.array([-1]), {}, "labels"),
        (np.array([0], np.int32), {}, "int64"),
        (np.zeros((2, 2), np.int64), {}, "labels"),
        (np.zeros(8, np.int64)[::2], {}, "C order"),
        (np.zeros(1, np.int64), {"dtype": "float8"}, "dtype"),
        (np.zeros(1, np.int64), {"threads": 0}, "threads"),
        (np.zeros(2, np.int64), {"first_row": 2**64 - 1}, "first_row"),
        (np.zeros(2, np.int64), {"first_row": -1}, "first_row"),
    ],
)
def test_wrong_arguments_are_named(labels: np.ndarray, options: dict, word: str) -> None:
    with pytest.raises(UsageError, match=word):
        NativeSampler(make_spec())(labels, **options)
