"""The sections of the page: figures in, HTML out. A section without figures is None."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from ldmlr.report.figures import class_pairs, curves, group_dots, plan_bars, projection, reliability, row_name
from ldmlr.report.html import Picture, Section, details, heat, listing, number, paragraph, spread, table
from ldmlr.report.training import STAGES
from ldmlr.results import GROUP_COLUMNS

Figures = Mapping[str, Any]
# Longest table of classes on the page; --json has all of them.
ROWS_SHOWN = 200
# Largest confusion matrix shown in full.
MATRIX = 20


def accuracy(figures: Figures) -> Section | None:
    """Return the accuracy table and its picture."""
    rows = figures["rows"]
    if not is_accuracy(rows):
        return None
    groups = figures["groups"] or {}
    shown = [name for name in GROUP_COLUMNS if any(row.get(name) for row in rows)]
    if not shown:
        return None
    heads = [f"{name} ({groups[name]} classes)" if name in groups else name for name in shown]
    body = table(
        ["top-1 %", *heads], [[row_name(row), *(spread(row.get(name)) for name in shown)] for row in rows],
        _seeds_caption(rows),
    )  # fmt: skip
    picture = Picture(
        "accuracy",
        group_dots(rows, shown),
        "The same figures: dots are means, bars one standard deviation to either side. Every panel has its "
        "own scale.",
    )
    return Section("accuracy", "Accuracy", body + picture.html(), [picture])


def is_accuracy(rows: Any) -> bool:
    """Tell whether rows are those of an accuracy table."""
    return (
        isinstance(rows, list)
        and bool(rows)
        and all(isinstance(row, dict) and "all" in row and ("method" in row or "head" in row) for row in rows)
        and all(_is_spread(row.get(name)) for row in rows for name in GROUP_COLUMNS)
    )


def _is_spread(entry: Any) -> bool:
    """Tell whether an entry is mean, deviation and values, or null."""
    if entry is None:
        return True
    numbers = isinstance(entry, dict) and all(isinstance(entry.get(k), int | float) for k in ("mean", "std"))
    return numbers and isinstance(entry.get("values"), list) and bool(entry["values"])


def _seeds_caption(rows: Sequence[Figures]) -> str:
    many = max(len(row["all"]["values"]) for row in rows if row.get("all"))
    if many < 2:
        return "One seed, so there is no standard deviation. A group's figure is the mean over its classes."
    return f"Mean ± standard deviation over {many} seeds. A group's figure is the mean over its classes."


def verdict(figures: Figures) -> Section | None:
    """Return the verdict in words."""
    found = figures["verdict"]
    if not found:
        return None
    lines = [str(line) for line in found["lines"]]
    kind = str(found.get("outcome", "")).split(" ")[0]
    head = f"<strong>{escape(str(found['headline']))}</strong>" if "headline" in found else ""
    box = f'<div class="verdict {escape(kind)}">{head}{listing(lines)}</div>'
    changed = (figures["measured"] or {}).get("note")
    notes = listing(
        [str(note) for note in (changed, found.get("rule"), *found.get("notes", [])) if note], "soft"
    )
    return Section("verdict", "Verdict", box + notes)


def classes(figures: Figures) -> Section | None:
    """Return accuracy per class against training rows."""
    found = figures["classes"]
    if not found:
        return None
    methods = list(found[0]["accuracy"])
    pictures = []
    plain = [name for name in methods if " + " not in name][:2]
    for shift, words in (("", ""), (" + label-shift", " with label shift")):
        pair = [f"{name}{shift}" for name in plain]
        if len(pair) < 2 or not all(name in methods for name in pair):
            continue
        points = [
            (entry["name"], entry["train_rows"], *(entry["accuracy"][name] for name in pair))
            for entry in found
        ]
        kinds = ("base-shift open", "made-shift") if shift else ("base open", "made")
        title = f"Accuracy per class against training rows{words}"
        pictures.append(Picture(
            "classes-label-shift" if shift else "classes",
            class_pairs(points, title=title, label="top-1 %", kinds=kinds),
            f"Accuracy of every class{words}, mean over the seeds; a line joins the two figures of a class.",
            [(kind, f"{name}{words}") for kind, name in zip(kinds, plain, strict=True)],
        ))  # fmt: skip
    body = "".join(picture.html() for picture in pictures)
    order = sorted(found, key=lambda entry: entry["train_rows"])
    shown = order[:ROWS_SHOWN]
    header = ["class", "group", "training rows", *methods]
    cells = [
        [entry["name"], entry["group"], number(entry["train_rows"]),
         *(number(entry["accuracy"][name]) for name in methods)]
        for entry in shown
    ]  # fmt: skip
    caption = "Fewest training rows first."
    if len(shown) < len(order):
        caption = f"The {len(shown)} classes with the fewest training rows; ldmlr report --json prints all."
    body += details(f"Table of {len(shown)} classes", table(header, cells, caption))
    return Section("classes", "Accuracy per class", body, pictures)


def plan(figures: Figures) -> Section | None:
    """Return natural and generated rows per class."""
    found = figures["classes"]
    if not found or found[0]["generated_rows"] is None:
        return None
    natural, made = (sum(entry[name] for entry in found) for name in ("train_rows", "generated_rows"))
    body = paragraph(
        f"{natural:,} natural and {made:,} generated rows in {len(found):,} classes (first seed)."
    )
    picture = Picture(
        "plan", plan_bars(found),
        "Bars are stacked and the axis is logarithmic: heights tell rows, areas do not.",
        [("base", "natural rows"), ("made", "generated rows")],
    )  # fmt: skip
    return Section("plan", "Plan of generation", body + picture.html(), [picture])


def training(figures: Figures) -> Section | None:
    """Return the losses of the stages."""
    found = figures["training"]
    if not found:
        return None
    panels = [(*STAGES[stage], found[stage]) for stage in STAGES if stage in found]
    ends = ", ".join(
        f"{title.split(':')[0].lower()} {np.mean([line[-1][1] for line in lines]):.4g}"
        for title, _, lines in panels
    )
    caption = f"Training loss, one line per seed. Last values, mean over the seeds: {ends}."
    picture = Picture("training", curves(panels), caption)
    return Section("training", "Training", picture.html(), [picture])


def quality(figures: Figures) -> Section | None:
    """Return the quality of generated rows, beside test rows."""
    found = figures["quality"]
    if not found:
        return None
    beside, sampled = found["test"], found["sampled"]
    of_seed = f"Seed {found['of_seed']}: " if "of_seed" in found else ""
    rows = [
        [
            name.replace("_", " "),
            number(value, 3),
            number(beside[name], 3) if beside else "–",
            found["definitions"][name],
        ]
        for name, value in found["generated"].items()
    ]
    body = paragraph(
        "Generated rows beside the encoded training rows of their classes. The yardstick are test rows, "
        "measured in the same way and in the same numbers per class: rows like real ones come close to their "
        "column. Rows that were widened on purpose (--scale of ldmlr generate) do not. No figure here says "
        "that a head gets better."
        if beside
        else "Generated rows beside the encoded training rows of their classes. There are no test rows to "
        "compare with."
    )
    body += _warnings(found)
    body += table(
        ["figure", "generated", "test rows", "what it says"], rows,
        f"{of_seed}{sampled['generated']:,} of {found['rows']['generated']:,} generated, "
        f"{sampled['encoded']:,} training and {sampled['test']:,} test rows, a seeded sample.", kind="wordy",
    )  # fmt: skip
    entries, pictures = found["classes"], []
    for name, label in (("frechet", "Fréchet distance"), ("scatter_ratio", "scatter ratio")):
        points = [
            (entry["name"], entry["train_rows"], entry[f"test_{name}"], entry[name]) for entry in entries
        ]
        if any(point[3] for point in points):
            start = f"{label[0].upper()}{label[1:]} to the training rows of each class"
            caption = f"{start}: {found['definitions'][name]}."
            pictures.append(Picture(
                name.replace("_", "-"),
                class_pairs(
                    points, title=f"{label} of each class", label=f"{label} (logarithmic)", log=True,
                    kinds=("base open", "made"),
                ),
                caption, [("made", "generated rows"), ("base open", "test rows")],
            ))  # fmt: skip
    body += "".join(picture.html() for picture in pictures)
    shown = sorted(entries, key=lambda entry: entry["train_rows"])[:ROWS_SHOWN]
    columns = (
        "train_rows",
        "generated_rows",
        "frechet",
        "test_frechet",
        "scatter_ratio",
        "test_scatter_ratio",
    )
    body += details(
        f"Table of {len(shown)} classes",
        table(
            ["class", *(column.replace("_", " ") for column in columns)],
            [[entry["name"], *(number(entry[column], 3) for column in columns)] for entry in shown],
        ),
    )
    if found["classes_left_out"]:
        body += paragraph(f"{found['classes_left_out']:,} classes are not in the sample.", "soft")
    return Section("quality", "Quality of generated rows", body, pictures)


def _warnings(found: Figures) -> str:
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
    return listing(lines)


def pictures(figures: Figures) -> Section | None:
    """Return the rows of a few classes in a plane."""
    found = figures["projection"]
    if not found:
        return None
    caption = (
        f"Two principal components of the encoded and test rows of these classes; they hold "
        f"{100 * found['explained']:.0f} % of the variance, so rows that meet here may be far apart. Seed "
        f"{found['of_seed']}, at most 150 rows of a kind, the same axes in every panel."
    )
    legend = [("row-encoded", "encoded training rows"), ("row-generated", "generated"), ("row-test", "test")]
    picture = Picture("rows", projection(found), caption, legend)
    return Section("rows", "Rows in the plane", picture.html(), [picture])


def calibration(figures: Figures) -> Section | None:
    """Return calibration: the figures of the table, and accuracy against confidence."""
    names = ("ece", "nll", "brier")
    rows = figures["calibration"]
    measured = figures["measured"]
    entries = [entry for entry in measured["entries"] if entry.get("reliability")] if measured else []
    body, pictures = "", []
    if rows:
        body += table(
            ["", "ECE", "NLL (nats)", "Brier score"],
            [[row_name(row), *(spread(row[name], 4) for name in names)] for row in rows],
            "ECE: mean gap between confidence and accuracy over 15 bins. NLL and Brier score: means over the "
            "rows; lower is better in all three.",
        )
    if entries:
        pictures.append(Picture(
            "calibration", reliability(entries[:4]),
            "Accuracy against confidence in 15 bins over the test rows of all seeds; the larger the dot, the "
            "more rows. On the line, confidence is right; below it, too high.",
        ))  # fmt: skip
        body += pictures[0].html()
    return Section("calibration", "Calibration", body, pictures) if body else None


def confusion(figures: Figures) -> Section | None:
    """Return confusion matrices, or the most confused pairs of many classes."""
    measured = figures["measured"]
    entries = [entry for entry in measured["entries"] if entry["pairs"]] if measured else []
    if not entries:
        return None
    names = measured["class_names"] or [str(label) for label in range(len(measured["counts"]))]
    chosen = [entry for entry in entries if entry["adjustment"] == "none"] or entries
    body = ""
    for entry in chosen[:2]:
        title = row_name(entry)
        if len(names) <= MATRIX:
            matrix = np.asarray(entry["confusion"])
            share = 100 * matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
            body += heat(
                share.tolist(), names, f"{title}: per cent of each label's test rows, over all seeds"
            )
    for entry in chosen[:2]:
        cells = [
            [names[pair["label"]], names[pair["predicted"]], number(int(measured["counts"][pair["label"]])),
             number(int(measured["counts"][pair["predicted"]])), number(pair["share"], 1)]
            for pair in entry["pairs"]
        ]  # fmt: skip
        body += table(
            ["label", "predicted", "training rows of the label", "of the predicted", "% of the label's rows"],
            cells, f"{row_name(entry)}: most confused pairs",
        )  # fmt: skip
    return Section("confusion", "Confusion", body)


def times(figures: Figures) -> Section | None:
    """Return the seconds of each stage."""
    found = figures["times"]
    if not found:
        return None
    stages = list(dict.fromkeys(entry["stage"] for entry in found))
    rows = []
    for stage in stages:
        seconds = [entry["seconds"] for entry in found if entry["stage"] == stage]
        rows.append(
            [
                str(stage),
                str(len(seconds)),
                number(float(np.mean(seconds)), 1),
                number(float(sum(seconds)), 1),
            ]
        )
    rows.append(["all", str(len(found)), "", number(float(sum(entry["seconds"] for entry in found)), 1)])
    caption = "Seconds on the machine named below, each part when it was computed."
    return Section("times", "Times", table(["stage", "times run", "mean s", "sum s"], rows, caption))
