"""The evidence of a choice as a table for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ldmlr.errors import counted
from ldmlr.text import row_name, table


def evidence_table(choice: Mapping[str, Any]) -> str:
    """Return every candidate with its figures on the held-out rows, and the choice in words.

    Parameters
    ----------
    choice
        The document of a choice.
    """
    evidence = choice["evidence"]
    columns = ["generator", "scale", "guidance", "gate", "val", "below best", "std error", ""]
    seen: dict[tuple[str, ...], list[str]] = {}
    for part in ("generation", "gate"):
        for entry in evidence[part]:
            name = tuple("-" if entry[key] is None else str(entry[key]) for key in columns[:4])
            seen[name] = [*name, *_figures(entry)]
    shifts = [[f"{e['tau_shift']:g}", f"{e['average']:g}", *_figures(e)] for e in evidence["label_shift"]]
    base = evidence["baseline"]
    val = sum(entry["val_rows"] for entry in choice["stores"])
    lines = [
        f"class-balanced accuracy on {counted(val, 'held-out row')}; the baseline has {base['none']:.2f}, "
        f"with label shift {base['label-shift']:.2f}",
        table(columns, list(seen.values())),
        table(["tau", "average", "val", "below best", "std error", ""], shifts),
        _words(choice),
    ]
    return "\n\n".join(lines)


def _figures(entry: Mapping[str, Any]) -> list[str]:
    mark = "chosen" if entry["chosen"] else "best" if entry["best"] else ""
    return [f"{entry['val']:.2f}", f"{entry['shortfall']:.2f}", f"{entry['error']:.2f}", mark]


def _words(choice: Mapping[str, Any]) -> str:
    chosen, shift = choice["chosen"], choice["settings"]["finetune"]
    scale = "a widening per class" if chosen["scale"] == "class" else f"scale {chosen['scale']}"
    parts: Sequence[str] = [
        choice["generator"], *([] if chosen["scale"] is None else [scale]),
        *([] if chosen["guidance"] is None else [f"guidance {chosen['guidance']:g}"]),
        *([] if chosen["gate"] == "none" else [f"gate {chosen['gate']}"]),
        f"tau {shift['tau_shift']:g}", f"average {shift['average']:g}",
    ]  # fmt: skip
    k = choice["evidence"]["scatter"]["k"]
    measured = f"measured widening per class {min(k):.2f} to {max(k):.2f}"
    return f"chosen ({choice['rule']}): {', '.join(parts)}; {measured}"


def trials_table(auto: Mapping[str, Any]) -> str:
    """Return what every method did on the held-out rows, best first; nothing where none could.

    Parameters
    ----------
    auto
        The document of the choice among methods.
    """
    trials = sorted(auto["trials"], key=lambda trial: -trial["held_out"])
    if not trials:
        return ""
    chosen = recommended(auto, trials)
    rows = []
    for trial in trials:
        values = ", ".join(
            f"{name} {value:g}" for name, value in trial.get("chosen", {}).items() if value is not None
        )
        word = "use this" if trial is chosen else "" if trial.get("finished", True) else "left: cannot win"
        name = row_name({"adjustment": "none", **trial})
        rows.append([name, f"{trial['held_out']:.2f}", values or "none to choose", word])
    return table([f"on {auto['held_out']}", "balanced %", "settings", ""], rows)


def recommended(auto: Mapping[str, Any], trials: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Return the trial of the method that is to be used; None if nothing was tried.

    A tuned method of the name that the run's own head has is called otherwise than its trial; the head itself
    has an adjustment.
    """
    method = str(auto.get("method", ""))
    name = method.removesuffix("-tuned")
    found = [trial for trial in trials if trial["method"] == name]
    own = [trial for trial in found if ("adjustment" in trial) == (name == method)]
    return next(iter(own or found), None)
