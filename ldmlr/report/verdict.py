"""The verdict in words: what the generated rows gave, and plainly where they gave nothing.

Two rows differ if their means are at least two pooled standard deviations over the seeds apart,
``s = sqrt((s_1^2 + s_2^2) / 2)``. Which rows are compared is fixed here, before any figure is seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ldmlr.groups import GROUPS
from ldmlr.metrics.difference import CLEAR, Difference, accuracy_error
from ldmlr.results import GROUP_COLUMNS

RULE = (
    f"Two rows differ if their means are at least {CLEAR:g} pooled standard deviations over the seeds apart "
    "(root of the mean of the two variances); less is within noise."
)
Row = Mapping[str, Any]
Key = tuple[str, str]
# What is compared: first, second, and how it is called.
DUELS: tuple[tuple[Key, Key, str], ...] = (
    (("ldmlr", "none"), ("baseline", "none"), "LDMLR against the baseline"),
    (("ldmlr", "none"), ("baseline", "label-shift"), "LDMLR against label shift alone"),
    (
        ("ldmlr", "label-shift"),
        ("baseline", "label-shift"),
        "LDMLR with label shift against label shift alone",
    ),
)


class Duel(Difference):
    """Two entries of the accuracy table, compared."""

    def words(self) -> str:
        """Return the difference in words."""
        points = f"{abs(self.difference):.2f} points"
        steps = self.deviations
        spread = "one seed" if self.seeds < 2 else "nothing varies with the seed"
        if self.outcome == "undecided":
            return f"{self.difference:+.2f} points, {spread}: no standard deviation to judge it by"
        measured = spread if steps is None else f"{abs(steps):.1f} standard deviations"
        if self.outcome == "within noise":
            return f"no difference beyond noise ({self.difference:+.2f} points, {measured})"
        return f"{self.outcome} by {points} ({measured})"


def verdict(document: Mapping[str, Any], test_rows: int | None = None) -> dict[str, Any] | None:
    """Return the verdict of a run, or None where there is no single LDMLR row beside a baseline.

    An ablation has an LDMLR row per setting: none of them speaks for the method.

    Parameters
    ----------
    document
        A result document with accuracy ``rows``.
    test_rows
        Rows of the test split, for its own error.

    Returns
    -------
    dict
        ``outcome`` (``ahead``, ``behind``, ``within noise``, ``undecided``), ``headline``, ``lines``,
        ``rule``, ``notes`` and ``comparisons`` (per duel and group: ``difference``, ``deviations``,
        ``outcome``).
    """
    known = {(row.get("method"), row.get("adjustment")): row for row in _rows(document)}
    if len(known) < len(_rows(document)):
        return None
    lines: list[str] = []
    comparisons: list[dict[str, Any]] = []
    overall: dict[str, Duel] = {}
    for first, second, name in DUELS:
        if first not in known or second not in known:
            continue
        duels = {
            group: Duel(known[first][group], known[second][group])
            for group in GROUP_COLUMNS
            if known[first].get(group) and known[second].get(group)
        }
        comparisons += [
            {"what": name, "group": group, "difference": duel.difference, "deviations": duel.deviations,
             "outcome": duel.outcome}
            for group, duel in duels.items()
        ]  # fmt: skip
        if "all" in duels:
            overall[name] = duels["all"]
            lines.append(f"{name}: {duels['all'].words()}{_by_group(duels)}.")
    if not overall:
        return None
    outcome, headline = _headline([overall.get(name) for _, _, name in DUELS])
    return {
        "outcome": outcome, "headline": headline, "lines": lines, "rule": RULE,
        "notes": _notes(document, known, test_rows), "comparisons": comparisons,
    }  # fmt: skip


def _rows(document: Mapping[str, Any]) -> Sequence[Row]:
    rows = document.get("rows")
    if document.get("command") in ("compare", "ablate") or not isinstance(rows, list):
        return ()
    return [row for row in rows if isinstance(row, dict) and isinstance(row.get("all"), dict | None)]


def _by_group(duels: Mapping[str, Duel]) -> str:
    """Return what the groups did, as a clause."""
    parts = [f"{name} {duels[name].difference:+.2f}" for name in GROUPS if name in duels]
    return f"; by group: {', '.join(parts)}" if len(parts) > 1 else ""


def _headline(duels: Sequence[Duel | None]) -> tuple[str, str]:
    """Return outcome and headline; label shift is free, so it is what has to be beaten."""
    plain, against, shifted = duels
    decisive = shifted or against or plain
    assert decisive is not None
    if decisive.outcome == "undecided":
        if decisive.seeds < 2:
            return "undecided", "One seed cannot tell a gain from noise; run more seeds before you conclude."
        return "undecided", "Nothing varies with the seed, so no spread tells a gain from noise."
    if shifted is None and against is None:
        words = {
            "ahead": "Generation helped the baseline; label shift alone was not measured beside it.",
            "behind": "Generation did not help: it is behind the baseline.",
            "within noise": "Generation did not help: no difference to the baseline beyond noise.",
        }
        return decisive.outcome, words[decisive.outcome]
    if decisive.outcome == "ahead":
        return "ahead", "Generation helped: with label shift, LDMLR is ahead of label shift alone."
    helped = plain is not None and plain.outcome == "ahead"
    if decisive.outcome == "behind":
        start = "Generation did not help: with label shift, LDMLR is behind label shift alone"
    else:
        start = "Generation did not help beyond label shift: no difference beyond noise"
    end = (
        ", though it improves the baseline without label shift."
        if helped
        else ", nor did it help the baseline."
    )
    return decisive.outcome, f"{start}{end}"


def _notes(document: Mapping[str, Any], known: Mapping[Any, Row], test_rows: int | None) -> list[str]:
    """Return what one has to know to read the figures."""
    notes = []
    selection = str(document.get("selection", ""))
    if selection.startswith("best"):
        notes.append(f"Selection: {selection}. The figures look better than they are.")
    elif selection:
        notes.append(f"Figures are those of the {selection}; nothing was chosen on the test rows.")
    stage = document.get("config", {}).get("finetune", document.get("config", {}))
    if ("ldmlr", "label-shift") in known and isinstance(stage, dict) and "tau_shift" in stage:
        notes.append(
            "The label-shift row of LDMLR averages the logits of the new head and the baseline's (share of "
            f"the baseline's {stage.get('average')}) and subtracts {stage['tau_shift']} x log prior; the "
            "baseline's subtracts 1 x log prior. A part of a gain may come from that."
        )
    if test_rows:
        mean = known.get(("ldmlr", "none"), next(iter(known.values())))["all"]["mean"]
        error = accuracy_error(mean, test_rows)
        notes.append(
            f"{test_rows:,} test rows tell one accuracy to ±{error:.2f} points (standard error); all seeds "
            "share them, so the standard deviation over seeds does not show it."
        )
    notes.append(
        "Other ways to balance classes (over-sampling, SMOTE, class Gaussians, balanced softmax) are not "
        "part of this run; ldmlr compare measures them."
    )
    return notes
