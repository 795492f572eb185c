"""Verdicts in words: what won, what the generated rows gave, and plainly where they gave nothing.

One rule for all of them, `RULE`. Two rows were made from the same seeds, baselines and test rows, so they
are compared seed by seed: they differ if the mean of the differences is at least two of their standard
deviations; anything less is within noise. It speaks of the seeds only: all of them share one training and one
test set, so the test set's own error is stated beside it.

The headline asks one question: is the best row with generation ahead of the best row without it? Label shift
is free, and so is any other head without generation: that is what generated rows have to beat.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ldmlr.experiments.catalogue import BASELINE, DIFFUSION, GAUSSIAN, METHODS, NO_GENERATION
from ldmlr.groups import GROUPS
from ldmlr.results import GROUP_COLUMNS
from ldmlr.text import row_name

Row = Mapping[str, Any]

# Two accuracies differ from so many standard deviations of their difference on.
CLEAR = 2.0
# Below this, a spread or a difference is what rounding leaves of zero, per cent.
ROUNDING = 1e-9
RULE = (
    "Two rows are compared seed by seed, as they share seeds, baselines and test rows: they differ if the "
    f"mean of the differences is at least {CLEAR:g} standard deviations of the differences; less is within "
    "noise. What won or is called best was picked by these very test figures, which favours the side that "
    "has more rows to pick from; every other comparison was fixed before."
)
SECTIONS = {
    "none": "without label shift",
    "label-shift": "with label shift",
    "any": "each method at its better row",
}
RECIPE = "ldmlr"
WITHOUT = (BASELINE, NO_GENERATION)
# What the names in the documents of single heads are, beside the methods of a comparison.
FAMILIES = {**{name: entry.family for name, entry in METHODS.items()}, "finetuned": NO_GENERATION}
BEST = "best with generation against best without"
# What a run compares beside its best rows: the adjustments of its method and of the baseline.
FIXED = (("none", "none"), ("none", "label-shift"), ("label-shift", "label-shift"))


@dataclasses.dataclass(frozen=True)
class Duel:
    """Two rows of an accuracy table; the question is whether the first is ahead.

    Parameters
    ----------
    first, second
        The rows.
    column
        ``all``, or a shot group.
    """

    first: Row
    second: Row
    column: str = "all"

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
    def paired(self) -> bool:
        """Whether both were measured with the same seeds, so that every seed has a difference."""
        first, second = self.entries
        return len(first["values"]) == len(second["values"])

    @property
    def spread(self) -> float:
        """Standard deviation of the difference, in points: of the seeds' differences, else the pooled one."""
        first, second = self.entries
        if not self.paired:
            return math.sqrt((first["std"] ** 2 + second["std"] ** 2) / 2)
        differences = [a - b for a, b in zip(first["values"], second["values"], strict=True)]
        return statistics.stdev(differences) if len(differences) > 1 else 0.0

    @property
    def deviations(self) -> float | None:
        """The difference in its standard deviations; None where it does not vary with the seed."""
        return self.difference / self.spread if self.spread > ROUNDING else None

    @property
    def outcome(self) -> str:
        """``ahead``, ``behind``, ``within noise``, or ``undecided``: no spread over seeds to judge it by.

        There is none for a single seed, and none for two methods that do not depend on the seed.
        """
        steps = self.deviations
        if self.seeds < 2:
            return "undecided"
        if self.equal:
            return "within noise"
        if steps is None and not any(entry["std"] > ROUNDING for entry in self.entries):
            return "undecided"
        if steps is not None and abs(steps) < CLEAR:
            return "within noise"
        return "ahead" if self.difference > 0 else "behind"

    @property
    def equal(self) -> bool:
        """Whether the means are the same."""
        return abs(self.difference) < ROUNDING

    def words(self) -> str:
        """Return the difference in words."""
        points, steps = f"{abs(self.difference):.2f} points", self.deviations
        if self.outcome == "undecided":
            spread = "one seed has no spread" if self.seeds < 2 else "neither varies with the seed"
            return f"{_signed(self.difference)} points, undecided: {spread}"
        if self.equal:
            return "equal"
        measured = "the same for every seed"
        if steps is not None:
            of = "of the difference" if self.paired else "over the seeds"
            measured = f"{abs(steps):.1f} standard deviations {of}"
        if self.outcome == "within noise":
            return f"within noise ({_signed(self.difference)} points, {measured})"
        return f"{self.outcome} by {points} ({measured})"

    def figures(self) -> dict[str, Any]:
        """Return the numbers behind the words."""
        return {
            "difference": self.difference, "difference_std": self.spread, "deviations": self.deviations,
            "outcome": self.outcome,
        }  # fmt: skip

    def document(self, question: str, adjustment: str) -> dict[str, Any]:
        """Return the comparison as plain data."""
        return {
            "question": question, "adjustment": adjustment,
            "first": row_name(self.first), "second": row_name(self.second), **self.figures(),
        }  # fmt: skip


