"""Tables of any result document: lists of records, and settings."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from ldmlr.report.html import Section, details, number, paragraph, spread, table

# Keys of a document that have a place of their own on the page.
KNOWN = {
    "command", "config", "versions", "hardware", "created", "steps", "groups", "choice", "verdict", "seeds",
    "seconds", "class_names", "counts", "history", "losses", "generated_quality",
}  # fmt: skip
ROWS = 300


def records(name: str, entries: Sequence[Any], caption: str = "") -> str:
    """Return a table of records, for their plain fields and those with mean and deviation; or nothing."""
    rows = [entry for entry in entries if isinstance(entry, dict)]
    columns = [
        key for key in dict.fromkeys(key for row in rows for key in row)
        if any(_is_cell(row.get(key)) for row in rows) and all(_is_cell(row.get(key)) or row.get(key) is None
                                                              for row in rows)
    ]  # fmt: skip
    if not columns:
        return ""
    marks = {place: "chosen" for place, row in enumerate(rows) if row.get("chosen") is True}
    cells = [[_cell(row.get(column)) for column in columns] for row in rows[:ROWS]]
    more = f" (the first {ROWS} of {len(rows):,})" if len(rows) > ROWS else ""
    return table([column.replace("_", " ") for column in columns], cells, f"{caption or name}{more}", marks)


def other_tables(document: Mapping[str, Any], shown: set[str]) -> Section | None:
    """Return the tables of a document that no other section shows."""
    body = ""
    for key, value in document.items():
        if key in KNOWN or key in shown:
            continue
        if isinstance(value, list) and value and isinstance(value[0], dict):
            body += records(key.replace("_", " "), value)
        elif isinstance(value, dict) and any(_is_cell(entry) for entry in value.values()):
            body += pairs(value, key.replace("_", " "))
        elif isinstance(value, list) and value and all(isinstance(entry, str) for entry in value):
            body += f"<h3>{escape(key.replace('_', ' '))}</h3>" + "".join(paragraph(line) for line in value)
    plain = {
        key: value for key, value in document.items()
        if key not in KNOWN and key not in shown and isinstance(value, int | float | str)
    }  # fmt: skip
    body = (pairs(plain, "figures") if plain else "") + body
    return Section("figures", "Figures", body) if body else None


def choice(figures: Mapping[str, Any]) -> Section | None:
    """Return the settings chosen on validation rows, and the evidence for them."""
    found = figures["choice"]
    if not found:
        return None
    body = ""
    for key in ("by", "rule"):
        if isinstance(found.get(key), str):
            body += paragraph(f"{'Chosen by' if key == 'by' else 'Rule'}: {found[key]}.")
    chosen = found.get("chosen")
    if isinstance(chosen, dict):
        body += pairs(chosen, "Chosen")
    evidence = found.get("evidence")
    for name, entries in (evidence if isinstance(evidence, dict) else {}).items():
        title = name.replace("_", " ")
        if isinstance(entries, list):
            shown = records(title, entries)
            body += details(f"Evidence: {title} ({len(entries)} candidates)", shown) if shown else ""
        elif isinstance(entries, dict) and any(_is_cell(value) for value in entries.values()):
            body += pairs(entries, f"Evidence: {title}")
    return Section("choice", "What was chosen, and why", body) if body else None


def about(document: Mapping[str, Any], path: str) -> Section:
    """Return what was run: command, seeds, versions, hardware and the whole configuration."""
    config = document.get("config") if isinstance(document.get("config"), dict) else {}
    assert isinstance(config, dict)
    backends = {
        str(step["figures"]["backend"]) for step in document.get("steps") or []
        if isinstance(step, dict) and isinstance(step.get("figures"), dict) and "backend" in step["figures"]
    }  # fmt: skip
    backend = document.get("backend") or ", ".join(sorted(backends)) or config.get("backend")
    facts = {
        "command": command_line(document), "source": config.get("source") or config.get("store"),
        "seeds": ", ".join(map(str, document.get("seeds") or [])) or None,
        "selection": document.get("selection"), "backend": backend, "device": config.get("device"),
        "created": document.get("created"), "result": path,
        **_flat(document.get("hardware")),
        "versions": ", ".join(f"{name} {value}" for name, value in _flat(document.get("versions")).items()),
    }  # fmt: skip
    body = pairs({key: value for key, value in facts.items() if value not in (None, "")})
    text = json.dumps(config, indent=2)
    body += details("The whole configuration", f"<pre>{escape(text)}</pre>")
    return Section("about", "What was run", body)


def command_line(document: Mapping[str, Any]) -> str:
    """Return the command without the options of the stages, which the configuration holds."""
    config = document.get("config") if isinstance(document.get("config"), dict) else {}
    assert isinstance(config, dict)
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


def pairs(values: Mapping[str, Any], title: str = "") -> str:
    """Return names and values."""
    cells = "".join(
        f"<dt>{escape(str(key).replace('_', ' '))}</dt><dd>{escape(_cell(value))}</dd>"
        for key, value in values.items() if _is_cell(value)
    )  # fmt: skip
    head = f"<h3>{escape(title)}</h3>" if title else ""
    return f"{head}<dl>{cells}</dl>" if cells else ""


def _flat(values: Any) -> dict[str, Any]:
    return (
        {key: value for key, value in values.items() if _is_cell(value)} if isinstance(values, dict) else {}
    )


def _is_spread(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("mean"), int | float) and "values" in value


def _is_cell(value: Any) -> bool:
    return isinstance(value, int | float | str) or _is_spread(value)


def _cell(value: Any) -> str:
    return spread(value) if _is_spread(value) else number(value)
