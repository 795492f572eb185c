"""The table on what the diffusion learns."""

from __future__ import annotations

from collections.abc import Callable

from pivot import Summary, markdown

CASES = {
    "cifar10-wide": "CIFAR-10-LT, public ImageNet encoder, 1,280 numbers",
    "cifar10-wide-128": "the same, first 128 principal axes",
}
NAMES = {
    "all": "all classes",
    "many": "classes of 500 rows and more",
    "few": "classes of 100 rows and fewer",
    "drawn": "drawn rows",
    "gaussian": "rows of the shared Gaussian",
    "real": "training rows",
}


def learned(summary: Summary) -> str:
    """Return what the diffusion learns beyond a Gaussian: a line for each case and figure, over the seeds."""
    found = []
    for row in summary.by_experiment["learned"]:
        case, _, name = row["setting"].rpartition(", ")
        shown = f"{CASES[case]}: {NAMES[name]}" if case in CASES else row["setting"]
        mean, std = float(row["mean"]), float(row["std"])
        digits = 1 if row["quantity"].endswith("%") else 3
        figure = f"{mean:.{digits}f} ± {std:.{digits}f}" if std else f"{mean:.{digits}f}"
        found.append([shown, row["quantity"], figure])
    return markdown(("case", "figure", "five seeds"), found)


TABLES: dict[str, Callable[[Summary], str]] = {"learned": learned}
