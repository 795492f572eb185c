"""Two rows of an accuracy table: is the first ahead, by more than chance explains?

Chance comes in two ways, and both count. The **test rows** are a sample: two heads of the same encoder
differ on few of them, and the error of their difference follows from these (`ldmlr.metrics.answers`). The
**seeds** are another: training, drawing, and in some runs the training set. Their variances add up. The
difference, less the one row that a count is uncertain by anyway (Edwards, 1948), is compared with Student's
t, whose degrees of freedom say on how many seeds the second variance was measured (Satterthwaite, 1946).

Where classes were measured on unlike numbers of rows, both are counted for the mean over classes, as there
the figure for all rows is that of the frequent classes (`ldmlr.results.judged_by`).

The best of m rows looks better than it is. If none of the m is better than the row it is compared with, the
best of them exceeds it by as much with at most m times the chance of one: so the allowed chance of a wrong
word, 5 %, is divided by the number of rows that the leading one was picked from (Bonferroni).
"""

from __future__ import annotations

import dataclasses
import functools
import math
import statistics
from collections.abc import Mapping
from typing import Any

from scipy.special import stdtr

from ldmlr.metrics.answers import Answers
from ldmlr.results import ALL
from ldmlr.text import row_name

Row = Mapping[str, Any]

# The chance that a difference is called one where there is none, both ways together.
LEVEL = 0.05
# Below this, a spread or a difference is what rounding leaves of zero, per cent.
ROUNDING = 1e-9
# A share of the seeds in the variance below the root of this leaves Student's t a normal one.
NO_SEEDS = 1e-9
RULE = (
    "Two rows differ if chance explains their difference in less than 5 % of cases. Its error is that of the "
    "paired test rows (McNemar) and that of the seeds together; where the leading row was picked from "
    "several by these figures, the 5 % are divided by their number (Bonferroni). Less is level."
)


@dataclasses.dataclass(frozen=True)
class Duel:
    """Two rows of an accuracy table; the question is whether the first is ahead.

    Parameters
    ----------
    first, second
        The rows.
    column
        ``all``, ``balanced``, or a shot group.
    answers
        What pairs them row by row; without, or for rows it does not have, `test_rows` stands in.
    test_rows
        Rows of the test split: then both accuracies err independently, which is more than they do. They
        tell no error of a mean over classes.
    picked
        How many rows the first and how many the second was picked from by these very figures.
    """

    first: Row
    second: Row
    column: str = ALL
    answers: Answers | None = None
    test_rows: int | None = None
    picked: tuple[int, int] = (1, 1)

    @property
    def entries(self) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        """``mean``, ``std`` and ``values`` of both."""
        return self.first[self.column], self.second[self.column]

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
    def equal(self) -> bool:
        """Whether the means are the same."""
        return abs(self.difference) < ROUNDING

    @property
    def spread(self) -> float:
        """Standard deviation over seeds of the difference, in points.

        Seed by seed, as rows share seeds and baselines; rows of different numbers of seeds have no pairs, and
        their variances add up.
        """
        first, second = self.entries
        if len(first["values"]) != len(second["values"]):
            return math.hypot(first["std"], second["std"])
        differences = [a - b for a, b in zip(first["values"], second["values"], strict=True)]
        spread = statistics.stdev(differences) if len(differences) > 1 else 0.0
        return spread if spread > ROUNDING else 0.0

    @property
    def seeds_error(self) -> float:
        """Standard error of the difference that seeds explain, in points."""
        return self.spread / math.sqrt(self.seeds)

    @functools.cached_property
    def _of_rows(self) -> tuple[float, float] | None:
        """Standard error that test rows explain and what one row counts, in points; None if not known."""
        if self.answers is not None:
            first, second = ((row["method"], row["adjustment"]) for row in (self.first, self.second))
            paired = self.answers.error(first, second, self.column)
            if paired is not None:
                return paired
        if not self.test_rows or self.column != ALL:
            return None
        errors = (accuracy_error(float(entry["mean"]), self.test_rows) for entry in self.entries)
        return math.hypot(*errors), 100 / self.test_rows

    @property
    def rows_error(self) -> float | None:
        """Standard error of the difference that test rows explain, in points; None if not known."""
        return None if self._of_rows is None else self._of_rows[0]

    @property
    def error(self) -> float | None:
        """Standard error of the difference, in points; None where nothing tells it."""
        found = math.hypot(self.seeds_error, self.rows_error or 0.0)
        return found if found > 0 else None

    @property
    def chance(self) -> float | None:
        """Probability that chance alone makes a difference as large, the number of rows picked from included.

        None where nothing tells the error of the difference.
        """
        if self.error is None:
            return None
        grain = 0.0 if self._of_rows is None else self._of_rows[1]
        steps = max(abs(self.difference) - grain, 0.0) / self.error
        # Satterthwaite: the variance of the rows counts as known, that of the seeds has one less than they.
        share = (self.seeds_error / self.error) ** 2
        freedom = max(self.seeds - 1, 1) / max(share**2, NO_SEEDS)
        tail = float(stdtr(freedom, -steps))
        return min(1.0, 2 * tail * self.picked[0 if self.difference > 0 else 1])

    @property
    def outcome(self) -> str:
        """``ahead``, ``behind``, ``level``, or ``undecided``: neither seeds nor test rows tell the error."""
        if self.equal:
            return "level"
        if self.chance is None:
            return "undecided"
        if self.chance >= LEVEL:
            return "level"
        return "ahead" if self.difference > 0 else "behind"

    def words(self) -> str:
        """Return the difference in words."""
        if self.equal:
            return "equal"
        if self.error is None:
            why = "one seed has no spread" if self.seeds < 2 else "neither varies with the seed"
            return f"{signed(self.difference)} points, undecided: {why}, and the test rows are not known"
        measured = f"standard error {self.error:.2f}{self._parts()}"
        if self.outcome == "level":
            return f"level ({signed(self.difference)} points, {measured})"
        return f"{self.outcome} by {abs(self.difference):.2f} points ({measured})"

    def _parts(self) -> str:
        """Return what an error is made of, where it is more than one thing."""
        if self.rows_error is None:
            return " over the seeds"
        return f": test rows {self.rows_error:.2f}, seeds {self.seeds_error:.2f}" if self.seeds_error else ""

    def figures(self) -> dict[str, Any]:
        """Return the numbers behind the words."""
        return {
            "difference": self.difference, "difference_std": self.spread, "error": self.error,
            "rows_error": self.rows_error, "seeds_error": self.seeds_error, "picked_from": list(self.picked),
            "chance": self.chance, "outcome": self.outcome,
        }  # fmt: skip

    def document(self, question: str, adjustment: str) -> dict[str, Any]:
        """Return the comparison as plain data."""
        return {
            "question": question, "adjustment": adjustment,
            "first": row_name(self.first), "second": row_name(self.second), **self.figures(),
        }  # fmt: skip


def accuracy_error(accuracy: float, rows: float) -> float:
    """Return the standard error of an accuracy measured on `rows` test rows; both in per cent.

    With no row or all rows right it is that of half a row: a test set is never certain.
    """
    share = min(max(accuracy / 100, 0.5 / rows), 1 - 0.5 / rows)
    return 100 * math.sqrt(share * (1 - share) / rows)


def signed(points: float) -> str:
    """Return a difference with its sign: a minus stays with its number where a hyphen is broken off."""
    return f"{points:+.2f}".replace("-", "\N{MINUS SIGN}")