def compare_verdict(rows: Sequence[Row], test_rows: int) -> dict[str, Any]:
    """Return the verdict of a comparison.

    Parameters
    ----------
    rows
        Rows of the result document with ``method``, ``adjustment``, ``family`` and ``all``.
    test_rows
        Rows of the test split.

    Returns
    -------
    dict
        ``rule``, ``lines`` (the words) and ``comparisons`` (the numbers behind them); with rows of both
        kinds also ``outcome`` and ``headline``: whether the best row with generation is ahead.
    """
    lines: list[str] = []
    comparisons: list[dict[str, Any]] = []
    best = best_rows(rows)
    if best is not None:
        comparisons.append(best.document(BEST, "any"))
    for adjustment, words in SECTIONS.items():
        ranked = sorted(_section(rows, adjustment), key=_mean, reverse=True)
        if len(ranked) < 2:
            continue
        # Within a section that has one adjustment, the method says it all.
        label = row_name if adjustment == "any" else _method
        duel = Duel(ranked[0], ranked[1])
        lines.append(f"{words}: {_winner(duel, label)}")
        comparisons.append(duel.document("won", adjustment))
        diffusion, name = _diffusion(ranked, label)
        if diffusion is None:
            continue
        for question, families in (("best Gaussian", (GAUSSIAN,)), ("best without generation", WITHOUT)):
            others = [row for row in ranked if row["family"] in families]
            if others:
                duel = Duel(diffusion, others[0])
                lines.append(f"  {name} against the {question} ({label(others[0])}): {duel.words()}")
                comparisons.append(duel.document(question, adjustment))
    error = accuracy_error(_mean(max(rows, key=_mean)), test_rows)
    lines.append(
        f"{test_rows:,} test rows tell one accuracy to ±{error:.2f} (standard error); seeds do not show that"
    )
    head = {} if best is None else {"outcome": best.outcome, "headline": headline(best, rows)}
    return {**head, "rule": RULE, "lines": lines, "comparisons": comparisons}


def run_verdict(document: Mapping[str, Any], test_rows: int | None = None) -> dict[str, Any] | None:
    """Return the verdict of a run, or None where nothing of one kind, with or without generation, is there.

    An ablation has a row with generation per setting: none of them speaks for the method.

    Parameters
    ----------
    document
        A result document with accuracy ``rows``.
    test_rows
        Rows of the test split, for its own error.

    Returns
    -------
    dict
        ``outcome`` (``ahead``, ``behind``, ``within noise``, ``undecided``), ``headline`` (one sentence),
        ``lines``, ``rule``, ``notes`` and ``comparisons`` (per question ``what`` and group: ``difference``,
        ``difference_std``, ``deviations``, ``outcome``).
    """
    rows = _rows(document)
    known = {(row.get("method"), row.get("adjustment")): row for row in rows}
    best = best_rows(rows)
    if best is None or len(known) < len(rows):
        return None
    pairs = [(best.first, best.second, BEST)]
    method = RECIPE if (RECIPE, "none") in known else best.first["method"]
    for made, plain in FIXED:
        first, second = known.get((method, made)), known.get(("baseline", plain))
        if first is not None and second is not None:
            pairs.append((first, second, f"{spoken(first)} against {spoken(second)}"))
    lines: list[str] = []
    comparisons: list[dict[str, Any]] = []
    for first, second, name in pairs:
        duels = {
            group: Duel(first, second, group)
            for group in GROUP_COLUMNS
            if first.get(group) and second.get(group)
        }
        comparisons += [{"what": name, "group": group, **duel.figures()} for group, duel in duels.items()]
        if "all" not in duels or (name != BEST and duels["all"] == best):
            continue
        if name == BEST:
            name = f"Best with generation ({spoken(first)}) against best without ({spoken(second)})"
        lines.append(f"{name}: {duels['all'].words()}{_by_group(duels)}.")
    return {
        "outcome": best.outcome, "headline": headline(best, rows), "lines": lines, "rule": RULE,
        "notes": _notes(document, known.get((method, "label-shift")), best, test_rows),
        "comparisons": comparisons,
    }  # fmt: skip


def best_rows(rows: Sequence[Row]) -> Duel | None:
    """Return the best row with generation against the best without it; None where one kind is missing."""
    measured = [(row, row.get("family", FAMILIES.get(row["method"]))) for row in rows if row.get("all")]
    made = [row for row, family in measured if family is not None and family not in WITHOUT]
    plain = [row for row, family in measured if family in WITHOUT]
    return Duel(max(made, key=_mean), max(plain, key=_mean)) if made and plain else None


