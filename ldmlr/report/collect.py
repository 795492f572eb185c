"""Collecting: from a run to the figures of its page, and what is missing for the rest."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ldmlr.errors import LdmlrError
from ldmlr.experiments.verdict import run_verdict
from ldmlr.groups import GROUPS, parse_groups
from ldmlr.heads.evaluation import measure, plain_variants, tuned_variants
from ldmlr.heads.headfile import FinetunedHead
from ldmlr.metrics.accuracy import confused_pairs
from ldmlr.metrics.generated_store import store_quality
from ldmlr.progress import track
from ldmlr.report.answer import answer
from ldmlr.report.config import ReportConfig
from ldmlr.report.learned import held_out
from ldmlr.report.projection import project
from ldmlr.report.training import losses
from ldmlr.report.words import row_name
from ldmlr.results import shares, spread
from ldmlr.run.opened import OpenedRun
from ldmlr.store import FeatureStore

# A confusion matrix of more classes is not kept: it would take 100 MB and nobody could read it.
MOST_CLASSES = 2000
# Figures measured again may differ from the saved ones by rounding on another device, in points.
SAME = 0.05
# What a document may raise that another version or a hand wrote: it may hold anything.
MISSHAPEN = (KeyError, TypeError, ValueError, IndexError, AttributeError, ArithmeticError)
Figures = dict[str, Any]


class Missing(Exception):
    """A section has no data: why, and what gives it."""

    def __init__(self, why: str, command: str) -> None:
        super().__init__(why)
        self.why, self.command = why, command


def collect(run: OpenedRun, config: ReportConfig) -> tuple[Figures, list[dict[str, str]]]:
    """Return the figures of a page, and per section without data why and which command gives it.

    A file that is gone or damaged costs its own section only.
    """
    figures: Figures = {"rows": run.document.get("rows", []), "groups": run.document.get("groups")}
    missing: list[dict[str, str]] = []
    if not isinstance(figures["rows"], list):
        figures["rows"] = []
    parts: list[tuple[str, Callable[[OpenedRun, ReportConfig, Figures], Any]]] = [
        ("answer", _answer), ("measured", _measured), ("classes", _classes), ("training", _training),
        ("learned", _learned), ("quality", _quality), ("projection", _projection),
        ("calibration", _calibration), ("choice", _choice), ("times", _times), ("verdict", _verdict),
    ]  # fmt: skip
    for name, part in track(parts, "report", unit="part"):
        try:
            figures[name] = part(run, config, figures)
        except Missing as gone:
            figures[name] = None
            missing.append({"section": name, "why": gone.why, "command": gone.command})
        except LdmlrError as error:
            figures[name] = None
            missing.append({"section": name, "why": error.on_command_line(), "command": _again(run)})
        except MISSHAPEN as error:
            figures[name] = None
            why = f"{run.path} is not as this version writes it ({type(error).__name__}: {error})"
            missing.append({"section": name, "why": why, "command": _again(run)})
    return figures, missing


def _again(run: OpenedRun) -> str:
    """Return the command that makes a run with everything in it."""
    line = run.document.get("command_line")
    if run.command == "run" and isinstance(line, str):
        return line
    source = run.config.get("source") or run.config.get("store") or "SOURCE"
    return f"ldmlr run {source} --out {run.folder}"


def _answer(run: OpenedRun, config: ReportConfig, figures: Figures) -> Figures | None:
    """Return what to use, the file of its head and what the figures were measured on; None where unsaid."""
    return answer(run) or None


def _measured(run: OpenedRun, config: ReportConfig, figures: Figures) -> Figures:
    """Return calibration and confusion of the heads on the test rows, summed over the seeds."""
    if run.command == "evaluate":
        return _evaluated(run)
    heads = run.heads()
    if not heads:
        raise Missing("no head files beside the result", "ldmlr finetune, or ldmlr run")
    entries: list[Figures] = []
    counts, names, note = np.zeros(0, np.int64), None, ""
    method = _made_by(run)
    rows = 0
    seeds: list[int] = []
    for seed, path in heads:
        place = run.store_of(seed)
        if place is None:
            raise Missing("the store of encoded rows is not where it was", _again(run))
        tuned = FinetunedHead.load(path)
        store = FeatureStore.open(place)
        if store.test is None:
            raise Missing(
                "without a test split no rows are left that the saved head has not seen",
                "a source with a test split",
            )
        keep = store.num_classes <= MOST_CLASSES
        found = measure(
            [*plain_variants("baseline", tuned.baseline, tuned.counts), *tuned_variants(tuned, method)],
            store.split("test"), tuned.counts, parse_groups(str(run.config.get("groups", "100,20"))),
            confusion=keep,
        )  # fmt: skip
        counts, names, rows = tuned.counts, store.class_names, len(store.split("test"))
        for number, entry in enumerate(found):
            if len(entries) <= number:
                entries.append(
                    {
                        "method": entry.variant.method,
                        "adjustment": entry.variant.adjustment,
                        "reliability": entry.reliability,
                        "confusion": entry.confusion,
                        "per_class": [],
                    }
                )
            else:
                together = entries[number]
                together["reliability"] = _merged(together["reliability"], entry.reliability)
                if keep:
                    together["confusion"] = together["confusion"] + entry.confusion
            entries[number]["per_class"].append(entry.per_class)
            if _differs(run, seed, entry.figures["all"], entries[number]):
                note = (
                    f"Measured again, the heads give other figures than {run.path.name}: the store or a "
                    "head has changed since. Calibration and confusion are those of today's files."
                )
        seeds.append(seed)
    for together in entries:
        mean = np.mean(together["per_class"], axis=0)
        together["per_class"] = shares(mean)
        matrix = together["confusion"]
        together["pairs"] = [] if matrix is None else confused_pairs(matrix)
    return {
        "entries": entries, "counts": counts, "class_names": names, "test_rows": rows, "seeds": seeds,
        "note": note,
    }  # fmt: skip


def _made_by(run: OpenedRun) -> str | None:
    """Return what the result calls the rows of its heads, as a head file does not know the generator."""
    rows = run.document.get("rows", [])
    methods = {row.get("method") for row in rows if isinstance(row, dict)} - {"baseline"}
    auto = run.document.get("auto")
    if len(methods) > 1 and isinstance(auto, dict):
        methods.discard(auto.get("method"))
    name = methods.pop() if len(methods) == 1 else None
    return name if isinstance(name, str) else None


def _evaluated(run: OpenedRun) -> Figures:
    """Return what ``ldmlr evaluate`` put into its document."""
    rows = [row for row in run.document.get("rows", []) if isinstance(row, dict) and "confusion" in row]
    if not rows:
        raise Missing("the result has no confusion matrices", "ldmlr evaluate STORE --confusion --out DIR")
    entries = [
        {**row, "confusion": np.asarray(row["confusion"], np.int64),
         "pairs": confused_pairs(np.asarray(row["confusion"], np.int64))}
        for row in rows
    ]  # fmt: skip
    return {
        "entries": entries, "counts": np.asarray(run.document["counts"], np.int64),
        "class_names": run.document.get("class_names"), "test_rows": int(entries[0]["confusion"].sum()),
        "seeds": [], "note": "",
    }  # fmt: skip


def _differs(run: OpenedRun, seed: int, found: float | None, entry: Figures) -> bool:
    """Tell whether an accuracy is another than the saved one of the same seed."""
    if str(run.document.get("selection", "")).startswith("best") and entry["adjustment"] != "none":
        return False  # its best epoch is its own, and the head that was kept is of the other row's
    for row in run.document.get("rows", []):
        if (row.get("method"), row.get("adjustment")) == (entry["method"], entry["adjustment"]):
            values = row["all"]["values"]
            place = run.seeds.index(seed) if len(values) == len(run.seeds) else 0
            return found is None or abs(values[place] - found) > SAME
    return False


def _merged(a: Sequence[Mapping[str, Any]], b: Sequence[Mapping[str, Any]]) -> list[Figures]:
    """Return the reliability bins of two sets of rows together."""
    together = []
    for one, other in zip(a, b, strict=True):
        rows = one["rows"] + other["rows"]
        mean = {
            name: sum(part["rows"] * part[name] for part in (one, other) if part["rows"]) / rows
            if rows
            else None
            for name in ("confidence", "accuracy")
        }
        together.append({"rows": rows, **mean})
    return together


def _classes(run: OpenedRun, config: ReportConfig, figures: Figures) -> list[Figures]:
    """Return per class: name, group, training and generated rows, accuracy of every row of the table."""
    measured = figures["measured"]
    table = _per_class_rows(run)
    if measured is not None:
        counts, names = np.asarray(measured["counts"]), measured["class_names"]
    elif run.command == "evaluate" and "counts" in run.document:
        counts, names = np.asarray(run.document["counts"], np.int64), run.document.get("class_names")
    else:
        counts, names = _counts(run)
    if not table and measured is not None:
        table = {_key(entry): entry["per_class"] for entry in measured["entries"]}
    if not table:
        raise Missing("the result has no accuracy per class", "ldmlr evaluate STORE --per-class --out DIR")
    drawn = next((step["figures"].get("per_class") for step in run.steps("generate")), None)
    masks = parse_groups(str(run.config.get("groups", "100,20"))).masks(counts)
    return [
        {
            "class": label, "name": names[label] if names else str(label),
            "group": next(group for group in GROUPS if masks[group][label]),
            "train_rows": int(counts[label]), "generated_rows": None if drawn is None else int(drawn[label]),
            "accuracy": {name: shares[label] for name, shares in table.items()},
        }
        for label in range(len(counts))
    ]  # fmt: skip


def _counts(run: OpenedRun) -> tuple[np.ndarray[Any, Any], tuple[str, ...] | None]:
    """Return the encoded training rows per class, and the names, of the store of the first seed."""
    place = run.store_of(run.seeds[0]) if run.seeds else None
    if place is None:
        raise Missing("neither heads nor class counts are beside the result", "ldmlr run")
    store = FeatureStore.open(place)
    return store.split("train").encoded_counts, store.class_names


def _per_class_rows(run: OpenedRun) -> dict[str, list[float | None]]:
    """Return the accuracy per class of each row of the table, mean over the seeds."""
    if run.command == "evaluate":
        rows = run.document.get("rows", [])
        return {_key(row): row["per_class"] for row in rows if "per_class" in row}
    found: dict[str, list[list[float]]] = {}
    for measured in run.measured():
        for entry in measured:
            shares = [np.nan if share is None else share for share in entry["per_class"]]
            found.setdefault(_key(entry), []).append(shares)
    means = {name: np.mean(runs, axis=0) for name, runs in found.items()}
    return {name: [None if x != x else float(x) for x in mean] for name, mean in means.items()}


def _key(row: Mapping[str, Any]) -> str:
    """Return the name of a row, as in the tables of the command line."""
    plain = row_name({**row, "adjustment": "none"})
    return plain if row["adjustment"] == "none" else f"{plain} + {row['adjustment']}"


def _training(run: OpenedRun, config: ReportConfig, figures: Figures) -> Figures:
    found: Figures = dict(losses(run))
    if not found:
        raise Missing("no training logs beside the result", "ldmlr run (or baseline, diffuse, finetune)")
    return found


def _learned(run: OpenedRun, config: ReportConfig, figures: Figures) -> list[Figures] | None:
    """Return what the diffusion model learned beyond the class Gaussian; None where it was not asked."""
    return held_out(run) or None


def _pair(run: OpenedRun) -> tuple[int, Path, Path]:
    """Return the first seed whose encoded and generated rows are there, and both stores."""
    for seed in run.seeds or [0]:
        encoded, drawn = run.store_of(seed), run.pseudo_of(seed)
        if encoded is not None and drawn is not None:
            # A result without --pseudo has the generated rows of the store, if it has any.
            if drawn == encoded and FeatureStore.open(encoded).split("train").source is None:
                raise Missing(
                    "nothing was generated", "ldmlr finetune STORE --pseudo pseudo.h5, or ldmlr run"
                )
            return seed, encoded, drawn
    raise Missing(
        "encoded and generated rows are not both beside the result",
        "ldmlr evaluate STORE --generated pseudo.h5, or ldmlr run",
    )


def _quality(run: OpenedRun, config: ReportConfig, figures: Figures) -> Figures:
    saved = run.document.get("generated_quality")
    if isinstance(saved, dict):
        return saved
    seed, encoded, drawn = _pair(run)
    stores = FeatureStore.open(encoded), FeatureStore.open(drawn)
    return {"of_seed": seed, **store_quality(*stores, sample=config.sample, seed=config.seed)}


def _projection(run: OpenedRun, config: ReportConfig, figures: Figures) -> Figures:
    seed, encoded, drawn = _pair(run)
    if figures["quality"] is None:
        raise Missing("the rows cannot be compared", "ldmlr evaluate STORE --generated pseudo.h5")
    found = project(FeatureStore.open(encoded), FeatureStore.open(drawn), seed=config.seed)
    return {"of_seed": seed, **found}


def _calibration(run: OpenedRun, config: ReportConfig, figures: Figures) -> list[Figures] | None:
    """Return ECE, NLL and Brier score over the seeds: of the result's rows, or of the steps of a run."""
    names = ("ece", "nll", "brier")
    rows = [row for row in figures["rows"] if isinstance(row, dict) and all(row.get(name) for name in names)]
    if rows:
        kept = ("head", "name", "method", "setting", "adjustment", *names)
        return [{key: row[key] for key in kept if key in row} for row in rows]
    runs = run.measured()
    return [
        {
            "method": entries[0]["method"],
            "adjustment": entries[0]["adjustment"],
            **{name: spread([entry["figures"].get(name) for entry in entries]) for name in names},
        }
        for entries in zip(*runs, strict=True)
    ] or None


