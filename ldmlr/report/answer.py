"""The section on what to use: the method that ``--auto`` chose, the head, and what it was measured on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ldmlr.report.blocks import Block, Code, Facts, Folded, Section, Table, Words
from ldmlr.report.words import number, row_name
from ldmlr.run.opened import OpenedRun

Figures = Mapping[str, Any]
# What the result of a run has on it, beside ``next``, the command that uses the head.
KEYS = ("auto", "head", "measured", "unmeasured")


def answer(run: OpenedRun) -> dict[str, Any]:
    """Return those of `KEYS` that a document has, with ``next``; nothing where it has none."""
    found = {key: run.document[key] for key in KEYS if run.document.get(key)}
    if run.command == "run" and "head" in found:
        found["next"] = run.next_command
    return found


def what_to_use(figures: Figures) -> Section | None:
    """Return the answer of a run: method, head, the next command, and how the figures came about."""
    found = figures["answer"]
    if not found:
        return None
    blocks: list[Block] = []
    auto = found.get("auto")
    if auto:
        blocks.append(Words(str(auto["headline"])))
    if "measured" in found:
        blocks.append(Words(f"The accuracies below are {found['measured']}."))
    if "unmeasured" in found:
        classes = ", ".join(map(str, found["unmeasured"]))
        blocks.append(Words(f"Not measured, and in no mean, as no row of them is tested: {classes}."))
    if "head" in found:
        blocks.append(Facts({"head": str(found["head"])}))
    if "next" in found:
        blocks.append(Code(found["next"]))
    if auto and auto["trials"]:
        blocks.append(Folded(f"All {len(auto['trials'])} methods that were tried", [_trials(auto)]))
    return Section("answer", "What to use" if "head" in found else "How it was measured", blocks)


def _trials(auto: Figures) -> Table:
    """Return what every method did on the held-out rows, best first."""
    trials = sorted(auto["trials"], key=lambda trial: -trial["held_out"])
    rows = [
        [
            row_name(trial), number(float(trial["held_out"])),
            ", ".join(
                f"{name.replace('_', ' ')} {value:g}"
                for name, value in trial.get("chosen", {}).items() if value is not None
            ),
            "" if trial.get("finished", True) else "left: cannot win",
        ]
        for trial in trials
    ]  # fmt: skip
    return Table(
        ["method", "balanced %", "chosen", ""], rows, f"Accuracy on {auto['held_out']}, all classes alike."
    )