def headline(best: Duel, rows: Sequence[Row]) -> str:
    """Return in one sentence whether generation helped.

    Parameters
    ----------
    best
        The best row with generation against the best without it.
    rows
        All rows: where generation is not ahead, they say whether it helped the baseline at least.
    """
    first, second = (f"{spoken(row)} ({_mean(row):.2f} %)" for row in (best.first, best.second))
    if best.outcome == "undecided":
        why = (
            "One seed cannot tell a gain from noise; run more seeds before you conclude"
            if best.seeds < 2
            else "Neither of the two varies with the seed, so no spread tells a gain from noise"
        )
        return f"{why}: {first} against the best row without generation, {second}."
    if best.outcome == "ahead":
        return f"Generation helped: {first} is ahead of the best row without it, {second}."
    known = {(row["method"], row["adjustment"]): row for row in rows if row.get("all")}
    plain = known.get((best.first["method"], "none")), known.get(("baseline", "none"))
    end = ""
    if plain[0] is not None and plain[1] is not None and plain[1] is not best.second:
        helped = Duel(plain[0], plain[1]).outcome
        end = {
            "ahead": ", though it improves the baseline without label shift",
            "undecided": "",
        }.get(helped, ", nor did it help the baseline")
    if best.outcome == "behind":
        return f"Generation did not help: {first} is behind the best row without it, {second}{end}."
    level = "equal to" if best.equal else "within noise of"
    return f"No clear gain from generation: {first} is {level} the best row without it, {second}{end}."


def spoken(row: Row) -> str:
    """Return the name of a row as a sentence has it."""
    method = {"baseline": "the baseline", RECIPE: "LDMLR"}.get(row["method"], str(row["method"]))
    if row["adjustment"] == "none":
        return method
    return "label shift alone" if row["method"] == "baseline" else f"{method} with label shift"


def accuracy_error(accuracy: float, rows: int) -> float:
    """Return the standard error of an accuracy measured on `rows` test rows; both in per cent.

    With no row or all rows right it is that of half a row: a test set is never certain.
    """
    share = min(max(accuracy / 100, 0.5 / rows), 1 - 0.5 / rows)
    return 100 * math.sqrt(share * (1 - share) / rows)


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


def _diffusion(rows: Sequence[Row], label: Callable[[Row], str]) -> tuple[Row | None, str]:
    """Return the row that stands for diffusion and its name: the recipe, else the best variant that ran."""
    found = [row for row in rows if row["family"] == DIFFUSION]
    fixed = [row for row in found if row["method"] == RECIPE]
    if fixed or not found:
        return (fixed[0], label(fixed[0])) if fixed else (None, "")
    best = max(found, key=_mean)
    return best, label(best) if len(found) == 1 else f"the best diffusion ({label(best)})"


def _signed(points: float) -> str:
    """Return a difference with its sign: a minus stays with its number where a hyphen is broken off."""
    return f"{points:+.2f}".replace("-", "\N{MINUS SIGN}")


def _mean(row: Row) -> float:
    return float(row["all"]["mean"])


def _method(row: Row) -> str:
    return str(row["method"])


def _rows(document: Mapping[str, Any]) -> Sequence[Row]:
    """Return the accuracy rows of a document that speaks of one method."""
    rows = document.get("rows")
    if document.get("command") in ("compare", "ablate") or not isinstance(rows, list):
        return ()
    return [row for row in rows if isinstance(row, dict) and isinstance(row.get("all"), dict | None)]


def _by_group(duels: Mapping[str, Duel]) -> str:
    """Return what the groups did, as a clause."""
    parts = [f"{name} {_signed(duels[name].difference)}" for name in GROUPS if name in duels]
    return f"; by group: {', '.join(parts)}" if len(parts) > 1 else ""


def _notes(document: Mapping[str, Any], shifted: Row | None, best: Duel, test_rows: int | None) -> list[str]:
    """Return what one has to know to read the figures."""
    notes = []
    selection = str(document.get("selection", ""))
    if selection.startswith("best"):
        notes.append(f"Selection: {selection}. The figures look better than they are.")
    elif selection:
        notes.append(f"Figures are those of the {selection}; no epoch was chosen on the test rows.")
    stage = document.get("config", {}).get("finetune", document.get("config", {}))
    if shifted is not None and isinstance(stage, dict) and "tau_shift" in stage:
        method = spoken({**shifted, "adjustment": "none"})
        notes.append(
            f"The label-shift row of {method} averages the logits of the new head and the baseline's (share "
            f"of the baseline's {stage.get('average')}) and subtracts {stage['tau_shift']} x log prior; the "
            "baseline's subtracts 1 x log prior. A part of a gain may come from that."
        )
    if test_rows:
        error = accuracy_error(_mean(best.first), test_rows)
        notes.append(
            f"{test_rows:,} test rows tell one accuracy to ±{error:.2f} points (standard error); all seeds "
            "share them, so the standard deviation over seeds does not show it."
        )
    notes.append(
        "Other ways to balance classes are not part of this run; ldmlr compare measures them (over-sampling, "
        "SMOTE, class Gaussians, balanced softmax)."
    )
    return notes
