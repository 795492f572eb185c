"""The verdict of a comparison in words: what won, by how much, and whether diffusion paid.

The rule: two methods differ if their means are at least two pooled standard deviations over the seeds apart,
``s = sqrt((s_1^2 + s_2^2) / 2)``; anything less is within noise. It speaks of the seeds only: all of
them share one training and one test set, so the test set's own error is stated beside it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ldmlr.experiments.catalogue import BASELINE, DIFFUSION, GAUSSIAN, NO_GENERATION
from ldmlr.metrics.difference import CLEAR, Difference, Entry, accuracy_error
from ldmlr.text import row_name

Row = Mapping[str, Any]

RULE = (
    f"two rows differ if their means are at least {CLEAR:g} pooled standard deviations over the seeds apart "
    "(root of the mean of the two variances); less is within noise. The best of a family is picked by "
    "these very test figures, which favours large families; diffusion has no such choice, the recipe stands "
    "for it"
)
SECTIONS = {
    "none": "without label shift",
    "label-shift": "with label shift",
    "any": "each method at its better row",
}
RECIPE = "ldmlr"


@dataclasses.dataclass(frozen=True)
class Duel(Difference):
    """Two rows of the table, compared over all classes."""

    @property
    def entries(self) -> tuple[Entry, Entry]:
        """Their entries for all classes."""
        return self.first["all"], self.second["all"]

    def words(self) -> str:
        """Return the difference in words."""
        points, steps = f"{abs(self.difference):.2f} points", self.deviations
        spread = "one seed has no spread" if self.seeds < 2 else "neither varies with the seed"
        if self.outcome == "undecided":
            return f"{self.difference:+.2f} points, undecided: {spread}"
        measured = spread if steps is None else f"{abs(steps):.1f} standard deviations"
        if self.outcome == "within noise":
            return f"within noise ({self.difference:+.2f} points, {measured})"
        return f"{self.outcome} by {points} ({measured})"

    def document(self, question: str, adjustment: str) -> dict[str, Any]:
        """Return the comparison as plain data."""
        return {
            "question": question, "adjustment": adjustment,
            "first": row_name(self.first), "second": row_name(self.second),
            "difference": self.difference, "pooled_std": self.pooled, "deviations": self.deviations,
            "outcome": self.outcome,
        }  # fmt: skip


def verdict(rows: Sequence[Row], test_rows: int) -> dict[str, Any]:
    """Return the verdict of an accuracy table.

    Parameters
    ----------
    rows
        Rows of the result document with ``method``, ``adjustment``, ``family`` and ``all``.
    test_rows
        Rows of the test split.

    Returns
    -------
    dict
        ``rule``, ``lines`` (the words) and ``comparisons`` (the numbers behind them).
    """
    lines: list[str] = []
    comparisons: list[dict[str, Any]] = []
    for adjustment, words in SECTIONS.items():
        ranked = sorted(_section(rows, adjustment), key=_mean, reverse=True)
        if len(ranked) < 2:
            continue
        # Within a section that has one adjustment, the method says it all.
        label = row_name if adjustment == "any" else _method
        duel = Duel(ranked[0], ranked[1])
        lines.append(f"{words}: {_winner(duel, label)}")
        comparisons.append(duel.document("won", adjustment))
        diffusion = _diffusion(ranked)
        if diffusion is None:
            continue
        for question, families in (
            ("best Gaussian", (GAUSSIAN,)),
            ("best without generation", (BASELINE, NO_GENERATION)),
        ):
            rivals = [row for row in ranked if row["family"] in families]
            if rivals:
                duel = Duel(diffusion, rivals[0])
                against = f"{label(diffusion)} against the {question} ({label(rivals[0])})"
                lines.append(f"  {against}: {duel.words()}")
                comparisons.append(duel.document(question, adjustment))
    error = accuracy_error(_mean(max(rows, key=_mean)), test_rows)
    lines.append(
        f"{test_rows:,} test rows tell one accuracy to ±{error:.2f} (standard error); seeds do not show that"
    )
    return {"rule": RULE, "lines": lines, "comparisons": comparisons}


def _section(rows: Sequence[Row], adjustment: str) -> list[Row]:
    """Return the rows of an adjustment, or for ``any`` the better row of each method."""
    if adjustment != "any":
        return [row for row in rows if row["adjustment"] == adjustment]
    best: dict[str, Row] = {}
    for row in rows:
        if row["method"] not in best or _mean(row) > _mean(best[row["method"]]):
            best[row["method"]] = row
    return list(best.values())


def _winner(duel: Duel, label: Callable[[Row], str]) -> str:
    first, second = label(duel.first), label(duel.second)
    mean = f"{_mean(duel.first):.2f}"
    if duel.outcome == "ahead":
        return f"{first} won with {mean}, {duel.words()} of {second}"
    return f"no clear winner; {first} with {mean} before {second}, {duel.words()}"


def _diffusion(rows: Sequence[Row]) -> Row | None:
    """Return the row that stands for diffusion: the recipe, else the best variant that ran."""
    found = [row for row in rows if row["family"] == DIFFUSION]
    fixed = [row for row in found if row["method"] == RECIPE]
    return fixed[0] if fixed else max(found, key=_mean, default=None)


def _mean(row: Row) -> float:
    return float(row["all"]["mean"])


def _method(row: Row) -> str:
    return str(row["method"])
