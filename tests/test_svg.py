"""Scales of the drawings."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ldmlr.report.svg import Scale


@given(st.floats(1e-3, 1e6), st.floats(1e-3, 1e6), st.booleans())
def test_scales_keep_order_and_ticks_stay_inside(a, b, log):
    low, high = sorted((a, b))
    scale = Scale(low, high, 0, 100, log=log)
    assert scale(scale.low) == pytest.approx(0, abs=1e-6)
    assert scale(scale.high) == pytest.approx(100, abs=1e-6)
    assert all(-1e-3 <= scale(tick) <= 100 + 1e-3 for tick in scale.ticks())
