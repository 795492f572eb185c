"""A widening per class and the quality gate: what they do, and that rows depend on their number alone."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ldmlr
from ldmlr.errors import UsageError
from ldmlr.generation import gate as gates
from ldmlr.generation.classes import class_scales
from ldmlr.generation.config import GenerateConfig, SampleConfig
from ldmlr.generation.generate import generate
from ldmlr.generation.generators.diffusion import Diffusion
from ldmlr.generation.plan import labels_of
from ldmlr.generation.prepare import prepare
from ldmlr.sampler import backends as sampling
from ldmlr.store import FeatureStore, SplitData, StoredHead

COUNTS = (90, 30, 8)
NAMES = ("ant", "bee", "cow")
ROWS = 1100


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    generator = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), COUNTS)
    features = np.abs(generator.standard_normal((len(labels), 5)) + 2 * np.eye(3, 5)[labels])
    head = StoredHead("linear", np.eye(3, 5, dtype=np.float32) * 2, np.zeros(3, np.float32))
    path = tmp_path_factory.mktemp("gate") / "features.h5"
    FeatureStore.write(
        path, train=SplitData(features.astype(np.float32), labels), head=head, class_names=NAMES
    )
    return FeatureStore.open(path)


@pytest.fixture(scope="module")
def model(store):
    return ldmlr.LatentDiffusion(hidden=16, layers=1, iterations=30, batch_size=64).fit_store(store)


@pytest.fixture(scope="module")
def labels():
    return np.random.default_rng(1).integers(0, 3, ROWS)


# --- a widening per class ----------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["native", "reference"])
def test_a_factor_per_class_is_the_same_as_the_factor_for_all(model, labels, backend):
    one = model.sample(labels, scale=1.3, backend=backend)
    each = model.sample(labels, scale=9, class_scale={0: 1.3, "bee": 1.3, "2": 1.3}, backend=backend)
    np.testing.assert_allclose(each, one, rtol=1e-5, atol=1e-5)
    assert (each == 0).any(), "the floor must still hold"
    assert each.min() >= 0


def test_every_class_has_its_own_factor(model, labels):
    wide = model.sample(labels, scale=1.0, class_scale=("cow=2",))
    for label, factor in ((0, 1.0), (1, 1.0), (2, 2.0)):
        expected = model.sample(labels, scale=factor)
        np.testing.assert_allclose(wide[labels == label], expected[labels == label], rtol=1e-5, atol=1e-5)


@settings(max_examples=15)
@given(cuts=st.lists(st.integers(0, ROWS), max_size=3), backend=st.sampled_from(["native", "reference"]))
def test_any_split_of_widened_rows_gives_the_same_bits(model, labels, cuts, backend):
    options = {"class_scale": ("0=0.7", "2=1.9"), "backend": backend}
    whole = model.sample(labels, **options)
    for low, high in itertools.pairwise([0, *sorted(cuts), ROWS]):
        assert np.array_equal(model.sample(labels[low:high], first_row=low, **options), whole[low:high])


def test_short_types_are_rounded_once(model, labels):
    exact = model.sample(labels, class_scale=("2=1.9",))
    half = model.sample(labels, class_scale=("2=1.9",), dtype="float16")
    assert np.array_equal(half, exact.astype(np.float16))


@pytest.mark.parametrize(
    "entry", ["2", "=2", "2=wide", "2=0", "2=-1", "2=nan", "2=inf", "dog=2", "3=2", "number:3=2", "name:2=2"]
)
def test_factors_that_make_no_sense_are_told(entry):
    with pytest.raises(UsageError, match="class_scale"):
        class_scales((entry,), 1.0, 3, NAMES)


def test_a_number_from_a_table_is_told_as_it_was_given():
    config = GenerateConfig(class_scale={99: 2.0})
    with pytest.raises(UsageError, match="class_scale names the class 99, which is not there"):
        class_scales(config.class_scale, 1.0, 3, NAMES)


def test_a_class_has_one_factor():
    with pytest.raises(UsageError, match="class_scale: names class 2 twice; leave one out"):
        class_scales(("cow=2", "2=3"), 1.0, 3, NAMES)


def test_a_table_from_class_to_factor(model):
    assert SampleConfig(class_scale={"cow": 2.0, 0: 1}).class_scale == ("cow=2.0", "number:0=1")
    np.testing.assert_array_equal(class_scales(("cow=2",), 1.4, 3, NAMES), [1.4, 1.4, 2.0])
    assert class_scales((), 1.4, 3) is None
    assert model.spec(SampleConfig(), 0).class_k is None


@pytest.mark.parametrize(
    ("factors", "message"),
    [
        ({99: 2.0}, "class_scale names the class 99, which is not there; classes are 0 .. 2"),
        ({"number:99": 2.0}, "class_scale names the class 99, which is not there; classes are 0 .. 2"),
        ({"caw": 2.0}, "class_scale names the class 'caw', which is not there; did you mean 'cow'?"),
        ({2: 2.0, "cow": 1.0}, "class_scale: names class 2 twice; leave one out"),
        ({0: -1}, "class_scale: expected a factor above 0, not -1 for class 0"),
        ({"cow": None}, "class_scale: expected a factor above 0, not None for class 'cow'"),
        (("cow=0",), "class_scale: expected CLASS=FACTOR with a factor above 0, such as 7=1.5, not 'cow=0'"),
        ("cow", "class_scale: expected CLASS=FACTOR with a factor above 0, such as 7=1.5, not 'cow'"),
        (2.0, "class_scale: expected a table from class to factor, such as {7: 1.5}, not 2.0"),
        ([2.0], "class_scale: expected a table from class to factor, such as {7: 1.5}, not [2.0]"),
    ],
)
def test_a_caller_reads_of_the_parameter_and_the_class(model, labels, factors, message):
    with pytest.raises(UsageError) as caught:
        model.sample(labels, class_scale=factors)
    assert str(caught.value) == message


def test_a_class_may_be_any_whole_number(model, labels):
    expected = model.sample(labels, class_scale={2: 1.9})
    for factors in ({2.0: 1.9}, {np.int64(2): np.float64(1.9)}, "2=1.9"):
        assert np.array_equal(model.sample(labels, class_scale=factors), expected)
    with pytest.raises(UsageError, match="not trained"):
        ldmlr.LatentDiffusion().sample([0], class_scale={99: 1.0})


# --- the gate ----------------------------------------------------------------------------------


def gated(model, store, kind, labels, first_row=0, scale=2.0, **options):
    config = GenerateConfig(gate=kind, scale=scale, **options)
    gate = gates.make_gate(model, config.resolved("whitened"), store)
    return gates.draw(Diffusion(model, config), gate, labels, 0, first_row), gate


@pytest.mark.parametrize("kind", ["prototype", "head"])
@settings(max_examples=10)
@given(cuts=st.lists(st.integers(0, ROWS), min_size=1, max_size=3))
def test_any_split_of_gated_rows_gives_the_same_bits(model, store, labels, kind, cuts):
    whole = gated(model, store, kind, labels)[0].rows.numpy()
    for low, high in itertools.pairwise([0, *sorted(cuts), ROWS]):
        part = gated(model, store, kind, labels[low:high], low)[0].rows.numpy()
        assert np.array_equal(part, whole[low:high])


@pytest.mark.parametrize("kind", ["prototype", "head"])
def test_rows_that_pass_stay_and_the_others_are_drawn_again(model, store, labels, kind):
    done, gate = gated(model, store, kind, labels)
    plain = sampling.sample(model.spec(GenerateConfig(scale=2.0), 0), labels).rows
    first = gate.judge(plain, labels, 0) >= gate.threshold
    assert 0 < done.refused == int((~first).sum()) < ROWS
    assert np.array_equal(done.rows.numpy()[first], plain.numpy()[first])
    last = gate.judge(done.rows, labels, 0) >= gate.threshold
    assert int((~last).sum()) == done.failed < done.refused
    assert not np.array_equal(done.rows.numpy()[~first & last], plain.numpy()[~first & last])


def test_what_the_prototype_gate_accepts_is_nearest_to_its_own_class(model, store, labels):
    done, gate = gated(model, store, "prototype", labels)
    z = (done.rows.double().numpy()[:, None] - model.transform.mean) @ np.linalg.inv(model.transform.scale).T
    nearest = np.square(z).sum(axis=2).argmin(axis=1)
    assert np.array_equal(nearest == labels, gate.judge(done.rows, labels, 0) >= 0)


def test_a_row_that_never_passes_keeps_its_best_attempt(model, labels):
    never = gates.Gate("head", lambda rows, _: rows.double()[:, 0], np.inf, "")
    done = gates.draw(Diffusion(model), never, labels[:40])
    assert (done.refused, done.failed) == (40, 40)
    tries = [
        sampling.sample(model.spec(GenerateConfig(), 0), labels[:40], first_row=a * gates.STRIDE).rows[:, 0]
        for a in range(gates.ATTEMPTS)
    ]
    assert np.array_equal(done.rows[:, 0].numpy(), np.max([one.numpy() for one in tries], axis=0))


def test_rows_that_cannot_be_judged_are_refused_and_never_left_unwritten(model, labels):
    blind = gates.Gate("head", lambda rows, _: rows.double()[:, 0] * np.nan, 0.0, "")
    done = gates.draw(Diffusion(model), blind, labels[:40])
    assert (done.refused, done.failed) == (40, 40)
    assert np.array_equal(done.numpy(), model.sample(labels[:40]))


def test_a_stored_generation_goes_through_the_gate(model, store, tmp_path):
    config = GenerateConfig(gate="prototype", scale=2.0)
    generation = prepare(model, config, seed=0)
    figures = generate(generation, tmp_path / "pseudo.h5")
    rows = FeatureStore.open(tmp_path / "pseudo.h5").train
    assert rows.counts.tolist() == [0, 60, 82]
    labels = labels_of(generation.plan, 0, generation.rows)
    assert np.array_equal(rows.float32(), gated(model, store, "prototype", labels)[0].rows.numpy())
    assert figures["gate"]["rows"] == 142
    assert figures["gate"]["refused"] > 0
    assert generation.key != prepare(model, config.replace(gate="none"), seed=0).key


def test_by_command(model, store, tmp_path, run_cli):
    model.save(tmp_path / "model.safetensors")
    done = run_cli(
        "generate", tmp_path / "model.safetensors", "--out", tmp_path / "pseudo.h5", "--gate", "head",
        "--store", store.path, "--class-scale", "cow=1.8", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["config"]["class_scale"] == ["cow=1.8"]
    assert result["gate"]["kind"] == "head"
    assert "were drawn again" in done.stderr


def test_what_a_gate_needs_is_told(model, store, tmp_path):
    with pytest.raises(UsageError, match="gate head: needs the head of a store"):
        prepare(model, GenerateConfig(gate="head"))
    with pytest.raises(UsageError, match="only gate head uses it"):
        GenerateConfig(gate="prototype", gate_confidence=0.5)
    plain = ldmlr.LatentDiffusion(hidden=16, layers=1, iterations=5, transform="standardised")
    plain.fit_store(store)
    with pytest.raises(UsageError, match=r"gate prototype: .* whitened"):
        prepare(plain, GenerateConfig(gate="prototype"))
    FeatureStore.write(tmp_path / "bare.h5", train=SplitData(store.train.float32(), store.train.labels))
    with pytest.raises(UsageError, match=r"gate head: .*bare.h5 has no head to judge rows by"):
        prepare(model, GenerateConfig(gate="head"), judge=FeatureStore.open(tmp_path / "bare.h5"))
