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
        """``ahead``, ``behind``, ``within noise``, or ``undecided`` for a single seed."""
        if min(len(entry["values"]) for entry in self.entries) < 2:
            return "undecided"
        steps = self.deviations
        if abs(self.difference) < ROUNDING or (steps is not None and abs(steps) < CLEAR):
            return "within noise"
        return "ahead" if self.difference > 0 else "behind"


def accuracy_error(accuracy: float, rows: int) -> float:
    """Return the standard error of an accuracy measured on `rows` test rows; both in per cent."""
    share = accuracy / 100
    return 100 * math.sqrt(max(share * (1 - share), 0.0) / rows)
