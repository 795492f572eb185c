"""The course of the losses of all three stages, from the files that the stages left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from ldmlr.diffusion.course import REPORT_EVERY
from ldmlr.errors import InputError
from ldmlr.files import parse_json
from ldmlr.run.opened import OpenedRun
from ldmlr.tensorfile import open_tensors

Line = list[tuple[float, float]]
STAGES = {
    "baseline": ("Stage 1: network", "epoch"),
    "diffuse": ("Stage 2: diffusion model", "step"),
    "finetune": ("Stage 3: head", "epoch"),
}


def losses(run: OpenedRun) -> dict[str, list[Line]]:
    """Return stage -> one line of (epoch or step, loss) per seed, for the stages that left a log.

    Raises
    ------
    InputError
        A log or a model file is damaged; the message names it.
    """
    found: dict[str, list[Line]] = {}
    document, folder = run.document, run.folder
    logs = [path for _, path in run.outputs("baseline", "train.jsonl")]
    if run.command == "baseline":
        logs += [path for path in (folder / "train.jsonl",) if path.is_file()]
    if logs:
        found["baseline"] = [_log(path) for path in logs]
    diffused = [_header(path) for _, path in run.outputs("diffuse", "model.safetensors")]
    courses = [_numbers(header.get("losses")) for header in diffused]
    courses += [_numbers(document.get("losses"))] if run.command == "diffuse" else []
    settings = [header.get("config", {}) for header in diffused] or [run.config]
    last = int(settings[0].get("iterations") or 0)
    if any(courses):
        found["diffuse"] = [
            [
                (float(min((place + 1) * REPORT_EVERY, last or 1 << 60)), loss)
                for place, loss in enumerate(course)
            ]
            for course in courses
        ]
    histories = [_header(path).get("history") for _, path in run.outputs("finetune", "head.safetensors")] or (
        document.get("history") if run.command == "finetune" else []
    )
    tuned = [_records(history) for history in histories or []]
    if any(tuned):
        found["finetune"] = [line for line in tuned if line]
    return {stage: [line for line in lines if line] for stage, lines in found.items() if any(lines)}


def _log(path: Path) -> Line:
    try:
        return _records([parse_json(line) for line in path.read_text(encoding="utf-8").splitlines()])
    except (ValueError, OSError):
        raise InputError(f"{path}: damaged log; run stage 1 again, or delete it") from None


def _records(history: Any) -> Line:
    """Return (epoch, loss) of records that have both."""
    entries = [entry for entry in history if isinstance(entry, dict)] if isinstance(history, list) else []
    return [
        (float(entry["epoch"]), float(entry["loss"]))
        for entry in entries
        if isinstance(entry.get("epoch"), int) and isinstance(entry.get("loss"), int | float)
    ]


def _numbers(values: Any) -> list[float]:
    return (
        [float(value) for value in values if isinstance(value, int | float)]
        if isinstance(values, list)
        else []
    )


def _header(path: Path) -> dict[str, Any]:
    """Return the JSON header of a model or head file, without its tensors."""
    try:
        with open_tensors(path, "np") as file:
            found = parse_json((file.metadata() or {}).get("ldmlr", ""))
    except (SafetensorError, OSError, ValueError):
        raise InputError(f"{path}: not a readable safetensors file of ldmlr; run this stage again") from None
    return found if isinstance(found, dict) else {}
