"""``ldmlr evaluate``: accuracy and calibration of heads on a split of a store."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from .options import (
    config_option,
    device_option,
    emit,
    groups_option,
    json_option,
    threads_option,
)

COLUMNS = ("all", "many", "medium", "few", "balanced", "ece", "nll", "brier")


@click.command(name="evaluate")
@click.argument("store", type=click.Path(path_type=Path))
@click.option(
    "--head", "heads", type=click.Path(path_type=Path), multiple=True, metavar="HEAD.safetensors",
    help="A head written by ldmlr finetune; may be given several times.",
)  # fmt: skip
@click.option(
    "--split", type=click.Choice(["test", "val", "train"]), default="test", show_default=True,
    help="Rows to measure on; generated rows are left out.",
)  # fmt: skip
@click.option(
    "--tau", type=click.FloatRange(min=0), default=1.0, show_default=True,
    help="Label shift of the store's own head: logits - tau * log prior.",
)  # fmt: skip
@groups_option
@click.option("--per-class", is_flag=True, help="Also the accuracy of every class.")
@click.option("--out", type=click.Path(path_type=Path), default=None, help="Folder for result.json.")
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
    out: Path | None,
    device: str,
    threads: int | None,
    as_json: bool,
) -> None:
    """Accuracy of heads: all, many, medium, few and per class, and calibration.

    Measures the head stored in STORE and those given with --head, each as it is and with label shift.
    Accuracies are per cent, a group's is the mean over its classes. ECE has 15 bins; NLL is in nats.

    \b
    Examples:
      ldmlr evaluate features.h5
      ldmlr evaluate features.h5 --head runs/heads/head-seed0.safetensors --per-class
    """
    from ldmlr import results
    from ldmlr.device import resolve_device, set_threads
    from ldmlr.files import check_output, make_folder
    from ldmlr.groups import parse_groups
    from ldmlr.heads.evaluation import evaluate_store, group_sizes, result_rows
    from ldmlr.heads.finetune import LAST_EPOCH, FinetunedHead
    from ldmlr.store import FeatureStore

    shot_groups = parse_groups(groups)
    if out is not None:
        check_output(out / "result.json", overwrite=True)
    place = resolve_device(device)
    used = set_threads(threads)
    rows_of = FeatureStore.open(store)
    loaded = [(str(path), FinetunedHead.load(path)) for path in heads]
    measured, counts = evaluate_store(
        rows_of, loaded, split=split, groups=shot_groups, tau=tau, device=str(place)
    )
    rows: list[dict[str, Any]] = []
    for name, entry in measured:
        row = result_rows([[entry]])[0] | {"head": name}
        if per_class:
            row["per_class"] = [None if share != share else float(share) for share in entry.per_class]
        rows.append(row)
    resolved = {
        "store": store, "heads": list(heads), "split": split, "tau": tau, "groups": groups,
        "device": str(place), "threads": used,
    }  # fmt: skip
    result = results.document(
        "evaluate", resolved, rows=rows, groups=group_sizes(counts, shot_groups), counts=counts,
        class_names=rows_of.class_names,
        selection={name: tuned.selection for name, tuned in loaded},
    )  # fmt: skip
    if out is not None:
        make_folder(out)
        results.write_result(out, result)
    warnings = [f"{name}: {tuned.selection}\n" for name, tuned in loaded if tuned.selection != LAST_EPOCH]
    text = "".join(warnings) + _table(rows)
    if per_class:
        names = rows_of.class_names or tuple(str(index) for index in range(len(counts)))
        text += "\n\n" + _class_table(rows, names, counts.tolist())
    emit(result, as_json, text)


def _title(row: dict[str, Any]) -> str:
    head = row["head"] if row["head"] == "stored" else Path(row["head"]).stem
    return str(head) if row["adjustment"] == "none" else f"{head} + {row['adjustment']}"


def _table(rows: Sequence[dict[str, Any]]) -> str:
    from ldmlr.tables import table

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
    from ldmlr.tables import table

    body = []
    for index, (name, count) in enumerate(zip(names, counts, strict=True)):
        shares = [row["per_class"][index] for row in rows]
        body.append([name, str(count), *("-" if share is None else f"{share:.2f}" for share in shares)])
    return table(["class", "train rows", *map(_title, rows)], body)
