"""`ldmlr.learning_rate`: half a cosine, from one to zero."""

from __future__ import annotations

import itertools
import math

import pytest

from ldmlr.learning_rate import cosine_decay


def test_it_falls_from_one_to_zero():
    values = [cosine_decay(step, 40) for step in range(41)]
    assert (values[0], values[20]) == (1.0, pytest.approx(0.5))
    assert values[40] == pytest.approx(0, abs=1e-15)
    assert all(later < earlier for earlier, later in itertools.pairwise(values))


@pytest.mark.parametrize("step", range(0, 50, 7))
def test_a_share_and_a_step_say_the_same(step):
    assert cosine_decay(step / 49) == pytest.approx(cosine_decay(step, 49), abs=1e-15)
    assert cosine_decay(step, 49) == 0.5 * (1 + math.cos(math.pi * step / 49))
