"""Pieces of HTML: escaped text, tables with headers, and the page around the sections."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from html import escape
from importlib import resources
from typing import Any

from ldmlr.report.svg import Drawing


@dataclasses.dataclass(frozen=True)
class Picture:
    """A drawing with its words.

    Parameters
    ----------
    name
        What its file is called, without ending.
    drawing
        The drawing.
    caption
        What it shows.
    legend
        Colour class and words of each kind of mark.
    """

    name: str
    drawing: Drawing
    caption: str
    legend: Sequence[tuple[str, str]] = ()

    def html(self) -> str:
        """Return it as a figure of the page."""
        keys = "".join(
            f'<span class="key"><svg viewBox="0 0 12 12" aria-hidden="true"><circle class="mark {kind}" '
            f'cx="6" cy="6" r="4.5"/></svg>{escape(words)}</span>'
            for kind, words in self.legend
        )
        shown = f'<div class="legend">{keys}</div>' if keys else ""
        caption = f"<figcaption>{escape(self.caption)}</figcaption>"
        return f"<figure>{shown}{self.drawing.render()}{caption}</figure>"


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of the page.

    Parameters
    ----------
    name
        Its anchor.
    title
        Its heading.
    body
        HTML, escaped already.
    pictures
        Those in the body.
    """

    name: str
    title: str
    body: str
    pictures: Sequence[Picture] = ()


def paragraph(words: str, kind: str = "") -> str:
    """Return a paragraph of plain words."""
    return f'<p class="{kind}">{escape(words)}</p>' if kind else f"<p>{escape(words)}</p>"


def table(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    caption: str = "",
    marks: Mapping[int, str] | None = None,
    kind: str = "",
) -> str:
    """Return a table of plain words: the first column names the row.

    Parameters
    ----------
    header
        One heading per column.
    rows
        Cells.
    caption
        What the table shows.
    marks
        Class of a row, by number.
    kind
        Class of the table: ``wordy`` where the last column is prose.
    """
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in header)
    body = []
    for number, (first, *others) in enumerate(rows):
        mark = f' class="{marks[number]}"' if marks and number in marks else ""
        cells = "".join(f"<td>{escape(cell)}</td>" for cell in others)
        body.append(f'<tr{mark}><th scope="row">{escape(first)}</th>{cells}</tr>')
    shown = f"<caption>{escape(caption)}</caption>" if caption else ""
    return (
        f'<div class="scroll" tabindex="0" role="group" aria-label="{escape(caption or header[0])}">'
        f'<table class="{kind or "plain"}">{shown}'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"
    )


def heat(matrix: Sequence[Sequence[float]], names: Sequence[str], caption: str) -> str:
    """Return a square table of per cents, darker where there is more; errors in another colour."""
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in names)
    body = []
    for at, (name, shares) in enumerate(zip(names, matrix, strict=True)):
        cells = "".join(
            f'<td class="{"hit" if at == other else "miss"}" style="--v:{share:.0f}%">'
            f"{f'{share:.0f}' if share >= 0.5 else '·'}</td>"
            for other, share in enumerate(shares)
        )
        body.append(f'<tr><th scope="row">{escape(name)}</th>{cells}</tr>')
    return (
        f'<div class="scroll" tabindex="0" role="group" aria-label="{escape(caption)}"><table class="heat">'
        f"<caption>{escape(caption)}</caption>"
        f'<thead><tr><th scope="col">label \\ predicted</th>{head}</tr></thead><tbody>{"".join(body)}</tbody>'
        "</table></div>"
    )


def details(summary: str, body: str) -> str:
    """Return something folded away; printing shows it only if it is open."""
    return f"<details><summary>{escape(summary)}</summary>{body}</details>"


def listing(entries: Sequence[str], kind: str = "") -> str:
    """Return a list of plain words."""
    more = f' class="{kind}"' if kind else ""
    return f"<ul{more}>{''.join(f'<li>{escape(entry)}</li>' for entry in entries)}</ul>"


def style_sheet() -> str:
    """Return the style of the page."""
    return resources.files("ldmlr.report").joinpath("style.css").read_text(encoding="utf-8")


def page(title: str, lead: str, sections: Sequence[Section]) -> str:
    """Return the whole document. It loads nothing: the style is inside, scripts and fonts there are none."""
    style = style_sheet()
    links = "".join(f'<a href="#{part.name}">{escape(part.title)}</a>' for part in sections)
    body = "".join(
        f'<section id="{part.name}" aria-labelledby="{part.name}-title"><h2 id="{part.name}-title">'
        f"{escape(part.title)}</h2>{part.body}</section>"
        for part in sections
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>{escape(title)}</title><style>{style}</style></head><body><header><h1>{escape(title)}</h1>{lead}"
        f'</header><nav aria-label="Sections">{links}</nav><main>{body}</main></body></html>\n'
    )


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
