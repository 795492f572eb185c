"""The tables on over-samplers, for the sets of the KEEL collection."""

from __future__ import annotations

from collections.abc import Callable

from experiments import document, load
from pivot import Summary, markdown

COLUMNS = (
    ("AUC", "auc", "mean of classifiers"),
    ("balanced accuracy", "balanced_accuracy", "mean of classifiers"),
    ("G-mean", "g_mean", "mean of classifiers"),
    ("AUC, best classifier of each set", "auc", "best of each set"),
)
NAMES = {"none": "as they are", "ldmlr": "**LDMLR**"}


def keel(experiment: str) -> Callable[[Summary], str]:
    """Return what renders over-samplers: mean (mean rank), p of the difference to LDMLR; best AUC first."""

    def render(summary: Summary) -> str:
        rows = {(row["case"], row["what"]): row for row in document(load()[experiment])["rows"]}
        given = COLUMNS[0][2]
        samplers = [
            case.rpartition(", ")[0]
            for case, what in rows
            if what == COLUMNS[0][1] and case.endswith(f", {given}")
        ]
        found = []
        for sampler in sorted(samplers, key=lambda name: rows[f"{name}, {given}", "auc"]["rank"]):
            cells = [NAMES.get(sampler, sampler)]
            for _, measure, classifier in COLUMNS:
                row = rows[f"{sampler}, {classifier}", measure]
                cells.append(
                    f"{row['figure']['mean']:.3f} ({row['rank']:.1f}){_tested(row.get('wilcoxon_p'))}"
                )
            found.append(cells)
        return markdown(("training rows", *(shown for shown, _, _ in COLUMNS)), found)

    return render


def _tested(p: float | None) -> str:
    if p is None:
        return ""
    return ", p < .001" if p < 0.001 else f", p {p:.3f}".replace("0.", ".")


TABLES: dict[str, Callable[[Summary], str]] = {"keel": keel("keel-development")}
