"""`ldmlr.experiments.loop`: arms over seeds, measured together, each charged with what it needs."""

from __future__ import annotations

import time

import numpy as np
import pytest
from support.stage3 import write_stores

from ldmlr.errors import InputError, UsageError
from ldmlr.experiments.loop import Made, Shared, baseline_arm, over_seeds
from ldmlr.heads.config import FinetuneConfig
from ldmlr.heads.evaluation import Variant
from ldmlr.heads.modules import make_head
from ldmlr.heads.training_rows import gather_rows
from ldmlr.store import FeatureStore


@pytest.fixture
def stores(tmp_path):
    return write_stores(tmp_path)


def test_every_arm_is_run_for_every_seed_and_owns_its_rows(stores):
    seen, lines = [], []

    def other(seed):
        seen.append((seed.number, seed.tuning.head, seed.origin))
        return Made([Variant("other", "none", seed.baseline)], seed.number, ("a remark",), 0.5, "native")

    def silent(seed):
        return Made([], notes=(f"left out for seed {seed.number}",))

    with FeatureStore.open(stores / "features.h5") as store:
        found = over_seeds(
            {"first": baseline_arm, "silent": silent, "second": other}, store, gather_rows(store),
            FinetuneConfig(), seeds=2, report=lines.append,
        )  # fmt: skip
        encoded = store.split("train").encoded_counts
    assert seen == [(0, "linear", "stored"), (1, "linear", "stored")]
    assert [(name, row["method"], row["adjustment"]) for name, row in found.table] == [
        ("first", "baseline", "none"), ("first", "baseline", "label-shift"), ("second", "other", "none"),
    ]  # fmt: skip
    assert found.rows[0]["all"] == found.rows[2]["all"]
    assert [len(row["all"]["values"]) for row in found.rows] == [2, 2, 2]
    record = found.records["second"]
    assert (record.generated, record.drawing, list(record.notes)) == ([0, 1], [0.5, 0.5], ["a remark"])
    assert (record.head, record.backend, found.backend) == ("linear", "native", "native")
    assert list(found.records["silent"].notes) == ["left out for seed 0", "left out for seed 1"]
    assert all(len(record.seconds) == 2 for record in found.records.values())
    assert found.figures["seeds"] == [0, 1]
    assert found.figures["encoded_rows"] == encoded.sum()
    assert found.heads == {"baseline": "linear", "trained": "linear"}
    assert [line.split("  ")[:2] for line in lines] == [["seed 0", "3 arms"], ["seed 1", "3 arms"]]


def test_what_arms_share_is_made_once_per_seed_and_charged_to_each(stores):
    made = []

    def slow(seed):
        def make():
            made.append(seed.number)
            time.sleep(0.05)
            return seed.number

        assert seed.shared.once("model", make) == seed.number
        return baseline_arm(seed)

    with FeatureStore.open(stores / "features.h5") as store:
        found = over_seeds(
            {"one": slow, "two": slow, "none": baseline_arm}, store, lambda seed: gather_rows(store),
            FinetuneConfig(), seeds=2,
        )  # fmt: skip
    assert made == [0, 1]
    assert min(found.records["one"].seconds + found.records["two"].seconds) >= 0.05
    assert max(found.records["none"].seconds) < 0.05


def test_shared_keeps_keys_apart():
    shared = Shared()
    assert [shared.once(key, lambda key=key: [key])[0] for key in ("a", "b", "a")] == ["a", "b", "a"]
    assert shared.once("a", list) is shared.once("a", list)


def test_a_store_without_a_head_has_one_fitted_per_seed(stores):
    heads = []

    def watched(seed):
        heads.append((seed.origin, seed.baseline.get_parameter("weight").detach().numpy().copy()))
        return baseline_arm(seed)

    with FeatureStore.open(stores / "headless.h5") as store:
        found = over_seeds({"baseline": watched}, store, gather_rows(store), FinetuneConfig(), seeds=2)
    assert found.figures["baseline_head"] == "fitted"
    assert [origin for origin, _ in heads] == ["fitted", "fitted"]
    assert not np.array_equal(heads[0][1], heads[1][1])


def test_what_cannot_be_measured_is_said(stores):
    with FeatureStore.open(stores / "features.h5") as store:
        with pytest.raises(UsageError, match=r"methods: mute cannot be measured here: it has no head$"):
            over_seeds(
                {"mute": lambda seed: Made([], notes=("it has no head",))}, store, gather_rows(store),
                FinetuneConfig(), seeds=1,
            )  # fmt: skip
        wrong = make_head("linear", 9, 3)
        with pytest.raises(InputError, match=r"expects features \[N, 9\]"):
            over_seeds(
                {"wrong": lambda seed: Made([Variant("wrong", "none", wrong)])}, store, gather_rows(store),
                FinetuneConfig(), seeds=1,
            )  # fmt: skip
    with FeatureStore.open(stores / "no-test.h5") as store, pytest.raises(InputError, match="test"):
        over_seeds({"baseline": baseline_arm}, store, gather_rows(store), FinetuneConfig(), seeds=1)
