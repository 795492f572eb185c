"""The rule of selection: one standard error, and the candidate nearest to the given settings."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ldmlr.diffusion.config import DiffusionConfig
from ldmlr.generation.config import GenerateConfig
from ldmlr.select.candidates import base_candidate
from ldmlr.select.choice import Choice
from ldmlr.select.rule import Scores, choose, difference

LABELS = np.array([0] * 8 + [1] * 3 + [2])


def scores(*right):
    return Scores(right, (LABELS,) * len(right), ("a",) * len(right))


def test_one_row_never_decides_however_much_it_weighs():
    some = np.arange(12) % 2 == 0
    for row in range(12):
        better, worse = some.copy(), some.copy()
        better[row], worse[row] = True, False
        gap, error = difference(scores(better), scores(worse))
        assert gap == pytest.approx(error)
        assert gap > 0
        assert choose([scores(worse), scores(better)], [0, 1]).chosen == 0


def test_what_many_rows_say_is_followed():
    worse, better = np.zeros(12, bool), np.zeros(12, bool)
    better[:11] = True
    verdict = choose([scores(worse), scores(better)], [0, 1])
    assert (verdict.chosen, verdict.best) == (1, 1)
    assert verdict.shortfall[0] > verdict.error[0]


Right = hnp.arrays(bool, 12)


@given(st.lists(Right, min_size=1, max_size=6), st.data())
def test_properties_of_the_rule(found, data):
    changes = [0, *data.draw(st.lists(st.integers(1, 3), min_size=len(found) - 1, max_size=len(found) - 1))]
    candidates = [scores(right) for right in found]
    verdict = choose(candidates, changes)
    assert candidates[verdict.best].mean == max(candidate.mean for candidate in candidates)
    assert verdict.within(verdict.chosen)
    assert verdict.within(verdict.best)
    assert all(
        gap >= -1e-9 and error >= 0 for gap, error in zip(verdict.shortfall, verdict.error, strict=True)
    )
    assert changes[verdict.chosen] == min(changes[at] for at in range(len(found)) if verdict.within(at))
    # A candidate of its own kind, or the order of the rows, changes nothing.
    order = np.random.default_rng(0).permutation(12)
    shuffled = [Scores((right[order],), (LABELS[order],), ("a",)) for right in found]
    assert choose(shuffled, changes).chosen == verdict.chosen
    assert choose(candidates + candidates[:1], [*changes, 9]).chosen == verdict.chosen


@given(Right, Right)
def test_seeds_on_the_same_rows_are_no_new_rows(one, other):
    gap, error = difference(scores(one), scores(other))
    again = difference(scores(one, one, one), scores(other, other, other))
    assert again == pytest.approx((gap, error))
    apart = [Scores((right,) * 4, (LABELS,) * 4, tuple("abcd")) for right in (one, other)]
    assert difference(*apart) == pytest.approx((gap, error / 2))


@pytest.mark.parametrize(("gate", "kept"), [("none", False), ("head", True)])
def test_the_threshold_of_a_gate_that_was_not_chosen_is_dropped(gate, kept):
    base = {"generate": {"gate": "head", "gate_confidence": 0.3, "steps": 5}}
    table = Choice("diffusion", {"generate": {"gate": gate}}, base, 3, {}).tables({})["generate"]
    assert ("gate_confidence" in table) == kept
    assert (GenerateConfig.from_mapping(table).gate, table["steps"]) == (gate, 5)


@pytest.mark.parametrize("scale", [1.4142136, 1.5, 2.0])
def test_an_own_scale_is_tried_as_it_is(scale):
    base = base_candidate(GenerateConfig(scale=scale), "diffusion", DiffusionConfig())
    assert float(base.scale) == scale
