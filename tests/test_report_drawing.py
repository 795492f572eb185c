"""What is drawn: marks where their figures are, names that hide nothing, and nothing beyond the sheet."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ldmlr.report import figures as draw
from ldmlr.report.ablation import settings_dots
from ldmlr.report.canvas import NARROW, WIDE
from ldmlr.report.collect import collect
from ldmlr.report.config import ReportConfig
from ldmlr.report.labels import Box
from ldmlr.report.page import SECTIONS
from ldmlr.report.picture import style
from ldmlr.report.theme import DARK, LIGHT
from ldmlr.run.opened import read_run

GROUPS = ("all", "many", "medium", "few")
WIDTHS = (WIDE, NARROW)


def words(sheet) -> list[tuple[str, Box]]:
    """Return the words of a sheet and the boxes they fill."""
    from matplotlib.text import Text

    sheet.figure.draw_without_rendering()
    found = []
    for text in sheet.figure.findobj(Text):
        if text.get_text() and text.get_visible():
            box = text.get_window_extent()
            found.append((text.get_text(), Box(box.x0, box.y0, box.x1, box.y1)))
    return found


def check_words(sheet) -> list[str]:
    """Return the words of a sheet; none overlaps another, and none is cut off."""
    found = words(sheet)
    box = sheet.figure.bbox
    page = Box(box.x0 - 0.5, box.y0 - 0.5, box.x1 + 0.5, box.y1 + 0.5)
    for name, place in found:
        assert page.holds(place), f"{name!r} is cut off"
    for (one, a), (other, b) in itertools.combinations(found, 2):
        assert not a.meets(b), f"{one!r} overlaps {other!r}"
    return [name for name, _ in found]


def marks(sheet, colour: str) -> np.ndarray:
    """Return the centres of the dots of a colour, in points of the sheet."""
    from matplotlib.colors import to_hex
    from matplotlib.patches import PathPatch

    return np.concatenate([
        72 * patch.get_path().vertices.reshape(-1, 2, 2).mean(axis=1)
        for patch in sheet.figure.findobj(PathPatch)
        if patch.get_capstyle() == "round" and to_hex(patch.get_edgecolor()) == colour
    ])  # fmt: skip


def entry(mean: float, std: float = 0.5) -> dict[str, object]:
    return {"mean": mean, "std": std, "values": [mean - std, mean + std]}


def accuracy_rows(names: list[str]) -> list[dict[str, object]]:
    return [
        {"method": name, "adjustment": adjustment,
         **{group: entry(50 + 0.37 * place) for group in GROUPS}, "medium": None if place % 3 else entry(7.0)}
        for place, name in enumerate(names) for adjustment in ("none", "label-shift")
    ]  # fmt: skip


@pytest.mark.parametrize("width", WIDTHS)
def test_no_word_of_a_run_overlaps_another(whole_run, width):
    figures, missing = collect(read_run(whole_run), ReportConfig())
    assert missing == []
    pictures = [one for make in SECTIONS if (part := make(figures)) for one in part.pictures]
    assert len(pictures) == 9
    for picture in pictures:
        with style():
            check_words(picture.draw(DARK, width))


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("many", [1, 17])
def test_accuracy_of_many_methods(width, many):
    names = [f"method-{place}-with-a-long-name" for place in range(many)]
    with style():
        sheet = draw.group_dots(accuracy_rows(names), ["all", "many", "few"], LIGHT, width)
        found = check_words(sheet)
    assert found.count(f"{names[0]}") == (1 if width == WIDE else 3)
    assert {"all", "many", "few", "top-1 %"} <= set(found)
    assert len(marks(sheet, LIGHT.other)) == 3 * 2 * many


@pytest.mark.parametrize("width", WIDTHS)
def test_the_marks_are_where_their_figures_are(width):
    points = [("a", 100, 20.0, 60.0), ("b", 10, 40.0, None), ("c", 1, 80.0, 70.0), ("none", 0, 1.0, 2.0)]
    legend = (("base open", "first"), ("made", "second"))
    with style():
        sheet = draw.class_pairs(points, legend, "top-1 %", False, LIGHT, width)
        assert {"a", "b", "c", "first", "second", "10", "100"} <= set(check_words(sheet))
        (axes,) = sheet.figure.axes
        back = axes.transData.inverted()
        for colour, kept in (
            (LIGHT.base, [(1, 80), (10, 40), (100, 20)]),
            (LIGHT.made, [(1, 70), (100, 60)]),
        ):
            found = back.transform(marks(sheet, colour))
            assert found == pytest.approx(np.array(kept, float), rel=0.02, abs=0.2)


@pytest.mark.parametrize("width", WIDTHS)
def test_dots_of_calibration_lie_on_their_line(width):
    """Panels that keep their shape move when they are laid out, and the dots with them."""
    bins = [{"rows": rows, "confidence": 0.1 * rows, "accuracy": 0.05 * rows} for rows in (1, 4, 9)]
    empty = {"rows": 0, "confidence": None, "accuracy": None}
    entries = [
        {"method": name, "adjustment": "none", "reliability": [*bins, empty]}
        for name in ("ldmlr", "baseline")
    ]
    with style():
        sheet = draw.reliability(entries, LIGHT, width)
        check_words(sheet)
        axes = sheet.figure.axes[0]
        found = axes.transData.inverted().transform(marks(sheet, LIGHT.made))
    assert found == pytest.approx(np.array([(0.1, 0.05), (0.4, 0.2), (0.9, 0.45)]), abs=0.005)


@given(
    st.lists(st.tuples(st.integers(1, 5000), st.floats(0, 100), st.floats(0, 100)), min_size=1, max_size=24)
)
def test_names_of_classes_never_hide_each_other(figures):
    points = [(f"class number {place}", *figure) for place, figure in enumerate(figures)]
    legend = (("base open", "first"), ("made", "second"))
    with style():
        found = check_words(draw.class_pairs(points, legend, "top-1 %", False, LIGHT, NARROW))
    assert len(points) > 1 or "class number 0" in found


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("many", [1, 10, 24, 100, 1000])
def test_plans_of_few_and_many_classes(width, many):
    classes = [
        {"name": f"a class called {place}", "train_rows": max(1000 - 47 * place, 0),
         "generated_rows": 13 * place}
        for place in range(many)
    ]  # fmt: skip
    with style():
        sheet = draw.plan_bars(classes, LIGHT, width)
        found = check_words(sheet)
    named = sum(name.startswith("a class cal") for name in found)
    assert named == (many if many <= draw.NAMED else 0)


@pytest.mark.parametrize("many", [31, 200, 9000])
def test_many_classes_are_thinned_evenly(many):
    points = [(str(place), place + 1, 50.0, 51.0) for place in range(many)]
    with style():
        sheet = draw.class_pairs(points, (("base open", "a"), ("made", "b")), "top-1 %", False, LIGHT, WIDE)
    found = marks(sheet, LIGHT.made)
    assert len(found) == min(many, draw.DRAWN)
    kept = draw.thinned(range(many))
    assert (kept[0], kept[-1]) == (0, many - 1)
    assert kept == sorted(set(kept))


@pytest.mark.parametrize("width", WIDTHS)
def test_panels_of_the_plane_and_of_training(width):
    points = [[0.0, 1.0], [2.0, -1.0]]
    panels = [
        {"name": f"class with a long name {place}", "train_rows": 123456, "generated_rows": 7890,
         "encoded": points, "generated": points * 2, "test": []}
        for place in range(5)
    ]  # fmt: skip
    curves = [(f"Stage {place}: something", "epoch", [[(1.0, 2.5), (20.0, 0.5)]]) for place in (1, 2, 3)]
    with style():
        sheet = draw.projection(panels, LIGHT, width)
        check_words(sheet)
        assert len(marks(sheet, LIGHT.ink)) == 5 * 2
        assert len(marks(sheet, LIGHT.made)) == 5 * 4
        check_words(draw.curves(curves, LIGHT, width))


@pytest.mark.parametrize("width", WIDTHS)
def test_an_ablation_has_a_mark_per_setting_and_a_line_for_the_baseline(width):
    rows = [{"setting": None, "adjustment": "none", "all": entry(60)}]
    rows += [{"setting": str(value), "adjustment": "none", "all": entry(60 + value)} for value in range(5)]
    with style():
        sheet = settings_dots(rows, "ratio, features.h5, 2 seeds", LIGHT, width)
        found = check_words(sheet)
    assert {"0", "4", "as it is", "with label shift", "the baseline's head"} <= set(found)
    (axes,) = sheet.figure.axes
    heights = [float(np.mean(line.get_ydata())) for line in axes.lines if line.get_marker() == "o"]
    assert heights == [60, 61, 62, 63, 64]
    assert [line.get_ydata()[0] for line in axes.lines if line.get_linestyle() == "--"] == [60]
