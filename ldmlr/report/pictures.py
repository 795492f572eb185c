"""A picture of the page as an SVG file of its own, for papers, slides and a README.

The page colours its drawings by CSS variables, which browsers know and drawing programs do not: here
every rule has the colours of the light theme written out, on the page's paper.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from html import escape

from ldmlr.report.html import Picture, style_sheet
from ldmlr.report.svg import Drawing, at

MARGIN = 10.0
LEGEND = 24.0
# Width of a letter of the legend, a little generous; nothing measures text here.
LETTER = 6.6


def standalone(picture: Picture) -> str:
    """Return a picture as an SVG document with its legend and its own style."""
    drawing = picture.drawing
    top = MARGIN + (LEGEND if picture.legend else 0)
    width, height = drawing.width + 2 * MARGIN, drawing.height + top + MARGIN
    keys = Drawing(drawing.width, LEGEND, "")
    x = 0.0
    for kind, words in picture.legend:
        keys.circle((x + 6, 6), 4.5, f"mark {kind}")
        keys.text((x + 16, 10), words)
        x += 34 + LETTER * len(words)
    marks = _group(keys, MARGIN) + _group(drawing, top)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{at(width)}" height="{at(height)}" '
        f'viewBox="0 0 {at(width)} {at(height)}" role="img">\n<title>{escape(drawing.title)}</title>\n'
        f"<desc>{escape(picture.caption)}</desc>\n<style>\n{plain_style(style_sheet(), marks)}</style>\n"
        f'<rect class="paper" width="{at(width)}" height="{at(height)}"/>\n{marks}\n</svg>\n'
    )


def _group(drawing: Drawing, top: float) -> str:
    """Return the marks of a drawing, moved to their place."""
    if not drawing.parts:
        return ""
    return f'<g transform="translate({at(MARGIN)} {at(top)})">{"".join(drawing.parts)}</g>'


def plain_style(sheet: str, marks: str) -> str:
    """Return the rules of a style sheet that some marks need, without variables, in the light theme.

    A rule that takes its colour from the class of the mark (``--c``) becomes one for each such class.
    """
    used = {name for names in re.findall(r'class="([^"]*)"', marks) for name in names.split()}
    light, rules = dict(re.findall(r"--([\w-]+): (#\w+)", sheet[: sheet.index("}")])), []
    kinds = {name: light[of] for name, of in re.findall(r"\.([\w-]+) { --c: var\(--([\w-]+)\); }", sheet)}
    kinds = {name: colour for name, colour in kinds.items() if name in used}
    for selector, body in re.findall(r"^svg ([^{]+) { ([^}]+) }", sheet, re.MULTILINE):
        names = [name.strip().removeprefix("svg ") for name in selector.split(",")]
        names = [name for name in names if used.issuperset(name.split(".")[1:])]
        if not names:
            continue
        declared = [entry.strip() for entry in body.split(";") if entry.strip()]
        own = [entry for entry in declared if "var(--c)" in entry]
        if rest := [_resolved(entry, light) for entry in declared if entry not in own]:
            rules.append(f"{', '.join(names)} {{ {'; '.join(rest)} }}")
        rules += [
            f"{', '.join(f'{name}.{kind}' for name in names)} "
            f"{{ {'; '.join(entry.replace('var(--c)', colour) for entry in own)} }}"
            for kind, colour in kinds.items()
            if own
        ]
    return "\n".join([f".paper {{ fill: {light['paper']} }}", *rules, ""])


def _resolved(declaration: str, values: Mapping[str, str]) -> str:
    return re.sub(r"var\(--([\w-]+)\)", lambda found: values[found[1]], declaration)
