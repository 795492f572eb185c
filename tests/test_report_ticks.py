"""Scales of the drawings: round ticks inside the range, and names that tell them apart."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ldmlr.report.canvas import WIDE, Sheet
from ldmlr.report.picture import style
from ldmlr.report.theme import LIGHT
from ldmlr.report.ticks import plain, round_ticks, short, tick_names


@given(st.floats(1e-3, 1e6), st.floats(1e-3, 1e6), st.booleans())
def test_scales_keep_order_and_ticks_stay_inside(a, b, log):
    low, high = sorted((a, b))
    with style():
        sheet = Sheet(LIGHT, WIDE, 200)
        (axes,) = sheet.panels()
        sheet.scale(axes, "x", low, high, log=log)
        low, high = axes.get_xlim()
        assert low < high
        assert (low, high) == pytest.approx((a, b) if a < b else (b, a)) or a == b
        sheet.settle()
        edge = axes.get_window_extent()
        ends = axes.transData.transform([(low, 0), (high, 0)])[:, 0]
        assert list(ends) == pytest.approx([edge.x0, edge.x1], abs=1e-6)
        ticks = list(axes.get_xticks())
        assert ticks == sorted(ticks)
        assert all(low <= tick <= high for tick in ticks)


@given(st.floats(1e-3, 1e6), st.floats(1.3, 1e4), st.booleans())
def test_ticks_are_few_round_and_told_apart(low, factor, log):
    ticks = round_ticks(low, low * factor, log=log)
    assert 1 <= len(ticks) <= 15
    names = tick_names(ticks, log)
    assert len(set(names)) == len(names)
    units = {"k": 1e3, "M": 1e6, "G": 1e9}
    for tick, name in zip(ticks, names, strict=True):
        size = units.get(name[-1], 1.0)
        assert float(name.rstrip("kMG")) * size == pytest.approx(tick, rel=1e-2)


def test_names_of_ticks_are_short():
    assert tick_names([99.95, 100.0, 100.05]) == ["99.95", "100", "100.05"]
    assert tick_names([0, 20_000, 40_000]) == ["0", "20k", "40k"]
    assert tick_names([-0.0, 0.5]) == ["0", "0.5"]
    assert tick_names([1, 10, 100, 1000, 10_000], log=True) == ["1", "10", "100", "1k", "10k"]
    assert [short(value) for value in (0.05, 20, 1234, 2e6)] == ["0.05", "20", "1.23k", "2M"]


def test_words_of_a_drawing_are_one_printable_line():
    assert plain("a\nb\x00c", 10) == "a\ufffdb\ufffdc"
    assert plain("abcdef", 4) == "abc…"
    assert plain("\ud800", 4) == "\ufffd"
