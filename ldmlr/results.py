"""Results: what a command computed, with everything needed to compute it again.

A result document holds figures, seeds, the resolved configuration, versions, hardware and
the path that ran. It is written as ``result.json`` in the folder of the output; for an
output that is a file, a copy ``<output>.result.json`` (the hash of a name that would be too long) stays with
it when a later command writes to the same folder. The ``result.json`` of a folder, such as that of a run, has
no copy: a file written into the folder leaves it alone, and another command refuses the folder as its own.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from ldmlr.config import plain
from ldmlr.errors import LdmlrError, UsageError
from ldmlr.files import check_output, fitting, parse_json, write_bytes, write_text
from ldmlr.invocation import command_line
from ldmlr.remote import as_path, is_remote

# What every command calls the document of its figures.
RESULT = "result.json"
GROUP_COLUMNS = ("all", "many", "medium", "few")
# Accuracy of rows, and its mean over classes: what the rows of a table are compared by (`judged_by`).
ALL, BALANCED = "all", "balanced"


def document(command: str, config: Mapping[str, Any], **figures: Any) -> dict[str, Any]:
    """Return a result document: the command, its configuration, its figures and the machine.

    On the command line ``command_line`` is what reproduces it, with every option that was given.
    """
    line = command_line()
    return {
        "command": command,
        **({} if line is None else {"command_line": line}),
        **{key: plain(value) for key, value in figures.items()},
        "config": plain(config),
        "versions": versions(),
        "hardware": hardware(),
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def write_result(output: Path, result: Mapping[str, Any]) -> Path:
    """Write the result of an output and return the path of the document.

    Inside a folder it is ``result.json``. Beside a file it is ``<output>.result.json``, and ``result.json``
    too, unless that is the only copy of another output's result.
    """
    output = as_path(output)
    text = json.dumps(plain(result), indent=2, allow_nan=False) + "\n"
    # Elsewhere an empty folder is nothing but a name; an output that is a file is there by now.
    if output.is_dir() or (is_remote(output) and not output.exists()):
        path = output / RESULT
        write_text(path, text)
        return path
    common, own = output.parent / RESULT, _own(output)
    kept = _is_only_copy(common)
    write_text(own, text)
    if kept:
        return own
    write_text(common, text)
    return common


def restore_result(output: Path, result: Mapping[str, Any]) -> None:
    """Write the result of an output that was finished before, where a kill came before it was written.

    Parameters
    ----------
    output
        A finished file.
    result
        What to write if it has no document at all; one that lacks ``result.json`` alone gets it back.
    """
    output = as_path(output)
    common, own = output.parent / RESULT, _own(output)
    if not own.exists():
        write_result(output, result)
    elif not common.exists():
        write_bytes(common, own.read_bytes())


def _own(output: Path) -> Path:
    return output.with_name(fitting(output.name, f".{RESULT}"))


def check_result(folder: Path, command: str, overwrite: bool = False) -> None:
    """Refuse a folder whose ``result.json`` is the only copy of another command's result.

    Parameters
    ----------
    folder
        Where the result is to be written, there or not.
    command
        The command that writes; its own result it may replace.
    overwrite
        Replace any result.

    Raises
    ------
    UsageError
        There is such a result.
    """
    path = check_output(as_path(folder) / RESULT, overwrite=True)
    if overwrite or not _is_only_copy(path):
        return
    try:
        found = parse_json(path.read_text(encoding="utf-8"))["command"]
    except (ValueError, KeyError, TypeError):
        return  # cut short, or no result of ours
    if found != command:
        raise UsageError(
            f"{path}: is the result of ldmlr {found}, of which there is no copy; name another folder"
        )


def source_of(folder: Path) -> str | None:
    """Return what the run in a folder was of, by its ``result.json``; None where there is none to read."""
    path = as_path(folder) / RESULT
    try:
        source = parse_json(path.read_text(encoding="utf-8"))["config"]["source"]
    except (OSError, ValueError, KeyError, TypeError, LdmlrError):
        return None
    return source if isinstance(source, str) else None


def _is_only_copy(path: Path) -> bool:
    """Tell whether a ``result.json`` is there of which no output in its folder has a copy."""
    try:
        text = path.read_bytes()
        copies = [copy for copy in path.parent.glob(f"*.{RESULT}") if copy.stat().st_size == len(text)]
        return all(copy.read_bytes() != text for copy in copies)
    except FileNotFoundError:
        return False


def accuracy_row(
    method: str, adjustment: str, runs: Sequence[Mapping[str, float | None]], **more: Any
) -> dict[str, Any]:
    """Return one row of an accuracy table: mean, standard deviation and values over seeds.

    Parameters
    ----------
    method
        ``baseline``, ``ldmlr`` or another method's name.
    adjustment
        ``none`` or ``label-shift``.
    runs
        Per seed, the accuracy in per cent for ``all``, ``many``, ``medium`` and ``few``, and what else was
        measured; None where a group has no class.
    """
    row: dict[str, Any] = {"method": method, "adjustment": adjustment, **more}
    for column in dict.fromkeys((*GROUP_COLUMNS, *runs[0])):
        row[column] = spread([run[column] for run in runs])
    return row


def accuracy_rows(runs: Sequence[Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Return an accuracy table over seeds: the one way from measurements to the ``rows`` of a document.

    Parameters
    ----------
    runs
        Per seed, an entry per row of the table in the same order: ``method``, ``adjustment``, ``tau`` (the
        strength of its label shift, 0 without one) and ``figures``, as `accuracy_row` takes them.
    """
    return [
        accuracy_row(
            entries[0]["method"], entries[0]["adjustment"], [entry["figures"] for entry in entries],
            tau=entries[0]["tau"],
        )
        for entries in zip(*runs, strict=True)
    ]  # fmt: skip


