"""The page of a run: collect the figures, lay out the sections, write one file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from ldmlr.files import check_output, write_text
from ldmlr.report import generic, sections
from ldmlr.report.collect import collect
from ldmlr.report.config import ReportConfig
from ldmlr.report.html import Section, listing, page
from ldmlr.report.opening import OpenedRun, open_run
from ldmlr.report.pictures import standalone

FILENAME = "report.html"
# What the sections are called where they are missing.
NAMES = {
    "measured": "Calibration and confusion", "classes": "Accuracy per class and plan", "training": "Training",
    "quality": "Quality of generated rows", "projection": "Rows in the plane", "times": "Times",
    "verdict": "Verdict", "calibration": "Calibration in figures",
}  # fmt: skip

# In the order of the page; tables of whatever else the document holds, times and settings follow.
SECTIONS: tuple[Callable[[Mapping[str, Any]], Section | None], ...] = (
    sections.verdict,
    sections.accuracy,
    sections.classes,
    sections.plan,
    sections.training,
    sections.quality,
    sections.pictures,
    sections.calibration,
    sections.confusion,
    generic.choice,
)


def write_report(
    path: str | Path,
    out: str | Path | None = None,
    config: ReportConfig | None = None,
    *,
    pictures: str | Path | None = None,
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
    pictures
        A folder for the pictures as SVG files of their own; None for none.
    overwrite
        Replace a file that exists.

    Returns
    -------
    dict
        The figures that the page shows; ``page`` and ``bytes`` name the file and its size, ``missing`` what
        the page leaves out, ``pictures`` the files of the pictures.

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
    parts = lay_out(run, figures, missing)
    text = page(title_of(run), _lead(run), parts)
    drawn = picture_files(parts, None if pictures is None else Path(pictures), overwrite)
    write_text(target, text, overwrite)
    for file, content in drawn.items():
        write_text(file, content, overwrite)
    return {
        "run": str(run.path), "page": str(target), "bytes": len(text.encode()), **_public(figures),
        "missing": missing, "pictures": [str(file) for file in drawn],
    }  # fmt: skip


def lay_out(run: OpenedRun, figures: Mapping[str, Any], missing: Sequence[dict[str, str]]) -> list[Section]:
    """Return the sections of the page."""
    document = run.document
    shown = {"selection", "baseline_head", "backend"}
    if sections.is_accuracy(figures["rows"]):
        shown.add("rows")
    missing = list(missing)
    parts: list[Section | None] = []
    for make in SECTIONS:
        try:
            parts.append(make(figures))
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            # Figures that another version or a hand wrote: the section is left out, and says why.
            why = f"{run.path} is not as this version writes it ({type(error).__name__}: {error})"
            missing.append({"section": make.__name__, "why": why, "command": "ldmlr run"})
    parts += [
        generic.other_tables(document, shown),
        sections.times(figures),
        generic.about(document, str(run.path)),
        _left_out(missing),
    ]
    return [part for part in parts if part is not None]


def picture_files(parts: Sequence[Section], folder: Path | None, overwrite: bool) -> dict[Path, str]:
    """Return the SVG files to write into a folder, none without one.

    Raises
    ------
    UsageError
        One of them exists, or the folder cannot be one.
    """
    if folder is None:
        return {}
    drawn = {folder / f"{one.name}.svg": standalone(one) for part in parts for one in part.pictures}
    for file in drawn:
        check_output(file, overwrite)
    return drawn


def title_of(run: OpenedRun) -> str:
    """Return the title: what was run on what."""
    source = run.config.get("source") or run.config.get("store")
    name = Path(str(source)).name if source else run.folder.resolve().name
    return f"ldmlr {run.command}: {name}"


def _lead(run: OpenedRun) -> str:
    """Return the line below the title."""
    seeds, versions = run.seeds, run.document.get("versions")
    words = [
        f"{len(seeds)} seed{'s' if len(seeds) != 1 else ''}" if seeds else "",
        f"ldmlr {versions['ldmlr']}" if isinstance(versions, dict) and "ldmlr" in versions else "",
        str(run.document.get("created", ""))[:10],
    ]
    return f'<p class="soft">{escape(" · ".join(word for word in words if word))}</p>'


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
