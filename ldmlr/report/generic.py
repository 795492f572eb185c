"""Sections of any result document: tables of its records, what was chosen, and what was run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ldmlr.report.blocks import Block, Code, Facts, Folded, Heading, Section, Table, Words
from ldmlr.report.words import is_spread, number, spread

# Keys of a document that have a place of their own on the page.
KNOWN = {
    "command", "command_line", "config", "versions", "hardware", "created", "steps", "groups", "choice",
    "verdict", "seeds", "best", "comparison", "test_rows", "seconds", "class_names", "counts", "history",
    "losses", "auto", "head", "measured", "unmeasured", "generated_quality",
    "held_out", "axes", "learned", "features",
}  # fmt: skip
ROWS = 300


def records(name: str, entries: Sequence[Any]) -> list[Block]:
    """Return a table of records, for their plain fields and those with mean and deviation; or nothing."""
    rows = [entry for entry in entries if isinstance(entry, dict)]
    columns = [
        key for key in dict.fromkeys(key for row in rows for key in row)
        if any(_is_cell(row.get(key)) for row in rows)
        and all(_is_cell(row.get(key)) or row.get(key) is None for row in rows)
    ]  # fmt: skip
    if not columns:
        return []
    chosen = frozenset(place for place, row in enumerate(rows) if row.get("chosen") is True)
    cells = [[_cell(row.get(column)) for column in columns] for row in rows[:ROWS]]
    more = f" (the first {ROWS} of {len(rows):,})" if len(rows) > ROWS else ""
    return [Table([_spaced(column) for column in columns], cells, f"{name}{more}", chosen)]


def other_tables(document: Mapping[str, Any], shown: set[str]) -> Section | None:
    """Return the tables of a document that no other section shows."""
    rest = {key: value for key, value in document.items() if key not in KNOWN and key not in shown}
    blocks = facts(
        {key: value for key, value in rest.items() if isinstance(value, int | float | str)}, "figures"
    )
    for key, value in rest.items():
        title = _spaced(key)
        if isinstance(value, dict):
            blocks += facts(value, title)
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            blocks += records(title, value)
        elif isinstance(value, list) and value and all(isinstance(entry, str) for entry in value):
            blocks += [Heading(title), *(Words(line) for line in value)]
    return Section("figures", "Figures", blocks) if blocks else None


def choice(figures: Mapping[str, Any]) -> Section | None:
    """Return the settings chosen on validation rows, and the evidence for them."""
    found = figures["choice"]
    if not found:
        return None
    blocks: list[Block] = [
        Words(f"{words}: {found[key]}.")
        for key, words in (("by", "Chosen by"), ("rule", "Rule"))
        if isinstance(found.get(key), str)
    ]
    if isinstance(found.get("chosen"), dict):
        blocks += facts(found["chosen"], "Chosen")
    evidence = found.get("evidence")
    for name, entries in (evidence if isinstance(evidence, dict) else {}).items():
        title = _spaced(name)
        if isinstance(entries, dict):
            blocks += facts(entries, f"Evidence: {title}")
        elif isinstance(entries, list) and (shown := records(title, entries)):
            blocks.append(Folded(f"Evidence: {title} ({len(entries)} candidates)", shown))
    return Section("choice", "What was chosen, and why", blocks) if blocks else None


def about(document: Mapping[str, Any], path: str) -> Section:
    """Return what was run: command, seeds, versions, hardware and the whole configuration."""
    config = _table(document.get("config"))
    backends = {
        str(step["figures"]["backend"]) for step in document.get("steps") or []
        if isinstance(step, dict) and isinstance(step.get("figures"), dict) and "backend" in step["figures"]
    }  # fmt: skip
    backend = document.get("backend") or ", ".join(sorted(backends)) or config.get("backend")
    values = {
        "command": command_line(document), "source": config.get("source") or config.get("store"),
        "seeds": ", ".join(map(str, document.get("seeds") or [])) or None,
        "selection": document.get("selection"), "encoder": _table(document.get("features")).get("why"),
        "backend": backend, "device": config.get("device"),
        "created": document.get("created"), "result": path, **_table(document.get("hardware")),
        "versions": ", ".join(
            f"{name} {value}" for name, value in _table(document.get("versions")).items() if _is_cell(value)
        ),
    }  # fmt: skip
    whole = Folded("The whole configuration", [Code(json.dumps(config, indent=2))])
    return Section(
        "about", "What was run",
        [*facts({key: value for key, value in values.items() if value not in (None, "")}), whole],
    )  # fmt: skip


def command_line(document: Mapping[str, Any]) -> str:
    """Return the command as it was given.

    Of a document from a Python program or an older version, the main options; the configuration has the rest.
    """
    if isinstance(document.get("command_line"), str):
        return str(document["command_line"])
    config = _table(document.get("config"))
    words = ["ldmlr", str(document.get("command", ""))]
    source = config.get("source") or config.get("store")
    if isinstance(source, str):
        words.append(source)
    if config.get("seed") is not None:
        words.append(f"--seed {config['seed']}")
    elif isinstance(config.get("seeds"), int):
        words.append(f"--seeds {config['seeds']}")
    if config.get("imbalance_factor") is not None:
        words.append(f"--imbalance-factor {config['imbalance_factor']:g}")
    return " ".join(words)


def facts(values: Mapping[str, Any], title: str = "") -> list[Block]:
    """Return those of some values that are plain, under a title; or nothing."""
    cells = {_spaced(str(key)): _cell(value) for key, value in values.items() if _is_cell(value)}
    heading: list[Block] = [Heading(title)] if title else []
    return [*heading, Facts(cells)] if cells else []


def _table(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _spaced(key: str) -> str:
    return key.replace("_", " ")


def _is_cell(value: Any) -> bool:
    return isinstance(value, int | float | str) or is_spread(value)


def _cell(value: Any) -> str:
    return spread(value) if is_spread(value) else number(value)
