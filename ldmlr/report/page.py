"""The page of a run: collect the figures, make the sections, draw the pictures, fill the template."""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from ldmlr.files import check_output, write_bytes, write_text
from ldmlr.remote import as_path
from ldmlr.report import generic, sections
from ldmlr.report.answer import what_to_use
from ldmlr.report.blocks import Bullets, Section
from ldmlr.report.canvas import NARROW, WIDE
from ldmlr.report.collect import MISSHAPEN, collect
from ldmlr.report.config import ReportConfig
from ldmlr.report.learned import learned
from ldmlr.report.picture import FORMATS, INSTALL, Picture, missing, require
from ldmlr.report.quality import quality
from ldmlr.report.theme import DARK, LIGHT, THEMES, Theme
from ldmlr.run.opened import OpenedRun, read_run

FILENAME = "report.html"
# What the sections are called where they are missing.
NAMES = {
    "answer": "What to use", "measured": "Calibration and confusion",
    "classes": "Accuracy per class and plan", "training": "Training", "learned": "What the diffusion learned",
    "quality": "Quality of generated rows", "projection": "Rows in the plane", "times": "Times",
    "verdict": "Verdict", "calibration": "Calibration in figures", "pictures": "Pictures",
}  # fmt: skip

# In the order of the page; tables of whatever else the document holds, times and settings follow.
SECTIONS: tuple[Callable[[Mapping[str, Any]], Section | None], ...] = (
    what_to_use,
    sections.verdict,
    sections.accuracy,
    sections.classes,
    sections.plan,
    sections.training,
    learned,
    quality,
    sections.rows,
    sections.calibration,
    sections.confusion,
    generic.choice,
)
# Where each drawing of a picture is shown. The first that fits is taken, so the last is for all others.
PHONE, NIGHT = "(max-width: 40rem)", "(prefers-color-scheme: dark)"
DRAWINGS: tuple[tuple[str, Theme, int], ...] = (
    (f"screen and {PHONE} and {NIGHT}", DARK, NARROW), (f"screen and {PHONE}", LIGHT, NARROW),
    (NIGHT, DARK, WIDE), ("", LIGHT, WIDE),
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Drawing:
    """One drawing of a picture: where it is shown, its data as an address, and its width in pixels."""

    media: str
    address: str
    width: int


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
        A folder for the pictures as files of their own: each as SVG, PDF and PNG, for light and for dark;
        None for none.
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
    LdmlrError
        `pictures` is given, and matplotlib is not installed.

    Examples
    --------
    >>> figures = write_report("runs/digits")  # doctest: +SKIP
    >>> figures["verdict"]["headline"]  # doctest: +SKIP
    'Generation helped: with label shift, LDMLR is ahead of label shift alone.'
    """
    if pictures is not None:
        require()
    run = read_run(as_path(path))
    target = as_path(out) if out is not None else run.folder / FILENAME
    check_output(target, overwrite)
    figures, left_out = collect(run, config or ReportConfig())
    parts, drawings = lay_out(run, figures, left_out)
    files: dict[Path, bytes] = {}
    if pictures is not None:
        files = picture_files([one for part in parts for one in part.pictures], as_path(pictures))
        for file in files:
            check_output(file, overwrite)
    text = render(title_of(run), _lead(run), parts, drawings)
    write_text(target, text, overwrite)
    for file, data in files.items():
        write_bytes(file, data, overwrite)
    return {
        "run": str(run.path), "page": str(target), "bytes": len(text.encode()), **_public(figures),
        "missing": left_out, "pictures": [str(file) for file in files],
    }  # fmt: skip


def lay_out(
    run: OpenedRun, figures: Mapping[str, Any], left_out: list[dict[str, str]]
) -> tuple[list[Section], dict[str, list[Drawing]]]:
    """Return the sections of the page, and the drawings of their pictures.

    What cannot be shown is added to `left_out`, with the reason.
    """
    document = run.document
    shown = {"selection", "baseline_head", "backend"}
    if sections.is_accuracy(figures["rows"]):
        shown.add("rows")
    why = missing()
    parts: list[Section] = []
    drawings: dict[str, list[Drawing]] = {}
    for make in SECTIONS:
        try:
            part = make(figures)
            drawn = {} if why or part is None else {one.name: draw(one) for one in part.pictures}
        except MISSHAPEN as error:
            reason = f"{run.path} is not as this version writes it ({type(error).__name__}: {error})"
            left_out.append({"section": make.__name__, "why": reason, "command": "ldmlr run"})
        else:
            parts += [part] if part else []
            drawings |= drawn
    if why and any(part.pictures for part in parts):
        left_out.append({"section": "pictures", "why": why, "command": INSTALL})
    others = (
        generic.other_tables(document, shown), sections.times(figures),
        generic.about(document, str(run.path)), _left_out(left_out),
    )  # fmt: skip
    return [*parts, *(part for part in others if part is not None)], drawings


def draw(picture: Picture) -> list[Drawing]:
    """Return a picture in the four drawings of which a browser takes one."""
    found = []
    for media, theme, width in DRAWINGS:
        files = picture.render(theme, width, ("svg",))
        address = f"data:image/svg+xml;base64,{base64.b64encode(files['svg']).decode()}"
        found.append(Drawing(media, address, width))
    return found


def picture_files(pictures: Sequence[Picture], folder: Path) -> dict[Path, bytes]:
    """Return the files of pictures: each in every format, for light and for dark."""
    return {
        folder / f"{picture.name}-{theme.name}.{kind}": data
        for picture in pictures
        for theme in THEMES
        for kind, data in picture.render(theme, WIDE, FORMATS).items()
    }


def render(title: str, lead: str, parts: Sequence[Section], drawings: Mapping[str, Sequence[Drawing]]) -> str:
    """Return the page as HTML: every text is escaped, and nothing is loaded.

    Parameters
    ----------
    title, lead
        Heading, and the line below it.
    parts
        The sections.
    drawings
        Of the pictures that are shown, by name.
    """
    page = Environment(
        loader=PackageLoader("ldmlr.report", ""), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
    ).get_template("page.html.j2")  # fmt: skip
    text = page.render(title=title, lead=lead, sections=parts, drawings=drawings, light=LIGHT, dark=DARK)
    # A name out of a JSON file may hold half of a surrogate pair, which no file can.
    return text.encode("utf-8", "replace").decode()


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
    return " · ".join(word for word in words if word)


def _left_out(entries: Sequence[Mapping[str, str]]) -> Section | None:
    lines = [
        f"{NAMES.get(entry['section'], entry['section'])}: {entry['why']}. Given by: {entry['command']}"
        for entry in entries
    ]
    return Section("left-out", "Left out", [Bullets(lines)]) if lines else None


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
