"""The section on generated rows: their figures beside those of test rows, and what these say in words."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from ldmlr.errors import counted
from ldmlr.report import alternatives as alt
from ldmlr.report import figures as draw
from ldmlr.report.blocks import Block, Bullets, Folded, Section, Table, Words
from ldmlr.report.picture import Picture
from ldmlr.report.words import number

Figures = Mapping[str, Any]
# Longest table of classes on the page; --json has all of them.
ROWS_SHOWN = 200
PICTURED = (("frechet", "Fréchet distance"), ("scatter_ratio", "scatter ratio"))
COLUMNS = (
    "train_rows", "generated_rows", "frechet", "test_frechet", "scatter_ratio", "test_scatter_ratio",
)  # fmt: skip


def quality(figures: Figures) -> Section | None:
    """Return the quality of generated rows, beside test rows."""
    found = figures["quality"]
    if not found:
        return None
    blocks: list[Block] = [Words(
        "Generated rows beside the encoded training rows of their classes. The yardstick are test rows, "
        "measured in the same way and in the same numbers per class: rows like real ones come close to their "
        "column. Rows that were widened on purpose (--scale of ldmlr generate) do not. No figure here says "
        "that a head gets better."
        if found["test"]
        else "Generated rows beside the encoded training rows of their classes. There are no test rows to "
        "compare with."
    ), Bullets(_warnings(found)), _table(found)]  # fmt: skip
    entries, shown = found["classes"], []
    for name, label in PICTURED:
        points = [
            (entry["name"], entry["train_rows"], entry[f"test_{name}"], entry[name]) for entry in entries
        ]
        if any(point[3] for point in points):
            blocks.append(_picture(name, label, found["definitions"][name], points))
    shown = sorted(entries, key=lambda entry: entry["train_rows"])[:ROWS_SHOWN]
    table = Table(
        ["class", *(column.replace("_", " ") for column in COLUMNS)],
        [[entry["name"], *(number(entry[column], 3) for column in COLUMNS)] for entry in shown],
    )
    blocks.append(Folded(f"Table of {counted(len(shown), 'class')}", [table]))
    if found["classes_left_out"]:
        blocks.append(Words(f"Not in the sample: {counted(found['classes_left_out'], 'class')}.", soft=True))
    return Section("quality", "Quality of generated rows", blocks)


def _table(found: Figures) -> Table:
    """Return the figures of all generated rows, and what each says."""
    beside, sampled = found["test"], found["sampled"]
    of_seed = f"Seed {found['of_seed']}: " if "of_seed" in found else ""
    cells = [
        [name.replace("_", " "), number(value, 3), number(beside[name], 3) if beside else "–",
         found["definitions"][name]]
        for name, value in found["generated"].items()
    ]  # fmt: skip
    return Table(
        ["figure", "generated", "test rows", "what it says"], cells,
        f"{of_seed}{sampled['generated']:,} of {found['rows']['generated']:,} generated, "
        f"{sampled['encoded']:,} training and {counted(sampled['test'], 'test row')}, a seeded "
        "sample.", wordy=True,
    )  # fmt: skip


def _picture(name: str, label: str, definition: str, points: list[Any]) -> Picture:
    """Return a figure of each class, of generated and of test rows, against training rows."""
    title = f"{label[0].upper()}{label[1:]} to the training rows of each class"
    legend = (("base open", "test rows"), ("made", "generated rows"))
    return Picture(
        name.replace("_", "-"), alt.pairs(points, title, ("test rows", "generated rows")),
        f"{title}: {definition}.",
        partial(draw.class_pairs, points, legend, f"{label} (logarithmic)", True),
    )  # fmt: skip


def _warnings(found: Figures) -> list[str]:
    """Return plain words where generated rows look like copies, or narrow."""
    made, beside = found["generated"], found["test"]
    lines = []
    if made["duplicates"] > 0:
        lines.append(f"{100 * made['duplicates']:.1f} % of the generated rows are copies of training rows.")
    if (
        beside
        and made["distance_ratio"] is not None
        and made["distance_ratio"] < 0.5 * beside["distance_ratio"]
    ):
        lines.append(
            "Generated rows lie less than half as far from training rows as test rows do: they may repeat "
            "them."
        )
    elif not lines:
        lines.append("Memorisation: no generated row is a copy of a training row.")
    if beside and made["recall"] < 0.5 * beside["recall"]:
        lines.append(
            "Recall is less than half that of test rows: the generated rows miss much of their classes."
        )
    if beside and made["precision"] < 0.8 * beside["precision"]:
        lines.append(
            "Precision is well below that of test rows: many generated rows lie where no training row does, "
            "farther out than real rows."
        )
    return lines
