"""A sheet to draw on with matplotlib: axes, scales, legends and dots that look alike in every picture.

Sizes of sheets are in CSS pixels, 96 to the inch; those of words, lines and dots in points, 72 to the inch. A
sheet is laid out once, by `Sheet.settle`; what needs to know where it lands, dots and the names beside them,
comes after it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ldmlr.report.theme import Theme
from ldmlr.report.ticks import plain, round_ticks, tick_names

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# On a wide page, and on a phone.
WIDE, NARROW = 888, 360
# Sizes of words, in points: 12 and 11 pixels.
WORDS, SMALL = 9.0, 8.25
# About the width of a letter of each size, in pixels.
LETTER, SMALL_LETTER = 7.4, 6.6
DASHES = (0, (5, 4))
Point = tuple[float, float]


class Sheet:
    """A figure in a theme.

    Parameters
    ----------
    theme
        Its colours.
    width, height
        In pixels; rounded up to three whole points.
    """

    def __init__(self, theme: Theme, width: int, height: float) -> None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.layout_engine import ConstrainedLayoutEngine

        size = math.ceil(width / 4) / 24, math.ceil(height / 4) / 24
        self.theme = theme
        self._layout = ConstrainedLayoutEngine(w_pad=0.07, h_pad=0.05)
        self.figure: Figure = Figure(figsize=size, dpi=72, facecolor=theme.paper, layout=self._layout)
        self._canvas = FigureCanvasAgg(self.figure)

    def panels(self, rows: int = 1, columns: int = 1, used: int | None = None) -> list[Axes]:
        """Return empty axes, row by row; those beyond `used` stay blank."""
        found: list[Axes] = self.figure.subplots(rows, columns, squeeze=False).ravel().tolist()
        for axes in found[used:] if used is not None else ():
            axes.set_axis_off()
        for axes in found[:used]:
            axes.set_facecolor(self.theme.paper)
            axes.tick_params(colors=self.theme.soft)
            axes.grid(color=self.theme.rule)
            axes.spines[:].set_visible(False)
        return found[:used]

    def title(self, axes: Axes, words: str, length: int, more: str = "") -> None:
        """Write a title above axes, and between both a line of less weight."""
        axes.set_title(plain(words, length), color=self.theme.ink, pad=17 if more else 5)
        if more:
            axes.annotate(
                more, (0, 1), (0, 4), xycoords="axes fraction", textcoords="offset points",
                color=self.theme.soft, fontsize=SMALL,
            )  # fmt: skip

    def scale(
        self, axes: Axes, which: str, low: float, high: float, label: str = "", *,
        log: bool = False, count: int = 6, whole: bool = False,
    ) -> None:  # fmt: skip
        """Give an axis its range and round ticks.

        Parameters
        ----------
        axes
            Whose axis.
        which
            ``x`` or ``y``.
        low, high
            The values at both ends; equal ones are widened.
        label
            What is measured.
        log
            Logarithmic; what is not positive is not shown.
        count
            About so many ticks.
        whole
            Ticks at whole numbers only.
        """
        if log:
            low = max(low, 1e-12)
        if not high > low:
            low, high = (low / 2, 2 * low) if log else (low - 0.5, low + 0.5)
        ticks = round_ticks(low, high, log=log, count=count, whole=whole)
        axes.set(**{f"{which}scale": "log" if log else "linear", f"{which}lim": (low, high)})
        axis = axes.xaxis if which == "x" else axes.yaxis
        axis.set_ticks([], minor=True)
        axis.set_ticks(ticks, labels=tick_names(ticks, log))
        if label:
            axis.set_label_text(label, color=self.theme.soft)

    def legend(self, entries: Sequence[tuple[str, str]]) -> None:
        """Say above the figure what the marks are.

        Parameters
        ----------
        entries
            Colour, after it ``open`` for a ring, ``square`` or ``dashed``; and words.
        """
        from matplotlib.lines import Line2D

        keys = []
        for kind, _ in entries:
            colour, _, shape = kind.partition(" ")
            key = Line2D([], [], color=self.theme[colour], linewidth=1.2, linestyle="")
            if shape == "dashed":
                key.set_linestyle(DASHES)
            else:
                key.set(marker="s" if shape == "square" else "o", markersize=6.5, markeredgewidth=1.3)
                key.set_markerfacecolor(self.theme.paper if shape == "open" else self.theme[colour])
            keys.append(key)
        words = [plain(text, 40) for _, text in entries]
        columns = int(96 * self.figure.get_figwidth() / (40 + LETTER * max(map(len, words))))
        # A name that starts with an underscore would be left out, so names are given afterwards.
        legend = self.figure.legend(
            keys, [str(place) for place in range(len(words))], loc="outside upper left",
            ncols=min(max(columns, 1), len(words)), handletextpad=0.1, borderpad=0, columnspacing=1.5,
            labelcolor=self.theme.ink,
        )  # fmt: skip
        for text, shown in zip(legend.get_texts(), words, strict=True):
            text.set_text(shown)

    def settle(self) -> None:
        """Lay the figure out; from here on every axis stays where it is."""
        self._layout.execute(self.figure)
        for axes in self.figure.axes:
            axes.apply_aspect()
        self.figure.set_layout_engine("none")

    def colour(self, kind: str) -> str:
        """Return the colour of a kind of mark: one of the theme, and a space and a shape after it."""
        return self.theme[kind.split(" ")[0]]

    def places(self, axes: Axes, points: Sequence[Point]) -> Any:
        """Return values of settled axes as points of the sheet, ``[n, 2]``, from the lower left corner."""
        found = np.asarray(points, float).reshape(-1, 2)
        return np.round(axes.transData.transform(found), 1) if len(found) else found

    def dots(
        self, axes: Axes, points: Sequence[Point], kind: str, size: float = 7.0, alpha: float = 1.0
    ) -> None:
        """Draw dots into settled axes, as one path: about 30 bytes each, a fifth of matplotlib's markers.

        Parameters
        ----------
        axes
            Where.
        points
            Values.
        kind
            Colour of the theme, with ``open`` after it for rings.
        size
            Diameter in points.
        alpha
            1 for opaque.
        """
        found = self.places(axes, points)
        self._blobs(axes, found, self.colour(kind), size, alpha)
        if _is_open(kind):
            # A ring is a smaller dot of the paper on a larger one.
            self._blobs(axes, found, self.theme.paper, size - 2.6, 1.0)

    def _blobs(self, axes: Axes, places: Any, colour: str, size: float, alpha: float) -> None:
        from matplotlib.patches import PathPatch
        from matplotlib.path import Path

        if not len(places):
            return
        # A line with round ends, as short as it can be: one without length is dropped by some programs, as
        # is one that matplotlib snaps to whole pixels.
        ends = np.stack([places, places + np.array([0.1, 0.0])], axis=1).reshape(-1, 2)
        codes = np.tile(np.array([Path.MOVETO, Path.LINETO], np.uint8), len(places))
        axes.add_artist(PathPatch(
            Path(ends / 72, codes), transform=self.figure.dpi_scale_trans, fill=False, edgecolor=colour,
            linewidth=size, capstyle="round", alpha=alpha, zorder=3, snap=False,
        ))  # fmt: skip

    def segments(self, axes: Axes, pairs: Sequence[tuple[Point, Point]]) -> None:
        """Draw thin lines between values of settled axes, as one path."""
        from matplotlib.patches import PathPatch
        from matplotlib.path import Path

        if not pairs:
            return
        ends = self.places(axes, [end for pair in pairs for end in pair])
        codes = np.tile(np.array([Path.MOVETO, Path.LINETO], np.uint8), len(pairs))
        axes.add_artist(PathPatch(
            Path(ends / 72, codes), transform=self.figure.dpi_scale_trans, fill=False,
            edgecolor=self.theme.soft, linewidth=0.75, alpha=0.55, zorder=2.5,
        ))  # fmt: skip

    def extent(self, words: str, size: float = SMALL) -> tuple[float, float]:
        """Return width and height of words in points."""
        text = self.figure.text(0, 0, words, fontsize=size)
        box = text.get_window_extent(self._canvas.get_renderer())  # type: ignore[no-untyped-call]
        text.remove()
        return float(box.width), float(box.height)

    def write(self, axes: Axes, words: str, centre: Point, kind: str = "soft") -> None:
        """Write small words around a point of the sheet, in points."""
        axes.text(
            centre[0] / 72, centre[1] / 72, words, transform=self.figure.dpi_scale_trans, fontsize=SMALL,
            color=self.theme[kind], ha="center", va="center", zorder=4,
        )  # fmt: skip


def _is_open(kind: str) -> bool:
    return kind.endswith(" open")
