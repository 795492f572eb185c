"""Which rows each head answered right: what pairs two accuracies that were measured on the same rows.

Two heads over one encoder agree on most rows. How far their accuracies differ by chance follows from the
rows they disagree on alone (McNemar, 1947), which an accuracy by itself does not tell. So the right answers
are kept, a bit a row, beside the figures made of them.

With d_i how much more often over the seeds the first head is right on row i, and w_i the weight of the row
in the figure, the difference is ``sum w_i d_i``. Were both heads as good, the sign of every d_i would be a
coin's: its standard error is ``sqrt(sum (w_i d_i)^2)``, and never less than that of one row.

Weights differ where a figure is a mean over classes of unlike size: one row of a rare class then counts as
much as many of a frequent one. "One row" is the mean weight of the rows that the heads differ on, each with
its share in that variance: with a few heavy rows among them the difference is as uncertain as these.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from ldmlr.groups import ClassGroups, ShotGroups
from ldmlr.results import ALL, BALANCED, fair_column

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]
# Method and adjustment: what names a row of an accuracy table.
Name = tuple[str, str]


def pack(right: Bools) -> str:
    """Return bits ``[N]`` as text that JSON can hold."""
    return base64.b64encode(np.packbits(right).tobytes()).decode("ascii")


def unpack(text: str, rows: int) -> Bools | None:
    """Return the bits ``[N]`` of a text, or None if they are not those of so many rows."""
    try:
        packed = np.frombuffer(base64.b64decode(text, validate=True), np.uint8)
    except (binascii.Error, ValueError):
        return None
    return np.unpackbits(packed, count=rows).astype(bool) if len(packed) == -(-rows // 8) else None


@dataclasses.dataclass(frozen=True)
class Answers:
    """The right answers behind the rows of an accuracy table.

    Parameters
    ----------
    labels
        Classes of the measured rows ``[N]``.
    right
        Name of a row of the table -> whether each seed's head was right ``[S, N]``.
    masks
        Shot group -> which classes belong to it ``[C]``.
    """

    labels: Labels
    right: Mapping[Name, Bools]
    masks: Mapping[str, Bools]

    @classmethod
    def of(
        cls,
        runs: Sequence[Sequence[Mapping[str, Any]]],
        labels: Labels,
        counts: npt.ArrayLike,
        groups: ClassGroups | None = None,
    ) -> Self:
        """Return the answers of measured entries (`ldmlr.heads.evaluation.Measured.entry`).

        Parameters
        ----------
        runs
            Per seed, the entries. One without ``right``, as earlier versions wrote them, has no answers.
        labels
            Classes of the measured rows ``[N]``.
        counts, groups
            Training rows per class ``[C]`` and shot groups.
        """
        found: dict[Name, Bools] = {}
        for entries in zip(*runs, strict=True):
            bits = [unpack(str(entry.get("right", "")), len(labels)) for entry in entries]
            known = [part for part in bits if part is not None]
            if len(known) == len(bits):
                found[entries[0]["method"], entries[0]["adjustment"]] = np.stack(known)
        return cls(labels, found, (groups or ShotGroups()).masks(counts))

    @property
    def judged_by(self) -> str:
        """The column to compare by: ``all`` where all classes have as many rows, else ``balanced``."""
        return fair_column(np.bincount(self.labels).tolist())

    def weights(self, column: str) -> Floats | None:
        """Return the weight of each row ``[N]`` in a figure.

        It is the same for all rows in ``all``; ``balanced`` and a group's figure are means over classes.
        None for a group without a row.
        """
        if column == ALL:
            return np.full(len(self.labels), 1.0 / len(self.labels))
        rows = np.bincount(self.labels)
        counted = rows > 0
        if column != BALANCED:
            counted &= self.masks[column][: len(rows)]
        share = np.where(counted, 1.0 / np.maximum(rows, 1), 0.0)
        classes = np.count_nonzero(share)
        return share[self.labels] / classes if classes else None

    def row_count(self, column: str) -> float:
        """Return on how many equal rows a figure would be as certain as on these; all of them for ``all``."""
        weights = self.weights(column)
        return 0.0 if weights is None else 1.0 / float(np.square(weights).sum())

    def error(self, first: Name, second: Name, column: str = "all") -> tuple[float, float] | None:
        """Return the standard error of a difference, and what one row counts, in points.

        None where the two were not measured on the same rows.
        """
        one, other, weights = self.right.get(first), self.right.get(second), self.weights(column)
        if one is None or other is None or weights is None:
            return None
        squares = np.square(weights * (one.mean(axis=0) - other.mean(axis=0)))
        variance = float(squares.sum())
        grain = float(squares @ weights) / variance if variance > 0 else float(weights.max())
        return 100 * max(math.sqrt(variance), grain), 100 * grain