def judged_by(rows: Iterable[Mapping[str, Any]]) -> str:
    """Return the column that the rows of an accuracy table are compared by.

    ``all``, or ``balanced`` (the mean over classes), as the rows say where classes were measured on unlike
    numbers of rows: there whoever answers "the largest class" has most rows right.
    """
    return BALANCED if any(row.get("judged_by") == BALANCED for row in rows) else ALL


def fair_column(counts: Sequence[int]) -> str:
    """Return the column to compare heads by that were measured on so many rows of each class ``[C]``."""
    return ALL if len({int(count) for count in counts if count}) == 1 else BALANCED


def accuracy_columns(rows: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Return the columns that a table shows, the one its rows are compared by first."""
    return (BALANCED, *GROUP_COLUMNS) if judged_by(rows) == BALANCED else GROUP_COLUMNS


def shares(values: Iterable[float]) -> list[float | None]:
    """Return accuracies per class as JSON has them: None for a class without rows, which is NaN."""
    return [None if value != value else float(value) for value in values]


def spread(values: Sequence[float | None]) -> dict[str, Any] | None:
    """Return mean, sample standard deviation and values over seeds; None where a value is missing."""
    numbers = [float(value) for value in values if value is not None]
    if len(numbers) < len(values) or not numbers:
        return None
    # Exact sums: what is equal for all seeds has a deviation of 0, not of 1e-14, by which verdicts divide.
    deviation = statistics.stdev(numbers) if len(numbers) > 1 else 0.0
    return {"mean": statistics.mean(numbers), "std": deviation, "values": numbers}


def versions() -> dict[str, str]:
    """Return the versions of what computed the result."""
    found = {"python": platform.python_version()}
    for name in ("ldmlr", "torch", "numpy", "h5py", "scikit-learn", "imbalanced-learn", "safetensors"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def hardware() -> dict[str, Any]:
    """Return the processor, the usable cores and the CUDA devices (if torch is loaded)."""
    found: dict[str, Any] = {
        "machine": platform.machine(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
    }
    torch = sys.modules.get("torch")
    if torch is not None:
        found["threads"] = torch.get_num_threads()
        if torch.cuda.is_available():
            found["cuda"] = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return found


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor()
