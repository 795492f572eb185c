"""Cut a result document to what the project keeps of it, and write it where it belongs.

A ``result.json`` holds more than anyone reads twice: a figure for each class, the loss of each epoch,
a record of each step of a run, comparisons that follow from the rows. What is kept is small enough to
be read in a diff: rows with mean, standard deviation and the seeds' values, the configuration, versions
and hardware, a row a line. ``DROPPED`` says what is left out, and of an absolute path the last name is kept;
accuracies are rounded to six decimals (the seeds' values to four), other figures to six digits.

    python benchmarks/record.py runs/compare/result.json --topic accuracy --id compare-mine

prints the entry for ``experiments.toml`` to complete by hand: what it shows, its data and its command.
Scripts name data after the file; ``--data cifar10-lt-if100-features=cifar10-lt`` gives the name that
``experiments.toml`` has for it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results"
TOPICS = ("accuracy", "cpu", "gpu")
GROUPS = ("all", "many", "medium", "few")
CALIBRATION = ("ece", "nll", "brier")  # mean and deviation are kept, the seeds' values are not

# What is not kept, by the name of the key, wherever it stands.
DROPPED = {
    "steps": "the record of each step of a run (a number of solver steps is kept)",
    "losses": "losses of epochs or intervals; the last one is kept",
    "per_class": "figures of single classes",
    "verdict": "lists of sentences; the one of a run is kept, as it knows the right answers of each test row",
    "comparisons": "comparisons, which follow from the rows",
    "comparison": "the same of a run, in words",
    "best": "the best row, which is among the rows",
    "k": "how much wider held-out rows lie, by class",
    "candidates": "the candidates of a choice; what was chosen is kept",
    "family": "the family of a method",
    "generated": "how many rows a method drew, by seed",
    "drawing_seconds": "seconds per row of a table, on machines that were shared",
    "balanced": "class-balanced accuracy, but for rows that are judged by it; else it is that of all rows",
}
# A path from the root, as a word of a command or the value of an option.
_WHOLE_PATH = re.compile(r"(?<![^\s='\"])/[^\s'\"]+")
# An encoder that another one started from or was taught by: its experiment has the rest.
ORIGIN = ("model", "sha256", "epochs", "network", "weight")


def slim(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is kept of a result document; of one that was cut before, the same again."""
    kept = {name: _slim(name, value) for name, value in document.items() if not _dropped(name, value)}
    kept["rows"] = [_row(row) for row in document.get("rows", [])]
    for name in ("init", "teacher"):
        if isinstance(kept.get(name), Mapping):
            kept[name] = _origin(kept[name])
        elif isinstance(kept.get(name), list):
            kept[name] = [_origin(model) for model in kept[name]]
    return kept


def _origin(model: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in model.items() if name in ORIGIN}


def _dropped(name: str, value: Any) -> bool:
    sentence = name == "verdict" and isinstance(value, str)
    return name in DROPPED and not isinstance(value, int) and not sentence


def _row(row: Mapping[str, Any]) -> dict[str, Any]:
    # Seconds of a method are those of a shared machine; `what` and `head` repeat what its name says.
    aside = ("seconds", "what", "head") if "method" in row else ()
    kept = {}
    for name, value in row.items():
        judged = name == "balanced" and row.get("judged_by") == name
        if name in aside or (_dropped(name, value) and not judged):
            continue
        if name in GROUPS or judged:
            value = value and {
                "mean": round(value["mean"], 6),
                "std": round(value["std"], 6),
                "values": [round(one, 4) for one in value["values"]],
            }
        elif name in CALIBRATION and value is not None:
            value = {"mean": round(value["mean"], 6), "std": round(value["std"], 6)}
        kept[name] = value if name in GROUPS or judged else _slim(name, value)
    return kept


def _slim(name: str, value: Any) -> Any:
    if isinstance(value, Mapping):
        return {_relative(key): _slim(key, item) for key, item in value.items() if not _dropped(key, item)}
    if isinstance(value, list):
        return [_slim(name, item) for item in value]
    if isinstance(value, str) and name == "command_line":
        return _WHOLE_PATH.sub(lambda found: Path(found[0]).name, value)
    if isinstance(value, str):
        return _relative(value)
    return _short(value) if isinstance(value, float) else value


def _relative(text: str) -> str:
    """Return the last name of an absolute path: where a file lay when it was measured says nothing."""
    return Path(text).name if text.startswith("/") else text


def _short(value: float) -> float:
    return float(f"{value:.6g}")


def dump(document: Mapping[str, Any]) -> str:
    """Return a document as JSON text: a line for each key, and one for each row."""
    lines = []
    for name, value in document.items():
        if name == "rows":
            rows = ",\n  ".join(_compact(row) for row in value)
            lines.append(f'"rows": [\n  {rows}\n ]' if value else '"rows": []')
        else:
            lines.append(f"{json.dumps(name)}: {_compact(value)}")
    return "{\n " + ",\n ".join(lines) + "\n}\n"


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def sha256(path: Path) -> str:
    """Return the hash of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def main(args: Sequence[str] | None = None) -> int:
    """Write the short copy of a result and print its entry; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("result", type=Path)
    parser.add_argument("--topic", choices=TOPICS, required=True)
    parser.add_argument("--id", required=True, help="name of the experiment: small letters, digits and -")
    parser.add_argument("--data", action="append", default=[], metavar="FILE=NAME", help="name of the data")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the results")
    options = parser.parse_args(args)
    try:
        if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", options.id):
            raise ValueError(f"{options.id!r} is no name of an experiment; use small letters, digits and -")
        document = json.loads(options.result.read_text(encoding="utf-8"))
        if not isinstance(document, dict) or not isinstance(document.get("rows"), list):
            raise ValueError(f"{options.result}: not a result document: it has no list of rows")
        names = dict(entry.split("=", 1) for entry in options.data)
        for row in document["rows"]:
            if "data" in row:
                row["data"] = names.get(row["data"], row["data"])
        path = options.results / options.topic / f"{options.id}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dump(slim(document)), encoding="utf-8")
    except (ValueError, OSError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    print(
        f"[experiments.{options.id}]\nshows = \"\"\ndata = []\ncommands = []\nhardware = \"\"\n"
        f'commit = ""\nfile = "{options.topic}/{options.id}.json"\nsha256 = "{sha256(path)}"'
    )  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
