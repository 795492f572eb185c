"""An ablation as a picture: a mark with its standard deviation for each setting, the baseline as a line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from ldmlr.report import alternatives
from ldmlr.report.canvas import DASHES, SMALL_LETTER, WIDE, Sheet
from ldmlr.report.picture import Picture
from ldmlr.report.theme import LIGHT, Theme
from ldmlr.report.ticks import padded, plain
from ldmlr.results import BALANCED, judged_by

# Adjustment, words, kind and marker of both series; they stand side by side, so that none hides the other.
SERIES = (("none", "as it is", "made", "o"), ("label-shift", "with label shift", "base-shift square", "s"))
APART = 0.07


def ablation_plot(rows: Sequence[Mapping[str, Any]], title: str, kind: str = "svg") -> bytes:
    """Return the file of an ablation's picture.

    Parameters
    ----------
    rows
        Rows of the result document.
    title
        Written above the plot.
    kind
        ``svg``, ``pdf`` or ``png``.
    """
    picture = Picture("ablation", alternatives.ablation(rows, title), "", partial(settings_dots, rows, title))
    return picture.render(LIGHT, WIDE, (kind,))[kind]


def settings_dots(rows: Sequence[Mapping[str, Any]], title: str, theme: Theme, width: int) -> Sheet:
    """Return the accuracy that rows are judged by, in per cent, by setting in the order of the settings.

    Parameters
    ----------
    rows
        Rows of the result document; those of the baseline have no setting.
    title
        Written above the plot.
    theme, width
        Of the sheet.
    """
    names = list(dict.fromkeys(row["setting"] for row in rows if row["setting"] is not None))
    sheet = Sheet(theme, width, 440)
    (axes,) = sheet.panels()
    sheet.title(axes, title, 90)
    column = judged_by(rows)
    ends = [row[column]["mean"] + side * row[column]["std"] for row in rows for side in (-1, 1)]
    sheet.scale(axes, "y", *padded(ends), "balanced top-1 %" if column == BALANCED else "top-1 %")
    axes.set_xlim(-0.5, len(names) - 0.5)
    shown = [plain(name, 24) for name in names]
    slant = SMALL_LETTER * max(map(len, shown)) > (width - 60) / len(names)
    axes.set_xticks(range(len(names)), shown, color=theme.ink)
    if slant:
        axes.tick_params(axis="x", rotation=30)
        for label in axes.get_xticklabels():
            label.set(ha="right", rotation_mode="anchor")
    axes.grid(False, axis="x")
    for side, (adjustment, _, kind, marker) in enumerate(SERIES):
        colour = sheet.colour(kind)
        for row in rows:
            if row["adjustment"] != adjustment:
                continue
            mean, std = row[column]["mean"], row[column]["std"]
            if row["setting"] is None:
                axes.axhline(mean, color=colour, linewidth=1.2, linestyle=DASHES)
                continue
            place = names.index(row["setting"]) + APART * (2 * side - 1)
            axes.errorbar([place], [mean], [std], color=colour, marker=marker, markersize=6.5, elinewidth=1.6)
    series = [(kind, words) for _, words, kind, _ in SERIES]
    sheet.legend([*series, ("soft dashed", "the baseline's head")])
    sheet.settle()
    return sheet
