"""Whether two accuracies over seeds differ: the rule of every verdict, and what a test set can tell."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

Entry = Mapping[str, Any]

# Two accuracies differ from so many pooled standard deviations on.
CLEAR = 2.0
# Below this, a spread or a difference is what rounding leaves of zero, per cent.
ROUNDING = 1e-9


@dataclasses.dataclass(frozen=True)
class Difference:
    """Two accuracies compared over the seeds: ``s = sqrt((s_1^2 + s_2^2) / 2)`` is their pooled deviation.

    Parameters
    ----------
    first, second
        What is compared; the question is whether the first is ahead.
    """

    first: Mapping[str, Any]
    second: Mapping[str, Any]

    @property
    def entries(self) -> tuple[Entry, Entry]:
        """``mean``, ``std`` and ``values`` of both."""
        return self.first, self.second

    @property
    def seeds(self) -> int:
        """Seeds that both were measured with."""
        return min(len(entry["values"]) for entry in self.entries)

    @property
    def difference(self) -> float:
        """Mean of the first minus mean of the second, in points."""
        first, second = self.entries
        return float(first["mean"] - second["mean"])

    @property
    def pooled(self) -> float:
        """Pooled standard deviation over the seeds, in points."""
        first, second = self.entries
        return math.sqrt((first["std"] ** 2 + second["std"] ** 2) / 2)

    @property
    def deviations(self) -> float | None:
        """The difference in pooled standard deviations; None where neither varies with the seed."""
        return self.difference / self.pooled if self.pooled > ROUNDING else None

    @property
    def outcome(self) -> str:
        """``ahead``, ``behind``, ``within noise``, or ``undecided``: no spread over seeds to judge it by.

        There is none for a single seed, and none for two methods that do not depend on the seed.
        """
        steps = self.deviations
        if self.seeds < 2:
            return "undecided"
        if abs(self.difference) < ROUNDING:
            return "within noise"
        if steps is None:
            return "undecided"
        if abs(steps) < CLEAR:
            return "within noise"
        return "ahead" if self.difference > 0 else "behind"


def accuracy_error(accuracy: float, rows: int) -> float:
    """Return the standard error of an accuracy measured on `rows` test rows; both in per cent.

    With no row or all rows right it is that of half a row: a test set is never certain.
    """
    share = min(max(accuracy / 100, 0.5 / rows), 1 - 0.5 / rows)
    return 100 * math.sqrt(share * (1 - share) / rows)