def _choice(run: OpenedRun, config: ReportConfig, figures: Figures) -> Any:
    """Return the settings that the run chose on validation rows, with the evidence; None without any."""
    found = run.document.get("choice")
    return found if isinstance(found, dict) else None


def _times(run: OpenedRun, config: ReportConfig, figures: Figures) -> list[Figures]:
    found = [
        {"stage": step.get("stage"), "seed": step.get("seed"), "seconds": step.get("seconds")}
        for step in run.document.get("steps") or []
        if isinstance(step, dict) and isinstance(step.get("seconds"), int | float)
    ]
    seconds = run.document.get("seconds")
    if not found and isinstance(seconds, int | float):
        found = [{"stage": run.command, "seed": None, "seconds": seconds}]
    if not found:
        raise Missing("the result has no times", "ldmlr run")
    return found


def _verdict(run: OpenedRun, config: ReportConfig, figures: Figures) -> Figures | None:
    # Where the rows of the test split were at hand, the verdict is written with the figures.
    for name in ("comparison", "verdict"):
        saved = run.document.get(name)
        if isinstance(saved, dict) and isinstance(saved.get("lines"), list):
            return saved
    measured = figures["measured"]
    found = run_verdict(run.document, measured["test_rows"] if measured else None)
    if found is None:
        raise Missing("the result has no single row with generation beside a baseline", "ldmlr run")
    return found
