"""The sections of a run: figures in, blocks of words, tables and pictures out. None without figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from ldmlr.errors import counted
from ldmlr.report import alternatives as alt
from ldmlr.report import figures as draw
from ldmlr.report.blocks import Block, Bullets, Folded, Heat, Judgement, Section, Table, Words
from ldmlr.report.picture import Picture
from ldmlr.report.training import STAGES
from ldmlr.report.words import number, row_name, spread
from ldmlr.results import BALANCED, accuracy_columns, judged_by

Figures = Mapping[str, Any]
# Longest table of classes on the page; --json has all of them.
ROWS_SHOWN = 200
# Largest confusion matrix shown in full.
MATRIX = 20


def verdict(figures: Figures) -> Section | None:
    """Return the verdict in words."""
    found = figures["verdict"]
    if not found:
        return None
    changed = (figures["measured"] or {}).get("note")
    return Section("verdict", "Verdict", [
        Judgement(
            str(found.get("headline", "")), [str(line) for line in found["lines"]],
            str(found.get("outcome", "")).split(" ")[0],
        ),
        Bullets([str(note) for note in (changed, found.get("rule"), *found.get("notes", [])) if note], True),
    ])  # fmt: skip


def accuracy(figures: Figures) -> Section | None:
    """Return the accuracy table and its picture."""
    rows = figures["rows"]
    if not is_accuracy(rows):
        return None
    groups = figures["groups"] or {}
    shown = [name for name in accuracy_columns(rows) if any(row.get(name) for row in rows)]
    if not shown:
        return None
    heads = [
        f"{name} ({groups[name]} class{'' if groups[name] == 1 else 'es'})" if name in groups else name
        for name in shown
    ]
    return Section("accuracy", "Accuracy", [
        Table(
            ["top-1 %", *heads],
            [[row_name(row), *(spread(row.get(name)) for name in shown)] for row in rows],
            _seeds_caption(rows),
        ),
        Picture(
            "accuracy", alt.accuracy(rows, shown),
            "The same figures: dots are means, bars one standard deviation to either side. Every panel has "
            "its own scale.",
            partial(draw.group_dots, rows, shown),
        ),
    ])  # fmt: skip


def is_accuracy(rows: Any) -> bool:
    """Tell whether rows are those of an accuracy table."""
    return (
        isinstance(rows, list)
        and bool(rows)
        and all(isinstance(row, dict) and "all" in row and ("method" in row or "head" in row) for row in rows)
        and all(_is_entry(row.get(name)) for row in rows for name in accuracy_columns(rows))
    )


def _is_entry(entry: Any) -> bool:
    """Tell whether an entry is mean, deviation and values, or null."""
    if entry is None:
        return True
    numbers = isinstance(entry, dict) and all(isinstance(entry.get(k), int | float) for k in ("mean", "std"))
    return numbers and isinstance(entry.get("values"), list) and bool(entry["values"])


def _seeds_caption(rows: Sequence[Figures]) -> str:
    many = max(len(row["all"]["values"]) for row in rows if row.get("all"))
    seeds = (
        "One seed, so there is no standard deviation" if many < 2
        else f"Mean ± standard deviation over {counted(many, 'seed')}"
    )  # fmt: skip
    judged = (
        " Rows are compared by the balanced accuracy, in which all classes weigh alike."
        if judged_by(rows) == BALANCED else ""
    )  # fmt: skip
    return f"{seeds}. A group's figure is the mean over its classes.{judged}"


def classes(figures: Figures) -> Section | None:
    """Return accuracy per class against training rows."""
    found = figures["classes"]
    if not found:
        return None
    methods = list(found[0]["accuracy"])
    blocks: list[Block] = []
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
        names = tuple(f"{name}{words}" for name in plain)
        blocks.append(Picture(
            "classes-label-shift" if shift else "classes",
            alt.pairs(points, f"Top-1 accuracy of each class{words}", names),
            f"Accuracy of every class{words}, mean over the seeds; a line joins the two figures of a class."
            f"{_thinned(len(points))}",
            partial(draw.class_pairs, points, tuple(zip(kinds, names, strict=True)), "top-1 %", False),
        ))  # fmt: skip
    order = sorted(found, key=lambda entry: entry["train_rows"])
    shown = order[:ROWS_SHOWN]
    cells = [
        [entry["name"], entry["group"], number(entry["train_rows"]),
         *(number(entry["accuracy"][name]) for name in methods)]
        for entry in shown
    ]  # fmt: skip
    caption = "Fewest training rows first."
    if len(shown) < len(order):
        caption = (
            f"The {counted(len(shown), 'class')} with the fewest training rows; ldmlr report --json "
            "prints all."
        )
    table = Table(["class", "group", "training rows", *methods], cells, caption)
    blocks.append(Folded(f"Table of {counted(len(shown), 'class')}", [table]))
    return Section("classes", "Accuracy per class", blocks)


def _thinned(classes: int) -> str:
    return f" {draw.DRAWN} of the {counted(classes, 'class')} are drawn." if classes > draw.DRAWN else ""


def plan(figures: Figures) -> Section | None:
    """Return natural and generated rows per class."""
    found = figures["classes"]
    if not found or found[0]["generated_rows"] is None:
        return None
    natural, made = (sum(entry[name] for entry in found) for name in ("train_rows", "generated_rows"))
    return Section("plan", "Plan of generation", [
        Words(f"{natural:,} natural and {counted(made, 'generated row')} in "
              f"{counted(len(found), 'class')} (first seed)."),
        Picture(
            "plan", alt.plan(found),
            "Bars are stacked and the axis is logarithmic: heights tell rows, areas do not."
            f"{_thinned(len(found))}",
            partial(draw.plan_bars, found),
        ),
    ])  # fmt: skip


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
    picture = Picture("training", alt.training(panels), caption, partial(draw.curves, panels))
    return Section("training", "Training", [picture])


def rows(figures: Figures) -> Section | None:
    """Return the rows of a few classes in a plane."""
    found = figures["projection"]
    if not found:
        return None
    caption = (
        f"Two principal components of the encoded and test rows of these classes; they hold "
        f"{100 * found['explained']:.0f} % of the variance, so rows that meet here may be far apart. Seed "
        f"{found['of_seed']}, at most 150 rows of a kind, the same axes in every panel."
    )
    panels = found["classes"]
    picture = Picture("rows", alt.plane(panels), caption, partial(draw.projection, panels))
    return Section("rows", "Rows in the plane", [picture])


def calibration(figures: Figures) -> Section | None:
    """Return calibration: the figures of the table, and accuracy against confidence."""
    names = ("ece", "nll", "brier")
    found = figures["calibration"]
    measured = figures["measured"]
    entries = [entry for entry in measured["entries"] if entry.get("reliability")] if measured else []
    blocks: list[Block] = []
    if found:
        blocks.append(Table(
            ["", "ECE", "NLL (nats)", "Brier score"],
            [[row_name(row), *(spread(row[name], 4) for name in names)] for row in found],
            "ECE: mean gap between confidence and accuracy over 15 bins. NLL and Brier score: means over the "
            "rows; lower is better in all three.",
        ))  # fmt: skip
    if entries:
        blocks.append(Picture(
            "calibration", alt.reliability(entries[:4]),
            "Accuracy against confidence in 15 bins over the test rows of all seeds; the larger the dot, the "
            "more rows. On the line, confidence is right; below it, too high.",
            partial(draw.reliability, entries[:4]),
        ))  # fmt: skip
    return Section("calibration", "Calibration", blocks) if blocks else None


def confusion(figures: Figures) -> Section | None:
    """Return confusion matrices, or the most confused pairs of many classes."""
    measured = figures["measured"]
    entries = [entry for entry in measured["entries"] if entry["pairs"]] if measured else []
    if not entries:
        return None
    names = measured["class_names"] or [str(label) for label in range(len(measured["counts"]))]
    chosen = ([entry for entry in entries if entry["adjustment"] == "none"] or entries)[:2]
    blocks: list[Block] = []
    for entry in chosen if len(names) <= MATRIX else ():
        matrix = np.asarray(entry["confusion"])
        share = 100 * matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
        caption = f"{row_name(entry)}: per cent of each label's test rows, over all seeds"
        blocks.append(Heat(names, share.tolist(), caption))
    for entry in chosen:
        cells = [
            [names[pair["label"]], names[pair["predicted"]], number(int(measured["counts"][pair["label"]])),
             number(int(measured["counts"][pair["predicted"]])), number(pair["share"], 1)]
            for pair in entry["pairs"]
        ]  # fmt: skip
        blocks.append(Table(
            ["label", "predicted", "training rows of the label", "of the predicted", "% of the label's rows"],
            cells, f"{row_name(entry)}: most confused pairs",
        ))  # fmt: skip
    return Section("confusion", "Confusion", blocks)


def times(figures: Figures) -> Section | None:
    """Return the seconds of each stage."""
    found = figures["times"]
    if not found:
        return None
    cells = []
    for stage in dict.fromkeys(entry["stage"] for entry in found):
        seconds = [entry["seconds"] for entry in found if entry["stage"] == stage]
        mean, total = float(np.mean(seconds)), float(sum(seconds))
        cells.append([str(stage), str(len(seconds)), number(mean, 1), number(total, 1)])
    everything = float(sum(entry["seconds"] for entry in found))
    cells.append(["all", str(len(found)), "", number(everything, 1)])
    caption = "Seconds on the machine named below, each part when it was computed."
    return Section("times", "Times", [Table(["stage", "times run", "mean s", "sum s"], cells, caption)])
