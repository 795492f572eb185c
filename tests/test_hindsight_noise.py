"""`benchmarks/hindsight_noise.py`: what noise of few test rows does to the best in hindsight."""

from __future__ import annotations

import numpy as np
import pytest
from support.scripts import BENCHMARKS, script


@pytest.fixture(scope="module")
def noise():
    return script(BENCHMARKS / "hindsight_noise.py")


def coins(labels, chances, seed):
    """Return methods that are right by chance, each row by itself."""
    rng = np.random.default_rng(seed)
    return {str(at): (rng.random(len(labels)) < chance).astype(float) for at, chance in enumerate(chances)}


LABELS = np.repeat([0, 1], (300, 16))


def test_the_truly_best_is_not_behind_methods_that_answer_alike_or_never_win(noise):
    same = dict.fromkeys("abc", coins(LABELS, [0.8], 0)["0"])
    assert noise.expected_lead(same, LABELS) == pytest.approx(0, abs=1e-9)
    assert noise.expected_lead({**same, "never": np.zeros(len(LABELS))}, LABELS) == pytest.approx(0, abs=1e-9)


def test_a_method_that_is_clearly_best_is_not_expected_behind(noise):
    labels = np.repeat([0, 1], 500)
    assert noise.expected_lead(coins(labels, [0.6, 0.65, 0.7, 0.95], 0), labels) == pytest.approx(0, abs=1e-9)


def test_methods_that_are_equally_good_lead_by_the_mean_of_the_largest_draw(noise):
    # The figure of a method has deviation sqrt(.8 .2 (1 / 300 + 1 / 16)) / 2 = 5.13 points. The largest of
    # twenty normal ones lies 1.87 deviations above their mean, that of ten 1.54; as half of the methods stay
    # where they were measured, the estimate is below the first.
    leads = [noise.expected_lead(coins(LABELS, [0.8] * 20, seed), LABELS, seed) for seed in range(20)]
    assert 0.6 * 1.54 * 5.13 < np.mean(leads) < 1.87 * 5.13


def test_fewer_rows_of_a_class_mean_a_larger_lead(noise):
    leads = [
        np.mean([noise.expected_lead(coins(labels, [0.8] * 20, seed), labels) for seed in range(5)])
        for labels in (LABELS, np.repeat([0, 1], (300, 300)))
    ]
    assert leads[0] > 2 * leads[1] > 0


def test_what_was_best_by_chance_is_no_better_on_the_other_half(noise):
    gaps, halves = [], []
    for seed in range(30):
        right = coins(LABELS, [0.8] * 20, seed)
        chosen = right["0"]
        weights = np.where(LABELS == 0, 1 / 600, 1 / 32)
        gaps.append(100 * max(float(weights @ (own - chosen)) for own in right.values()))
        halves.append(noise.other_half(right, chosen, LABELS, seed))
    assert np.mean(gaps) > 5
    assert abs(np.mean(halves)) < 2.5


def test_a_method_that_is_truly_better_stays_so_on_the_other_half(noise):
    labels = np.repeat([0, 1], 500)
    right = coins(labels, [0.7, 0.9], 0)
    assert noise.other_half(right, right["0"], labels) == pytest.approx(20, abs=4)
    assert noise.other_half(right, right["1"], labels) == 0
    # The same draws, the same figure.
    assert noise.other_half(right, right["0"], labels, 3) == noise.other_half(right, right["0"], labels, 3)
