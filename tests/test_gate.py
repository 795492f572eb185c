"""ldmlr.generation.gate: what the quality gate does, and that rows depend on their number alone."""

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
from ldmlr.generation.config import GenerateConfig
from ldmlr.generation.generate import generate
from ldmlr.generation.generators.diffusion import Diffusion
from ldmlr.generation.plan import labels_of
from ldmlr.generation.prepare import prepare
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


def gated(model, store, kind, labels, first_row=0, scale=2.0, **options):
    config = GenerateConfig(gate=kind, scale=scale, **options)
    gate = gates.make_gate(model, config.resolved("whitened"), store)
    return gates.draw(Diffusion(model, config), gate, labels, 0, first_row), gate


@pytest.mark.parametrize("kind", ["prototype", "head"])
@settings(max_examples=10)
@given(cuts=st.lists(st.integers(0, ROWS), min_size=1, max_size=3))
def test_any_split_of_gated_rows_gives_the_same_bits(model, store, labels, kind, cuts):
    whole = gated(model, store, kind, labels)[0].rows
    for low, high in itertools.pairwise([0, *sorted(cuts), ROWS]):
        part = gated(model, store, kind, labels[low:high], low)[0].rows
        assert np.array_equal(part, whole[low:high])


@pytest.mark.parametrize("kind", ["prototype", "head"])
def test_rows_that_pass_stay_and_the_others_are_drawn_again(model, store, labels, kind):
    done, gate = gated(model, store, kind, labels)
    plain = model.sampler(GenerateConfig(scale=2.0))(labels)
    first = gate.judge(plain, labels, 0) >= gate.threshold
    assert 0 < done.refused == int((~first).sum()) < ROWS
    assert np.array_equal(done.rows[first], plain[first])
    last = gate.judge(done.rows, labels, 0) >= gate.threshold
    assert int((~last).sum()) == done.failed < done.refused
    assert not np.array_equal(done.rows[~first & last], plain[~first & last])


def test_what_the_prototype_gate_accepts_is_nearest_to_its_own_class(model, store, labels):
    done, gate = gated(model, store, "prototype", labels)
    z = (done.rows.astype(np.float64)[:, None] - model.transform.mean) @ np.linalg.inv(
        model.transform.scale
    ).T
    nearest = np.square(z).sum(axis=2).argmin(axis=1)
    assert np.array_equal(nearest == labels, gate.judge(done.rows, labels, 0) >= 0)


def test_a_row_that_never_passes_keeps_its_best_attempt(model, labels):
    never = gates.Gate("head", lambda rows, _: rows[:, 0].astype(np.float64), np.inf, "")
    done = gates.draw(Diffusion(model), never, labels[:40])
    assert (done.refused, done.failed) == (40, 40)
    tries = [model.sampler()(labels[:40], a * gates.STRIDE)[:, 0] for a in range(gates.ATTEMPTS)]
    assert np.array_equal(done.rows[:, 0], np.max(tries, axis=0))


def test_rows_that_cannot_be_judged_are_refused_and_never_left_unwritten(model, labels):
    blind = gates.Gate("head", lambda rows, _: rows[:, 0].astype(np.float64) * np.nan, 0.0, "")
    done = gates.draw(Diffusion(model), blind, labels[:40])
    assert (done.refused, done.failed) == (40, 40)
    assert np.array_equal(done.rows, model.sample(labels[:40]))


def test_a_stored_generation_goes_through_the_gate(model, store, tmp_path):
    config = GenerateConfig(gate="prototype", scale=2.0)
    generation = prepare(model, config, seed=0)
    figures = generate(generation, tmp_path / "pseudo.h5")
    rows = FeatureStore.open(tmp_path / "pseudo.h5").train
    assert rows.counts.tolist() == [0, 60, 82]
    labels = labels_of(generation.plan, 0, generation.rows)
    assert np.array_equal(rows.float32(), gated(model, store, "prototype", labels)[0].rows)
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
    assert result["config"]["class_scale"] == {"cow": 1.8}
    assert result["gate"]["kind"] == "head"
    assert "were drawn again" in done.stderr


def test_what_a_gate_needs_is_told(model, store, tmp_path):
    with pytest.raises(UsageError, match="gate='head': needs the head of a store"):
        prepare(model, GenerateConfig(gate="head"))
    with pytest.raises(UsageError, match="only gate='head' uses it"):
        GenerateConfig(gate="prototype", gate_confidence=0.5)
    plain = ldmlr.LatentDiffusion(hidden=16, layers=1, iterations=5, transform="standardised")
    plain.fit_store(store)
    with pytest.raises(UsageError, match=r"gate='prototype': .*'whitened'"):
        prepare(plain, GenerateConfig(gate="prototype"))
    FeatureStore.write(tmp_path / "bare.h5", train=SplitData(store.train.float32(), store.train.labels))
    with pytest.raises(UsageError, match=r"gate='head': .*bare.h5 has no head to judge rows by"):
        prepare(model, GenerateConfig(gate="head"), judge=FeatureStore.open(tmp_path / "bare.h5"))
