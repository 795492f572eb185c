"""Verdicts in words: what won, what the generated rows gave, and plainly where they gave nothing.

Rows are compared by ``all``, or by ``balanced`` where classes were measured on unlike numbers of rows
(`ldmlr.results.judged_by`). The headline asks one question: is the best row with generation ahead of the best
row without it? Label shift is free, and so is any other head without generation: that is what generated rows
have to beat. What counts as ahead is the rule of `ldmlr.experiments.duel`, the same for every comparison.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ldmlr.errors import counted
from ldmlr.experiments.catalogue import BASELINE, DIFFUSION, GAUSSIAN, METHODS, NO_GENERATION
from ldmlr.experiments.duel import RULE, Duel, Row, accuracy_error, signed
from ldmlr.groups import GROUPS
from ldmlr.metrics.answers import Answers
from ldmlr.results import ALL, BALANCED, accuracy_columns, judged_by
from ldmlr.text import row_name

SECTIONS = {
    "none": "without label shift",
    "label-shift": "with label shift",
    "any": "each method at its better row",
}
RECIPE = "ldmlr"
WITHOUT = (BASELINE, NO_GENERATION)
# What the names in the documents of single heads are, beside the methods of a comparison.
FAMILIES = {
    **{name: entry.family for name, entry in METHODS.items()},
    **{f"{name}-tuned": entry.family for name, entry in METHODS.items()},
    "finetuned": NO_GENERATION,
}
BALANCED_RULE = (
    "Compared is the balanced accuracy, in which all classes weigh alike: they were measured on unlike "
    "numbers of rows, so the accuracy of all rows would be that of the frequent classes. "
)
BEST = "best with generation against best without"
# Two rows are as good as each other where twice the error of their difference is at most this, in points:
# what is told less closely may be a gain or a loss that matters.
TOLD = 1.0
# What a run compares beside its best rows: the adjustments of its method and of the baseline.
FIXED = (("none", "none"), ("none", "label-shift"), ("label-shift", "label-shift"))


def compare_verdict(rows: Sequence[Row], test_rows: int, answers: Answers | None = None) -> dict[str, Any]:
    """Return the verdict of a comparison.

    Parameters
    ----------
    rows
        Rows of the result document with ``method``, ``adjustment``, ``family``, ``all`` and, where they are
        judged by it, ``balanced``.
    test_rows
        Rows of the test split.
    answers
        What each head answered right: it pairs the rows of the table.

    Returns
    -------
    dict
        ``rule``, ``judged_by`` (``all`` or ``balanced``), ``lines`` (the words) and ``comparisons`` (the
        numbers behind them); with rows of both
        kinds also ``outcome`` and ``headline``: whether the best row with generation is ahead.
    """
    lines: list[str] = []
    comparisons: list[dict[str, Any]] = []
    column = judged_by(rows)
    mean = functools.partial(_mean, column=column)
    best = best_rows(rows, test_rows, answers)
    if best is not None:
        comparisons.append(best.document(BEST, "any"))
    for adjustment, words in SECTIONS.items():
        ranked = sorted(_section(rows, adjustment), key=mean, reverse=True)
        if len(ranked) < 2:
            continue
        # Within a section that has one adjustment, the method says it all.
        label = row_name if adjustment == "any" else _method
        duel = functools.partial(Duel, column=column, answers=answers, test_rows=test_rows)
        found = duel(ranked[0], ranked[1], picked=(len(ranked) - 1, 1))
        lines.append(f"{words}: {_winner(found, label)}")
        comparisons.append(found.document("won", adjustment))
        diffusion, name, among = _diffusion(ranked, label)
        if diffusion is None:
            continue
        for question, families in (("best Gaussian", (GAUSSIAN,)), ("best without generation", WITHOUT)):
            others = [row for row in ranked if row["family"] in families]
            if others:
                found = duel(diffusion, others[0], picked=(among, len(others)))
                lines.append(f"  {name} against the {question} ({label(others[0])}): {found.words()}")
                comparisons.append(found.document(question, adjustment))
    told = _rows_tell(max(map(mean, rows)), column, test_rows, answers)
    lines += [f"{told} (standard error)"] if told else []
    head = {} if best is None else {"outcome": best.outcome, "headline": headline(best)}
    return {
        **head, "rule": _rule(column), "judged_by": column, "lines": lines, "comparisons": comparisons,
    }  # fmt: skip


def run_verdict(
    document: Mapping[str, Any], test_rows: int | None = None, answers: Answers | None = None
) -> dict[str, Any] | None:
    """Return the verdict of a run, or None where nothing of one kind, with or without generation, is there.

    An ablation has a row with generation per setting: none of them speaks for the method.

    Parameters
    ----------
    document
        A result document with accuracy ``rows``.
    test_rows
        Rows of the test split, for its own error.
    answers
        What each head answered right: it pairs the rows of the table.

    Returns
    -------
    dict
        ``outcome`` (``ahead``, ``behind``, ``level``, ``undecided``), ``headline`` (one sentence), ``lines``,
        ``rule``, ``judged_by`` (``all`` or ``balanced``), ``notes``, ``comparisons`` (per question ``what``
        and group: ``difference``, ``error``, ``chance``, ``outcome`` and more).
    """
    rows = _rows(document)
    known = {(row.get("method"), row.get("adjustment")): row for row in rows}
    best = best_rows(rows, test_rows, answers)
    if best is None or len(known) < len(rows):
        return None
    pairs, column = [(best.first, best.second, BEST, best.picked)], best.column
    method = RECIPE if (RECIPE, "none") in known else best.first["method"]
    for made, plain in FIXED:
        first, second = known.get((method, made)), known.get(("baseline", plain))
        if first is not None and second is not None:
            pairs.append((first, second, f"{spoken(first)} against {spoken(second)}", (1, 1)))
    lines: list[str] = []
    comparisons: list[dict[str, Any]] = []
    for first, second, name, picked in pairs:
        duels = {
            group: Duel(first, second, group, answers, test_rows, picked)
            for group in accuracy_columns(rows)
            if first.get(group) and second.get(group)
        }
        comparisons += [{"what": name, "group": group, **duel.figures()} for group, duel in duels.items()]
        if column not in duels or (name != BEST and (first, second) == (best.first, best.second)):
            continue
        if name == BEST:
            name = f"Best with generation ({spoken(first)}) against best without ({spoken(second)})"
        lines.append(f"{name}: {duels[column].words()}{_by_group(duels)}.")
    return {
        "outcome": best.outcome, "headline": headline(best), "lines": lines, "rule": _rule(column),
        "judged_by": column,
        "notes": _notes(
            document, known.get((method, "label-shift")),
            _rows_tell(_mean(best.first, column), column, test_rows, answers),
        ),
        "comparisons": comparisons,
    }  # fmt: skip


def best_rows(
    rows: Sequence[Row], test_rows: int | None = None, answers: Answers | None = None
) -> Duel | None:
    """Return the best row with generation against the best without it; None where one kind is missing."""
    measured = [(row, row.get("family", FAMILIES.get(row["method"]))) for row in rows if row.get("all")]
    made = [row for row, family in measured if family is not None and family not in WITHOUT]
    plain = [row for row, family in measured if family in WITHOUT]
    if not made or not plain:
        return None
    column = judged_by(rows)
    first, second = (max(some, key=lambda row: _mean(row, column)) for some in (made, plain))
    return Duel(first, second, column, answers, test_rows, (len(made), len(plain)))


def best_row(rows: Sequence[Row]) -> dict[str, Any] | None:
    """Return ``method``, ``adjustment`` and ``all`` of the best row of a table; None for an empty table.

    Where the table is judged by it, ``balanced`` too.
    """
    measured, column = [row for row in rows if row.get("all")], judged_by(rows)
    if not measured:
        return None
    best = max(measured, key=lambda row: _mean(row, column))
    return {name: best[name] for name in dict.fromkeys(("method", "adjustment", ALL, column))}


def chosen_row(rows: Sequence[Row], method: str, adjustment: str) -> dict[str, Any] | None:
    """Return what `best_row` says of a row by its name; None if it is not there."""
    return best_row([row for row in rows if (row["method"], row["adjustment"]) == (method, adjustment)])


def headline(best: Duel) -> str:
    """Return in one sentence whether generation helped.

    Parameters
    ----------
    best
        The best row with generation against the best without it.
    """
    unit = "% balanced" if best.column == BALANCED else "%"
    first, second = (
        f"{spoken(row)} ({_mean(row, best.column):.2f} {unit})" for row in (best.first, best.second)
    )
    both = f"{first} against the best row without generation, {second}"
    error = "" if best.error is None else f", standard error {best.error:.2f}"
    if best.outcome == "undecided" or (best.outcome == "level" and best.seeds < 2):
        why = (
            "One seed cannot tell a gain from noise; run more seeds before you conclude"
            if best.seeds < 2
            else "Neither of the two varies with the seed, so no spread tells a gain from noise"
        )
        return f"{why}: {both}{error}."
    seeds = ", one seed" if best.seeds < 2 else ""
    points = f"{abs(best.difference):.2f} points"
    if best.outcome == "ahead":
        return (
            f"Generation helped: {first} is ahead of the best row without it, {second}, by {points}"
            f"{error}{seeds}."
        )
    if best.outcome == "behind":
        return (
            f"Generation did not help: {second} is ahead of the best row with it, {first}, by {points}"
            f"{error}{seeds}."
        )
    apart = "the same" if best.equal else f"{signed(best.difference)} points{error}"
    if 2 * (best.error or 0.0) > TOLD:
        return (
            f"These figures cannot tell whether generation helps: {both}, {apart}; more seeds or more "
            "measured rows would tell."
        )
    return f"{second[0].upper()}{second[1:]} is as good; generation adds nothing here: {first}, {apart}."


def spoken(row: Row) -> str:
    """Return the name of a row as a sentence has it."""
    method = {"baseline": "the baseline", RECIPE: "LDMLR"}.get(row["method"], str(row["method"]))
    if row["adjustment"] == "none":
        return method
    return "label shift alone" if row["method"] == "baseline" else f"{method} with label shift"


def _section(rows: Sequence[Row], adjustment: str) -> list[Row]:
    """Return the rows of an adjustment, or for ``any`` the better row of each method."""
    if adjustment != "any":
        return [row for row in rows if row["adjustment"] == adjustment]
    best: dict[str, Row] = {}
    column = judged_by(rows)
    for row in rows:
        if row["method"] not in best or _mean(row, column) > _mean(best[row["method"]], column):
            best[row["method"]] = row
    return list(best.values())


def _winner(duel: Duel, label: Callable[[Row], str]) -> str:
    first, second = label(duel.first), label(duel.second)
    mean = f"{_mean(duel.first, duel.column):.2f}"
    if duel.outcome == "ahead":
        return f"{first} won with {mean}, {duel.words()} of {second}"
    return f"no clear winner; {first} with {mean} before {second}, {duel.words()}"


def _diffusion(rows: Sequence[Row], label: Callable[[Row], str]) -> tuple[Row | None, str, int]:
    """Return the row that stands for diffusion, its name and how many it was picked from.

    It is the recipe, else the best variant that ran.
    """
    found = [row for row in rows if row["family"] == DIFFUSION]
    fixed = [row for row in found if row["method"] == RECIPE]
    if fixed or not found:
        return (fixed[0], label(fixed[0]), len(fixed)) if fixed else (None, "", 0)
    column = judged_by(rows)
    best = max(found, key=lambda row: _mean(row, column))
    name = label(best) if len(found) == 1 else f"the best diffusion ({label(best)})"
    return best, name, len(found)


def _mean(row: Row, column: str) -> float:
    return float(row[column]["mean"])


def _rule(column: str) -> str:
    """Return the rule by which rows of a table differ, and what it compares."""
    return f"{BALANCED_RULE if column == BALANCED else ''}{RULE}"


def _rows_tell(mean: float, column: str, test_rows: int | None, answers: Answers | None) -> str:
    """Return how well the measured rows tell one accuracy; nothing where it is not known."""
    if column == BALANCED and answers is not None:
        error = accuracy_error(mean, answers.row_count(column))
        return f"{counted(len(answers.labels), 'row')} tell one balanced accuracy by itself to ±{error:.2f}"
    if column == ALL and test_rows:
        error = accuracy_error(mean, test_rows)
        return f"{test_rows:,} test rows tell one accuracy by itself to ±{error:.2f}"
    return ""


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
    parts = [f"{name} {signed(duels[name].difference)}" for name in GROUPS if name in duels]
    return f"; by group: {', '.join(parts)}" if len(parts) > 1 else ""


def _notes(document: Mapping[str, Any], shifted: Row | None, told: str) -> list[str]:
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
    if told:
        notes.append(
            f"{told} points (standard error); two accuracies are compared on the rows where they differ."
        )
    notes.append(
        "Other ways to balance classes are not part of this run; ldmlr compare measures them (over-sampling, "
        "SMOTE, class Gaussians, balanced softmax)."
    )
    return notes
