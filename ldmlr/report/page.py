"""The page of a run: collect the figures, lay out the sections, write one file."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from ldmlr.files import check_output, write_text
from ldmlr.report import generic, sections
from ldmlr.report.collect import collect
from ldmlr.report.config import ReportConfig
from ldmlr.report.html import Section, listing, page
from ldmlr.report.opening import OpenedRun, open_run

FILENAME = "report.html"
# What the sections are called where they are missing.
NAMES = {
    "measured": "Calibration and confusion", "classes": "Accuracy per class and plan", "training": "Training",
    "quality": "Quality of generated rows", "projection": "Rows in the plane", "times": "Times",
    "verdict": "Verdict",
}  # fmt: skip


def write_report(
    path: str | Path,
    out: str | Path | None = None,
    config: ReportConfig | None = None,
    *,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Write the page of a run.

    Parameters
    ----------
    path
        The folder of a run, or any ``result.json``.
    out
        The HTML file; by default ``report.html`` in the folder of the run.
    config
        How much is looked at.
    overwrite
        Replace a file that exists.

    Returns
    -------
    dict
        The figures that the page shows; ``page`` and ``bytes`` name the file and its size, ``missing`` what
        the page leaves out.

    Raises
    ------
    InputError
        `path` has no result document.
    UsageError
        The output exists.

    Examples
    --------
    >>> figures = write_report("runs/digits")  # doctest: +SKIP
    >>> figures["verdict"]["headline"]  # doctest: +SKIP
    'Generation helped: with label shift, LDMLR is ahead of label shift alone.'
    """
    run = open_run(Path(path))
    target = Path(out) if out is not None else run.folder / FILENAME
    check_output(target, overwrite)
    figures, missing = collect(run, config or ReportConfig())
    text = render(run, figures, missing)
    write_text(target, text, overwrite)
    return {
        "run": str(run.path), "page": str(target), "bytes": len(text.encode()), **_public(figures),
        "missing": missing,
    }  # fmt: skip


def render(run: OpenedRun, figures: Mapping[str, Any], missing: list[dict[str, str]]) -> str:
    """Return the HTML of a page."""
    document = run.document
    figures = {**figures, "calibration_rows": _calibration_rows(run)}
    known = [
        sections.verdict(figures), sections.accuracy(figures), sections.classes(figures), sections.plan(figures),
        sections.training(figures), sections.quality(figures), sections.pictures(figures),
        sections.calibration(figures), sections.confusion(figures), generic.choice(figures["choice"]),
    ]  # fmt: skip
    shown = {"rows"} if sections.is_accuracy(figures["rows"]) else set()
    known += [
        generic.other_tables(document, shown | {"selection", "baseline_head", "backend"}), sections.times(figures),
        generic.about(document, str(run.path)), _left_out(missing),
    ]  # fmt: skip
    return page(title_of(run), _lead(run), [part for part in known if part is not None])


def title_of(run: OpenedRun) -> str:
    """Return the title: what was run on what."""
    source = run.config.get("source") or run.config.get("store")
    name = Path(str(source)).name if source else run.folder.resolve().name
    return f"ldmlr {run.command}: {name}"


def _lead(run: OpenedRun) -> str:
    """Return the line below the title."""
    seeds = run.seeds
    words = [
        f"{len(seeds)} seed{'s' if len(seeds) != 1 else ''}" if seeds else "",
        f"ldmlr {run.document.get('versions', {}).get('ldmlr', '')}".strip(),
        str(run.document.get("created", ""))[:10],
    ]
    return f'<p class="soft">{escape(" · ".join(word for word in words if word))}</p>'


def _calibration_rows(run: OpenedRun) -> list[dict[str, Any]]:
    """Return ECE, NLL and Brier score of a run over its seeds."""
    from ldmlr.results import spread

    runs = [step["figures"]["measured"] for step in run.steps("finetune")]
    return [
        {
            "method": entries[0]["method"], "adjustment": entries[0]["adjustment"],
            **{name: spread([entry["figures"].get(name) for entry in entries]) for name in ("ece", "nll", "brier")},
        }
        for entries in zip(*runs, strict=False)
    ]  # fmt: skip


def _left_out(missing: list[dict[str, str]]) -> Section | None:
    lines = [
        f"{NAMES.get(entry['section'], entry['section'])}: {entry['why']}. Given by: {entry['command']}"
        for entry in missing
    ]
    return Section("left-out", "Left out", listing(lines)) if lines else None


def _public(figures: Mapping[str, Any]) -> dict[str, Any]:
    """Return the figures for ``--json``: those of the page; the points of the picture are no figures."""
    found = dict(figures)
    plane = found.get("projection")
    if plane:
        kinds = ("encoded", "generated", "test")
        found["projection"] = {
            **plane,
            "classes": [
                {key: len(value) if key in kinds else value for key, value in entry.items()}
                for entry in plane["classes"]
            ],
        }
    return found
