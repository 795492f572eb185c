"""Figures and rows of accuracy tables as words."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def row_name(row: Mapping[str, Any]) -> str:
    """Return the name of a row of an accuracy table."""
    head = str(row.get("head", ""))
    # A measured head has a name, in older documents its file's; in other tables, `head` is the kind of head.
    measured = head == "stored" or head.endswith(".safetensors")
    own = row.get("name") or (Path(head).stem if measured else None)
    # The rows of an ablation differ by their setting.
    name = str(own or row.get("setting") or row.get("method") or head)
    if row.get("adjustment", "none") != "none":
        name += f" + {str(row['adjustment']).replace('-', ' ')}"
    return name


def kind_of(row: Mapping[str, Any]) -> str:
    """Return the colour of a row: baseline or LDMLR, plain or with label shift, or another."""
    method = {"baseline": "base", "ldmlr": "made"}.get(str(row.get("method")), "other")
    return method + ("-shift" if row.get("adjustment") == "label-shift" and method != "other" else "")


def number(value: Any, digits: int = 2) -> str:
    """Return a figure as text: a dash for None, whole numbers with thousands separators."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        if value and abs(value) < 10**-digits:
            return f"{value:.2g}"
        return f"{value:,.{digits}f}"
    return str(value)


def spread(entry: Mapping[str, Any] | None, digits: int = 2) -> str:
    """Return mean ± standard deviation, without the latter for a single seed."""
    if entry is None:
        return "–"
    if len(entry["values"]) < 2:
        return number(float(entry["mean"]), digits)
    return f"{entry['mean']:.{digits}f} ± {entry['std']:.{digits}f}"


def is_spread(value: Any) -> bool:
    """Tell whether a value is mean, deviation and the values behind them."""
    return isinstance(value, dict) and isinstance(value.get("mean"), int | float) and "values" in value
