"""A picture: its words, its drawing, and its files, which are the same every time.

matplotlib is an extra, and importing it takes longer than most commands: it is loaded when something is
drawn. Neither pyplot nor a window nor the user's ``matplotlibrc`` has a say.
"""

from __future__ import annotations

import dataclasses
import io
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar
from xml.etree import ElementTree

from ldmlr.errors import LdmlrError
from ldmlr.report.canvas import SMALL, WIDE, WORDS, Sheet
from ldmlr.report.theme import Theme

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = ("svg", "pdf", "png")
INSTALL = "pip install 'ldmlr[report]'"
# Two of its pixels are one of the page.
PNG_DPI = 192
# In a file only what was drawn and what it shows: no date, no versions.
NOTHING: dict[str, dict[str, Any]] = {
    "svg": dict.fromkeys(("Date", "Creator", "Format", "Type")),
    "pdf": dict.fromkeys(("CreationDate", "Creator", "Producer")),
    "png": {"Software": None},
}
SVG = "http://www.w3.org/2000/svg"
XLINK = "http://www.w3.org/1999/xlink"


def missing() -> str:
    """Return why there can be no pictures, or an empty text."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        return "matplotlib is not installed"
    return ""


def require() -> None:
    """Refuse to draw where matplotlib is not installed.

    Raises
    ------
    LdmlrError
        With the command that installs it.
    """
    if why := missing():
        raise LdmlrError(f"pictures cannot be drawn: {why}; run {INSTALL}")


@dataclasses.dataclass(frozen=True)
class Picture:
    """What is drawn, and its words.

    Parameters
    ----------
    name
        What its files are called, without theme and ending.
    alt
        What it shows, for those who cannot see it.
    caption
        What to know to read it.
    draw
        Draws it in a theme, at a width in pixels.
    """

    kind: ClassVar[str] = "picture"

    name: str
    alt: str
    caption: str
    draw: Callable[[Theme, int], Sheet]

    def render(self, theme: Theme, width: int = WIDE, formats: Sequence[str] = FORMATS) -> dict[str, bytes]:
        """Return the files of the picture.

        Parameters
        ----------
        theme
            Its colours.
        width
            In pixels.
        formats
            Some of ``svg``, ``pdf`` and ``png``.

        Returns
        -------
        dict
            Format -> bytes; the same picture gives the same bytes.
        """
        with style():
            figure = self.draw(theme, width).figure
            return {kind: _file(figure, kind, self.alt) for kind in formats}


@contextmanager
def style() -> Iterator[None]:
    """Set matplotlib's options, whatever the user's are, and put them back."""
    from matplotlib.style import context

    ours = {
        "font.family": "sans-serif", "font.sans-serif": ["DejaVu Sans", "Verdana"], "font.size": WORDS,
        # A class may be called $x$; that is no formula.
        "text.parse_math": False, "axes.unicode_minus": False,
        "axes.titlesize": WORDS, "axes.titleweight": "bold", "axes.titlelocation": "left",
        "axes.labelsize": SMALL, "xtick.labelsize": SMALL, "ytick.labelsize": SMALL,
        "xtick.major.size": 0, "ytick.major.size": 0, "axes.axisbelow": True, "axes.grid": True,
        "grid.linewidth": 0.75, "legend.fontsize": WORDS, "legend.frameon": False,
        # Words stay words in an SVG file: they can be searched, read aloud and edited.
        "svg.fonttype": "none", "svg.hashsalt": "ldmlr", "pdf.fonttype": 42, "path.simplify": False,
    }  # fmt: skip
    with warnings.catch_warnings(), context(["default", ours]):
        # A script that this font lacks is drawn by the browser's.
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from")
        yield


def _file(figure: Figure, kind: str, alt: str) -> bytes:
    """Return a figure as the bytes of a file."""
    words = {"svg": {}, "pdf": {"Title": alt}, "png": {"Description": alt}}[kind]
    data = io.BytesIO()
    figure.savefig(
        data, format=kind, dpi=PNG_DPI if kind == "png" else 72, metadata={**NOTHING[kind], **words}
    )
    return _tidied(data.getvalue(), alt) if kind == "svg" else data.getvalue()


def _tidied(data: bytes, alt: str) -> bytes:
    """Return an SVG document as the image that it is, with what it shows in its title, in half the bytes.

    matplotlib's comments, its names of groups and its document type, which names an address, go; coordinates
    are rounded to hundredths of a point.
    """
    ElementTree.register_namespace("", SVG)
    ElementTree.register_namespace("xlink", XLINK)
    root = ElementTree.fromstring(data)
    for metadata in root.findall(f"{{{SVG}}}metadata"):
        root.remove(metadata)
    for element in root.iter():
        element.tail = None
        if element.tag == f"{{{SVG}}}g":
            element.text = None
            element.attrib.pop("id", None)
        if "d" in element.attrib:
            element.set("d", " ".join(map(_rounded, element.attrib["d"].split())))
    root.set("role", "img")
    title = ElementTree.Element(f"{{{SVG}}}title")
    title.text = alt
    root.insert(0, title)
    found: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return found


def _rounded(token: str) -> str:
    """Return a number of a path with two decimals at most; a letter as it is."""
    return token if token.isalpha() else f"{float(token):.2f}".rstrip("0").rstrip(".")
