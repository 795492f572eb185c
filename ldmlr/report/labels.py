"""Names beside marks: each where it hides nothing, or not at all."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ldmlr.report.canvas import Point, Sheet
from ldmlr.report.ticks import plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LONGEST = 14
GAP = 2.0


@dataclasses.dataclass(frozen=True)
class Box:
    """A rectangle of the sheet, in points."""

    left: float
    bottom: float
    right: float
    top: float

    def meets(self, other: Box) -> bool:
        """Tell whether two boxes have something in common."""
        return (
            self.left < other.right and other.left < self.right
            and self.bottom < other.top and other.bottom < self.top
        )  # fmt: skip

    def holds(self, other: Box) -> bool:
        """Tell whether another box lies inside."""
        return (
            self.left <= other.left and other.right <= self.right
            and self.bottom <= other.bottom and other.top <= self.top
        )  # fmt: skip


def name_marks(sheet: Sheet, axes: Axes, marks: Sequence[tuple[str, Sequence[Point]]], radius: float) -> None:
    """Write a name beside each group of marks: above, below, to the right or to the left.

    A name without room is left out.

    Parameters
    ----------
    sheet, axes
        Settled.
    marks
        Name and the values of its marks, which one upright line joins.
    radius
        Of a mark, in points.
    """
    edge = axes.get_window_extent()
    frame = Box(edge.x0, edge.y0, edge.x1, edge.y1)
    columns = [(name, sheet.places(axes, points)) for name, points in marks if len(points)]
    taken = [
        Box(places[:, 0].min() - radius, places[:, 1].min() - radius,
            places[:, 0].max() + radius, places[:, 1].max() + radius)
        for _, places in columns
    ]  # fmt: skip
    for (name, _), box in zip(columns, tuple(taken), strict=True):
        words = plain(name, LONGEST)
        width, height = sheet.extent(words)
        x, y = (box.left + box.right) / 2, (box.bottom + box.top) / 2
        over, beside = height / 2 + GAP, width / 2 + GAP
        around = (
            (x, box.top + over), (x, box.bottom - over), (box.right + beside, box.top - radius),
            (box.left - beside, box.top - radius), (box.right + beside, y), (box.left - beside, y),
            (box.right + beside, box.bottom + radius), (box.left - beside, box.bottom + radius),
        )  # fmt: skip
        for centre in around:
            found = Box(centre[0] - width / 2, centre[1] - height / 2, centre[0] + width / 2,
                        centre[1] + height / 2)  # fmt: skip
            if frame.holds(found) and not any(found.meets(other) for other in taken):
                taken.append(found)
                sheet.write(axes, words, centre)
                break
