"""What a model file says of itself: diffusion models, heads and baselines, as plain data and as text.

Only the header and the shapes of the tensors are told; nothing of a file is run. The checksum is compared.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from ldmlr import modelfile
from ldmlr.diffusion.learned import in_words
from ldmlr.errors import counted
from ldmlr.groups import GROUPS, ShotGroups
from ldmlr.text import table

# Fields of a header that are long, or said elsewhere.
ASIDE = ("format", "schema_version", "version", "losses", "history", "class_names", "sha256")

# What the text says in its own words, or last.
SAID = (
    "kind", "maker", "numbers", "rows_per_class", "class_names", "held_out", "config", "schema_version",
    "sha256",
)  # fmt: skip


def facts(path: Path) -> dict[str, Any]:
    """Return what a model file holds, as plain data.

    Raises
    ------
    InputError
        The file is missing, no model file, of a newer version or damaged.
    """
    kind = modelfile.kind_of(path)
    header, tensors = modelfile.read(path, kind, {}, framework="pt" if kind is modelfile.BASELINE else "np")
    names, counts, held_out = header.get("class_names"), tensors.get("counts"), header.get("held_out")
    with modelfile.damaged(path, kind):
        rows = None if counts is None else [int(count) for count in np.asarray(counts).reshape(-1)]
        if rows == []:
            raise ValueError("it has no classes")
        learned = in_words(held_out) if held_out and held_out["loss_over_gaussian"] is not None else None
    found: dict[str, Any] = {
        "kind": kind.noun,
        "schema_version": header.get("schema_version", header.get("version")),
        "sha256": header.get("sha256"),
        "maker": kind.maker,
        "numbers": sum(math.prod(tensor.shape) for tensor in tensors.values()),
        "class_names": names,
        "rows_per_class": rows,
        "learned": learned,
    }
    return found | {name: value for name, value in header.items() if name not in ASIDE}


def text(path: Path, found: dict[str, Any]) -> str:
    """Return the facts for people: a line each, and a line for each class where the rows are known."""
    lines = [["kind", found["kind"]], ["made by", found["maker"]], ["numbers", f"{found['numbers']:,}"]]
    counts = found["rows_per_class"]
    if counts is not None:
        groups = ShotGroups().masks(counts)
        shares = ", ".join(f"{int(groups[group].sum()):,} {group}" for group in GROUPS)
        lines.append(["training rows", f"{sum(counts):,} of {counted(len(counts), 'class')} ({shares})"])
        lines.append(["rows of a class", f"{min(counts):,} to {max(counts):,}"])
    for name, value in found.items():
        if name not in SAID and value not in (None, {}, []):
            lines.append([name.replace("_", " "), value if isinstance(value, str) else json.dumps(value)])
    config = found.get("config")
    if isinstance(config, dict):
        lines += [[f"  {name}", json.dumps(value)] for name, value in sorted(config.items())]
    lines.append(["checksum", "right" if found["sha256"] else "none: the first version wrote none"])
    width = max(len(_line(name)) for name, _ in lines)
    shown = "\n".join([f"{path}:", *(f"  {_line(name):{width}}  {_line(value)}" for name, value in lines)])
    if counts is None or found["class_names"] is None:
        return shown
    rows = [
        [_line(str(name)), f"{count:,}"] for name, count in zip(found["class_names"], counts, strict=False)
    ]
    return f"{shown}\n\n{table(['class', 'training rows'], rows)}"


def _line(text: str) -> str:
    """Return a text of a file as one line without control characters, cut where it is long."""
    plain = "".join(letter if letter.isprintable() else " " for letter in text)
    return plain if len(plain) <= 100 else f"{plain[:97]}..."
