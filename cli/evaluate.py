"""``ldmlr evaluate``: accuracy and calibration of heads on a split of a store."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from ldmlr.errors import UsageError, counted

from .config_file import config_option
from .location import Location
from .nearest import Word
from .options import (
    device_option,
    emit,
    groups_option,
    json_option,
    ready,
    say_unmeasured,
    seed_option,
    source_options,
    source_values,
    threads_option,
)

COLUMNS = ("all", "many", "medium", "few", "balanced", "ece", "nll", "brier")


@click.command(name="evaluate")
@click.argument("store", type=Location())
@click.option(
    "--head", "heads", type=Location(), multiple=True, metavar="HEAD.safetensors",
    help="A head written by ldmlr finetune; may be given several times.",
)  # fmt: skip
@click.option(
    "--split", type=Word(["test", "val", "train"]), default="test", show_default=True,
    help="Rows to measure on; generated rows are left out.",
)  # fmt: skip
@click.option(
    "--tau", type=click.FloatRange(min=0), default=1.0, show_default=True,
    help="Label shift of the store's own head: logits - tau * log prior.",
)  # fmt: skip
@source_options
@groups_option
@click.option("--per-class", is_flag=True, help="Also the accuracy of every class.")
@click.option(
    "--confusion", is_flag=True,
    help="Also the most confused pairs of classes; with --json or --out, the whole matrix.",
)  # fmt: skip
@click.option(
    "--generated", type=Location(), default=None, metavar="FILE.h5",
    help="Also the quality of these generated rows, beside the encoded rows of STORE.",
)  # fmt: skip
@click.option(
    "--sample", type=click.IntRange(min=10), default=6000, show_default=True, metavar="ROWS",
    help="With --generated: compare at most so many rows of each kind.",
)  # fmt: skip
@seed_option
@click.option("--out", type=Location(), default=None, help="Folder for result.json.")
@device_option
@threads_option
@json_option
@config_option
def command(
    store: Path,
    heads: tuple[Path, ...],
    split: str,
    tau: float,
    groups: str,
    per_class: bool,
    confusion: bool,
    generated: Path | None,
    sample: int,
    seed: int,
    out: Path | None,
    device: str,
    threads: int | None,
    as_json: bool,
    **values: Any,
) -> None:
    """Accuracy of heads: all, many, medium, few and per class, and calibration.

    Measures the head stored in STORE and those given with --head, each as it is and with label shift.
    Accuracies are per cent, a group's is the mean over its classes. ECE has 15 bins; NLL is in nats.

    With --generated, generated rows are compared with the encoded training rows of their classes: distance
    (Frechet), width, precision, recall, density, coverage and nearness to single training rows (are they
    copies?). Test rows, measured in the same way, are the yardstick. --seed is that of the sample.

    \b
    Examples:
      ldmlr evaluate features.h5
      ldmlr evaluate features.h5 --head runs/head.safetensors --per-class
      ldmlr evaluate features.h5 --generated pseudo.h5
      ldmlr evaluate features.h5 --confusion --out runs/evaluation
    """
    from ldmlr import results
    from ldmlr.device import resolve_device, set_threads
    from ldmlr.files import make_folder
    from ldmlr.groups import parse_groups
    from ldmlr.heads.evaluation import Measured, evaluate_store, group_sizes
    from ldmlr.heads.headfile import LAST_EPOCH, FinetunedHead
    from ldmlr.metrics.generated_store import store_quality
    from ldmlr.store import FeatureStore
    from ldmlr.store.heldout import untested

    shot_groups = parse_groups(groups)
    if out is not None:
        results.check_result(out, "evaluate")
    place = resolve_device(device)
    used = set_threads(threads)
    rows_of = ready(store, out, values).open()
    names_of = _names(heads)
    loaded = [(str(path), FinetunedHead.load(path)) for path in heads]
    measured: list[tuple[str, Measured]] = []
    if generated is not None and rows_of.head is None and not loaded:
        counts = rows_of.split("train").encoded_counts
    else:
        measured, counts = evaluate_store(
            rows_of, loaded, split=split, groups=shot_groups, tau=tau, device=str(place), confusion=confusion
        )
    quality = None
    if generated is not None:
        quality = store_quality(rows_of, FeatureStore.open(generated), sample=sample, seed=seed)
    rows: list[dict[str, Any]] = []
    for name, entry in measured:
        row = results.accuracy_rows([[entry.entry]])[0] | {"head": name, "name": names_of.get(name, name)}
        if per_class:
            row["per_class"] = results.shares(entry.per_class)
        if entry.confusion is not None:
            row["confusion"], row["reliability"] = entry.confusion.tolist(), entry.reliability
        rows.append(row)
    resolved = {
        "store": store, **source_values(values), "heads": list(heads), "split": split, "tau": tau,
        "groups": groups,
        "generated": generated, "sample": sample, "seed": seed, "device": str(place), "threads": used,
    }  # fmt: skip
    result = results.document(
        "evaluate", resolved, rows=rows, groups=group_sizes(counts, shot_groups), counts=counts,
        class_names=rows_of.class_names,
        selection={name: tuned.selection for name, tuned in loaded},
        **({} if quality is None else {"generated_quality": quality}),
    )  # fmt: skip
    if measured:
        result["unmeasured"] = list(untested(rows_of, split))
        say_unmeasured(store, result)
    if out is not None:
        make_folder(out)
        results.write_result(out, result)
    warnings = [f"{name}: {tuned.selection}\n" for name, tuned in loaded if tuned.selection != LAST_EPOCH]
    text = "".join(warnings) + (_table(rows) if rows else "")
    names = rows_of.class_names or tuple(str(index) for index in range(len(counts)))
    if confusion:
        text += "".join(
            f"\n\n{_pair_table(row, entry.confusion, names)}"
            for row, (_, entry) in zip(rows, measured, strict=True)
        )
    if quality is not None:
        text = "\n\n".join(filter(None, [text, _quality_table(quality)]))
    if per_class and rows:
        text += "\n\n" + _class_table(rows, names, counts.tolist())
    emit(result, as_json, text)


def _names(heads: Sequence[Path]) -> dict[str, str]:
    """Return a name for each head: of its path, as many last parts as tell it from the others.

    Raises
    ------
    UsageError
        A head is given twice.
    """
    full = [path.resolve().with_suffix("") for path in heads]
    found = {}
    for path, own in zip(heads, full, strict=True):
        others = [other for other in full if other != own]
        if len(others) != len(full) - 1:
            raise UsageError(f"--head {path}: is given twice; leave one out")
        sizes = range(1, len(own.parts))
        # `stored` is the head of the store.
        taken = {("stored",), *(other.parts[-size:] for other in others for size in sizes)}
        size = next((size for size in sizes if own.parts[-size:] not in taken), len(own.parts))
        found[str(path)] = "/".join(own.parts[-size:])
    return found


def _title(row: dict[str, Any]) -> str:
    return str(row["name"]) if row["adjustment"] == "none" else f"{row['name']} + {row['adjustment']}"


def _table(rows: Sequence[dict[str, Any]]) -> str:
    from ldmlr.text import table

    body = []
    for row in rows:
        cells = [_title(row)]
        for column in COLUMNS:
            entry = row[column]
            digits = 4 if column in ("ece", "nll", "brier") else 2
            cells.append("-" if entry is None else f"{entry['mean']:.{digits}f}")
        body.append(cells)
    return table(["top-1 %", *COLUMNS], body)


def _class_table(rows: Sequence[dict[str, Any]], names: Sequence[str], counts: Sequence[int]) -> str:
    from ldmlr.text import table

    body = []
    for index, (name, count) in enumerate(zip(names, counts, strict=True)):
        shares = [row["per_class"][index] for row in rows]
        body.append([name, str(count), *("-" if share is None else f"{share:.2f}" for share in shares)])
    return table(["class", "train rows", *map(_title, rows)], body)


def _pair_table(row: dict[str, Any], confusion: Any, names: Sequence[str]) -> str:
    from ldmlr.metrics.accuracy import confused_pairs
    from ldmlr.text import table

    body = [
        [names[int(pair["label"])], names[int(pair["predicted"])], str(pair["rows"]), f"{pair['share']:.1f}"]
        for pair in confused_pairs(confusion)
    ]
    return table([f"{_title(row)}: label", "predicted", "rows", "% of the label"], body)


def _quality_table(quality: dict[str, Any]) -> str:
    from ldmlr.metrics.generated_store import quality_lines
    from ldmlr.text import table

    sampled, rows = quality["sampled"], quality["rows"]
    body = [
        [name, *("-" if value is None else f"{value:.3f}" for value in values)]
        for name, *values in quality_lines(quality)
    ]
    return (
        f"{sampled['generated']} of {counted(rows['generated'], 'generated row')} beside "
        f"{sampled['encoded']} training rows; the yardstick are {counted(sampled['test'], 'test row')}\n\n"
        + table(["quality", "generated", "test rows"], body)
    )
