"""ldmlr.sampler.widen: a widening per class, and that rows still depend on their number alone."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ldmlr
from ldmlr.classes import factor_table
from ldmlr.errors import UsageError
from ldmlr.generation.config import GenerateConfig
from ldmlr.sampler.config import SampleConfig
from ldmlr.sampler.widen import class_scales

NAMES = ("ant", "bee", "cow")
ROWS = 1100


@pytest.fixture(scope="module")
def model():
    generator = np.random.default_rng(0)
    y = np.repeat(np.arange(3), (90, 30, 8))
    X = np.abs(generator.standard_normal((len(y), 5)) + 2 * np.eye(3, 5)[y]).astype(np.float32)
    return ldmlr.LatentDiffusion(hidden=16, layers=1, iterations=30, batch_size=64).fit(
        X, y, class_names=NAMES
    )


@pytest.fixture(scope="module")
def labels():
    return np.random.default_rng(1).integers(0, 3, ROWS)


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
        class_scales(factor_table((entry,)), 1.0, 3, NAMES)


def test_a_number_from_a_table_is_told_as_it_was_given():
    config = GenerateConfig(class_scale={99: 2.0})
    with pytest.raises(UsageError, match="class_scale names the class 99, which is not there"):
        class_scales(config.class_scale, 1.0, 3, NAMES)


def test_a_class_has_one_factor():
    with pytest.raises(UsageError, match="class_scale: names class 2 twice; leave one out"):
        class_scales({"cow": 2.0, 2: 3.0}, 1.0, 3, NAMES)
    with pytest.raises(UsageError, match="class_scale: names the class 'cow' twice; leave one out"):
        factor_table(("cow=2", "cow=3"))


def test_a_table_from_class_to_factor(model):
    config = SampleConfig(class_scale={"cow": 2.0, 0: 1})
    assert config.class_scale == {"cow": 2.0, 0: 1.0}
    saved = json.loads(json.dumps(config.to_dict()))
    assert saved["class_scale"] == {"cow": 2.0, "number:0": 1.0}
    for again in (
        config,
        SampleConfig(class_scale=("cow=2", "number:0=1")),
        SampleConfig.from_mapping(saved),
    ):
        np.testing.assert_array_equal(class_scales(again.class_scale, 1.4, 3, NAMES), [1.0, 1.4, 2.0])
    assert class_scales({}, 1.4, 3) is None
    assert SampleConfig().to_dict()["class_scale"] == []
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
