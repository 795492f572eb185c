"""ldmlr.generation.plan: which rows of which class are generated."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ldmlr.errors import UsageError
from ldmlr.generation.config import GenerateConfig, PlanConfig
from ldmlr.generation.plan import describe, labels_of, plan, plan_from_config, plan_table

counts_of_classes = st.lists(st.integers(1, 2000), min_size=1, max_size=12)
COUNTS = [500, 120, 60, 12, 5]
NAMES = ["ant", "bee", "pig", "cow", "dog"]


@given(counts=counts_of_classes)
def test_balance_fills_up_to_the_largest(counts):
    assert set(plan(counts) + counts) == {max(counts)}
    for word in ("auto", "not majority", "all"):
        assert np.array_equal(plan(counts, word), plan(counts))


@given(counts=counts_of_classes, target=st.integers(1, 3000))
def test_a_target_is_reached_and_nothing_is_taken_away(counts, target):
    total = plan(counts, target=target) + counts
    assert np.array_equal(total, np.maximum(counts, target))


@given(counts=counts_of_classes)
def test_minority_and_its_opposite_make_up_the_whole(counts):
    few, most = plan(counts, "minority"), plan(counts, "not minority")
    assert np.array_equal(few + most, plan(counts))
    assert np.count_nonzero(few) <= 1


@given(counts=counts_of_classes)
def test_groups_make_up_the_whole(counts):
    parts = [plan(counts, name) for name in ("many", "medium", "few")]
    assert np.array_equal(sum(parts), plan(counts))
    for name, part in zip(("many", "medium", "few"), parts, strict=True):
        assert np.array_equal(part, plan(counts, "balance", only=[name]))


@given(counts=counts_of_classes, ratio=st.floats(0, 3), minimum=st.integers(0, 5))
def test_the_ratio_of_the_paper(counts, ratio, minimum):
    added = plan(counts, "ratio", ratio=ratio, minimum=minimum)
    assert (added >= minimum).all()
    above = added > minimum
    assert (np.abs(added - ratio * np.array(counts))[above] <= 0.5 + 1e-9).all()


def test_what_the_words_mean():
    assert plan(COUNTS).tolist() == [0, 380, 440, 488, 495]
    assert plan(COUNTS, "few").tolist() == [0, 0, 0, 488, 495]
    assert plan(COUNTS, "medium").tolist() == [0, 0, 440, 0, 0]
    assert plan(COUNTS, "ratio").tolist() == [100, 24, 12, 2, 1]
    assert plan(COUNTS, "ratio", ratio=0.01, minimum=3).tolist() == [5, 3, 3, 3, 3]
    assert plan(COUNTS, "ratio", only=["few"]).tolist() == [0, 0, 0, 2, 1]
    assert plan(COUNTS, "few", groups="500,100").tolist() == [0, 0, 440, 488, 495]
    wanted = {3: 7, "4": 2, "pig": 1}
    assert plan(COUNTS, wanted, class_names=NAMES).tolist() == [0, 0, 1, 7, 2]
    assert plan(COUNTS, lambda counts: {int(counts.argmin()): 9}).tolist() == [0, 0, 0, 0, 9]


@given(small=st.integers(1, 100), extra=st.integers(0, 900), share=st.floats(0.01, 1))
def test_a_number_is_a_share_of_two_classes(small, extra, share):
    large = small + extra
    if int(large * share) < small:
        with pytest.raises(UsageError, match="already has"):
            plan([large, small], share)
        return
    added = plan([large, small], share)
    assert added[0] == 0 or large == small
    assert small + added.sum() == int(large * share)


@given(wanted=st.lists(st.integers(0, 40), min_size=1, max_size=9), cut=st.integers(0, 400))
def test_labels_are_a_function_of_the_plan(wanted, cut):
    numbers = np.array(wanted)
    whole = np.repeat(np.arange(len(numbers)), numbers)
    cut = min(cut, len(whole))
    assert np.array_equal(labels_of(numbers, 0, len(whole)), whole)
    assert np.array_equal(labels_of(numbers, cut, len(whole)), whole[cut:])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"strategy": "balence"}, "did you mean 'balance'"),
        ({"strategy": 0.5}, "for two classes, and these are 5"),
        ({"strategy": {9: 1}}, r"names the class 9, which is not there; classes are 0 \.\. 4"),
        ({"strategy": {"cat": 1}, "class_names": ["car", "b", "c", "d", "e"]}, "did you mean 'car'"),
        ({"strategy": {0: -1}}, "asks for -1 rows"),
        ({"strategy": {0: 1.5}}, "asks for 1.5 rows"),
        ({"strategy": {0: float("nan")}}, "asks for nan rows"),
        ({"strategy": {0: 10**20}}, "more than 1,099,511,627,776; ask for fewer"),
        ({"strategy": {0: 2**40, 1: 1}}, "asks for 1,099,511,627,777 rows, more than"),
        ({"target": 9 * 10**18}, "more than 1,099,511,627,776"),
        ({"target": 10**30}, "more than 1,099,511,627,776"),
        ({"strategy": "ratio", "ratio": 1e18}, "more than 1,099,511,627,776"),
        ({"strategy": "ratio", "minimum": 10**30}, "more than 1,099,511,627,776"),
        ({"strategy": "ratio", "target": 10}, "target: only strategies that fill up"),
        ({"strategy": {0: 1}, "target": 10}, "target"),
        ({"only": ["some"]}, "only: unknown value 'some'"),
        ({"groups": "x"}, "groups"),
        ({"strategy": "few", "groups": "1,2,3"}, "groups"),
    ],
)
def test_impossible_plans_are_named(arguments, message):
    if arguments == {"groups": "x"}:
        arguments = {"groups": "x", "only": ["few"]}
    with pytest.raises(UsageError, match=message):
        plan(COUNTS, **arguments)


def test_a_configuration_makes_a_plan():
    assert plan_from_config(COUNTS, GenerateConfig(strategy="few", target=20)).tolist() == [0, 0, 0, 8, 15]
    assert plan_from_config(COUNTS, PlanConfig(count=("1=5", "4=2"))).tolist() == [0, 5, 0, 0, 2]
    assert PlanConfig.from_mapping({"count": {"bee": 2}}).count == {"bee": 2}
    assert plan_from_config([90, 10], PlanConfig(strategy="0.5")).tolist() == [0, 35]
    assert plan_from_config([90, 10], PlanConfig(strategy=0.5)).tolist() == [0, 35]
    with pytest.raises(UsageError, match="ratio: must be at least 0"):
        PlanConfig(ratio=-1)


def test_a_table_of_a_configuration_names_classes_by_number_and_by_name():
    names = ["2", "b", "c", "3"]
    # A table with whole numbers means numbers, through a configuration and its document too.
    config = PlanConfig(count={2: 5, "name:2": 7})
    saved = json.loads(json.dumps(config.to_dict()))
    for again in (config, PlanConfig.from_mapping(saved)):
        assert plan_from_config([9, 9, 9, 9], again, names).tolist() == [7, 0, 5, 0]


def test_a_plan_names_a_class_once():
    with pytest.raises(UsageError, match="the plan names class 1 twice, the second time as '1'"):
        plan([9, 9], {"b": 0, "1": 2}, class_names=["a", "b"])


def test_the_table_has_every_class_and_the_sums():
    entries = describe(plan(COUNTS), COUNTS, "100,20", ["ant", "bee", "pig", "cow", "dog"])
    assert entries[3] == {
        "class": 3,
        "name": "cow",
        "group": "few",
        "rows": 12,
        "generated": 488,
        "total": 500,
    }
    lines = plan_table(entries).splitlines()
    assert len(lines) == 2 + 5 + 1
    assert lines[-1].split() == ["all", "697", "1,803", "2,500"]
