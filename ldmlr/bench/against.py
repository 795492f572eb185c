"""A benchmark beside an earlier run of it: the ratio of every figure that both have."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from ldmlr.bench.parts import Row
from ldmlr.errors import InputError, LdmlrError, opt
from ldmlr.files import check_input, parse_json
from ldmlr.text import table

# What makes two rows the same measurement, and the speed they are compared by: the first that a row has.
IDENTITY = (
    "part", "what", "backend", "isa", "dtype", "dim", "hidden", "layers", "steps", "guidance", "batch",
    "classes", "rows", "stores", "threads",
)  # fmt: skip
SPEEDS = ("rows_per_s", "steps_per_s", "mb_per_s", "stores_per_s")


def read_rows(path: Path) -> list[Row]:
    """Return the rows of the result document of an earlier run.

    Raises
    ------
    InputError
        The file is missing or no such document.
    """
    check_input(path, "result of ldmlr bench")
    try:
        document = parse_json(path.read_text(encoding="utf-8"))
        if document["command"] != "bench":
            raise ValueError("another command's result")
        # Before there were parts, there was one.
        return [{"part": "sample", **dict(row)} for row in document["rows"]]
    except (OSError, ValueError, LookupError, TypeError):
        raise InputError(
            f"{path}: not the result of ldmlr bench; give the result.json that its --out or --json wrote"
        ) from None


def compare(earlier: list[Row], rows: list[Row]) -> list[dict[str, Any]]:
    """Return the speed of every row, that of the earlier run and their ratio.

    None stands where the earlier run has no such row; of several such rows the median counts.
    """
    before: dict[tuple[Any, ...], list[float]] = {}
    for row in earlier:
        if _speed(row) is not None:
            before.setdefault(_identity(row), []).append(float(_speed(row)))
    found = []
    for row in rows:
        speeds, now = before.get(_identity(row)), _speed(row)
        then = statistics.median(speeds) if speeds else None
        found.append({
            "part": row["part"], "what": _name(row), "before": then, "now": now,
            "ratio": now / then if then and now is not None else None,
        })  # fmt: skip
    return found


def refuse_losses(compared: list[dict[str, Any]], max_loss: float, where: Path) -> None:
    """Raise `LdmlrError` where a figure lost more than a share of its speed, or nothing could be compared."""
    known = [entry for entry in compared if entry["ratio"] is not None]
    if not known:
        raise LdmlrError(
            f"{where}: none of its figures was measured now, with this processor, threads and options; "
            "compare runs of the same command on the same machine"
        )
    lost = [entry for entry in known if entry["ratio"] < 1 - max_loss]
    if lost:
        worst = min(lost, key=lambda entry: float(entry["ratio"]))
        raise LdmlrError(
            f"{len(lost)} of {len(known)} figures are more than {max_loss:.0%} slower than in {where}, the "
            f"most {worst['what']} ({worst['ratio']:.2f} of its speed); measure again on an idle machine, or "
            f"allow more with {opt('max_loss')}"
        )


def text(compared: list[dict[str, Any]]) -> str:
    """Return the comparison as a table for people."""
    body = [
        [entry["part"], entry["what"], *(_cell(entry[key], ",.4g") for key in ("before", "now")),
         _cell(entry["ratio"], ".2f") or "new"]
        for entry in compared
    ]  # fmt: skip
    return table(["part", "what", "before", "now", "ratio"], body)


def _identity(row: Row) -> tuple[Any, ...]:
    return tuple(row.get(key) for key in IDENTITY)


def _speed(row: Row) -> Any:
    return next((row[key] for key in SPEEDS if isinstance(row.get(key), int | float)), None)


def _name(row: Row) -> str:
    shape = " ".join(
        f"{letter} {row[key]}" for letter, key in (("D", "dim"), ("H", "hidden")) if row.get(key)
    )
    return ", ".join(str(word) for word in (row["what"], row.get("isa"), row.get("dtype"), shape) if word)


def _cell(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
