"""One table of every figure: ``results/summary.csv``, a figure a line, from the results' JSON files.

    python benchmarks/summarise.py            writes it
    python benchmarks/summarise.py --check    fails unless it is current

Columns: the experiment (its name in ``experiments.toml``) and its data; what was measured: for accuracies
`method`, `setting` (what was varied), `adjustment` and `group`, for speed `what`, `backend`, `isa` (of a GPU:
the kernel), `dtype`, `dim`, `hidden` and `threads`; then `quantity`, `mean`, `std`, `seeds` and `unit`. A
column that says nothing of a figure is empty. Calibration, configuration and the seeds' values are in the
JSON files alone.
"""

from __future__ import annotations

import argparse
import csv
import io
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments import HERE, Experiment, document, load

GROUPS = ("all", "many", "medium", "few")
PLACE = (
    "experiment", "data", "method", "setting", "adjustment", "group",
    "what", "backend", "isa", "dtype", "dim", "hidden", "threads",
)  # fmt: skip
COLUMNS = (*PLACE, "quantity", "mean", "std", "seeds", "unit")
# Quantities of rows on speed, and their units.
UNITS = {
    "rows_per_s": "rows/s", "images_per_s": "images/s", "gflop_per_s": "GFLOP/s",
    "ceiling_gflop_per_s": "GFLOP/s", "gbyte_per_s": "GB/s", "fraction": "", "times": "", "ratio": "",
    "baseline_rows_per_s": "rows/s", "error": "std", "error_rms": "std", "error_half_ulps": "ulp/2",
    "milliseconds": "ms", "microseconds": "us", "seconds": "s", "peak_mb": "MB",
    "operations": "FLOP", "bytes": "bytes",
}  # fmt: skip
Row = dict[str, str]


def rows_of(experiment: Experiment, folder: Path = HERE) -> Iterator[Row]:
    """Yield the figures of an experiment, as text by column.

    Raises
    ------
    ValueError
        The file is no result document; the message names it.
    """
    for row in document(experiment, folder)["rows"]:
        try:
            kind = _accuracies if "method" in row else _cases if "case" in row else _speeds
            yield from kind(experiment, row)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{experiment.file}: not a result document ({error!r}); write it again"
            ) from None


def _accuracies(experiment: Experiment, row: Mapping[str, Any]) -> Iterator[Row]:
    place = {
        "experiment": experiment.id,
        "data": row.get("data") or _only(experiment.data),
        "method": row["method"],
        "setting": row.get("setting") or "",
        "adjustment": row["adjustment"],
    }
    # Rows that are judged by the mean over classes have that figure too.
    judged = (row["judged_by"],) if row.get("judged_by", "all") not in GROUPS else ()
    for group in (*GROUPS, *judged):
        figure = row.get(group)
        if figure is not None:
            yield {
                **place,
                "group": group,
                "quantity": "top-1",
                "mean": _text(figure["mean"]),
                "std": _text(figure["std"]),
                "seeds": str(len(figure["values"])),
                "unit": "%",
            }


def _cases(experiment: Experiment, row: Mapping[str, Any]) -> Iterator[Row]:
    figure = row["figure"]
    yield {
        "experiment": experiment.id,
        "data": _only(experiment.data),
        "setting": row["case"],
        "quantity": row["what"],
        "mean": _text(figure["mean"]),
        "std": _text(figure["std"]),
        "seeds": str(len(figure["values"]) or ""),  # none: the deviation is that over sets
    }


def _speeds(experiment: Experiment, row: Mapping[str, Any]) -> Iterator[Row]:
    place = {name: _text(row.get(name)) for name in PLACE if name in row}
    place |= {"experiment": experiment.id, "data": _only(experiment.data)}
    if row.get("slab"):  # how many rows a call to the GPU computes at a time
        place["setting"] = f"slab {row['slab']}"
    for quantity, unit in UNITS.items():
        if row.get(quantity) is not None:
            yield {**place, "quantity": quantity, "mean": _text(row[quantity]), "unit": unit}


def _only(data: Sequence[str]) -> str:
    return data[0] if len(data) == 1 else ""


def _text(value: Any) -> str:
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


def summary(folder: Path = HERE) -> str:
    """Return the table of all experiments as CSV."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    for experiment in load(folder).values():
        writer.writerows(rows_of(experiment, folder))
    return text.getvalue()


def read(folder: Path = HERE) -> list[Row]:
    """Return the lines of ``results/summary.csv``."""
    with open(folder / "results" / "summary.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def main(args: Sequence[str] | None = None) -> int:
    """Write or check the table; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--check", action="store_true", help="fail unless the table is current")
    parser.add_argument("--folder", type=Path, default=HERE, help="where experiments.toml and results/ lie")
    options = parser.parse_args(args)
    path = options.folder / "results" / "summary.csv"
    try:
        text = summary(options.folder)
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            print(f"{path}: current, {text.count(chr(10)) - 1} figures")
        elif options.check:
            raise ValueError(f"{path}: is not current; run python benchmarks/summarise.py")
        else:
            path.write_text(text, encoding="utf-8")
            print(f"{path}: written, {text.count(chr(10)) - 1} figures")
    except (ValueError, OSError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
