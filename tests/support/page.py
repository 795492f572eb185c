"""A page of ``ldmlr report``, parsed and checked: well formed, and nothing is loaded."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

VOID = {"meta", "br", "link", "img", "hr", "input", "source"}
SVG = "data:image/svg+xml;base64,"
# The elements of a drawing: shapes and words, nothing that could do something.
DRAWN = {"svg", "title", "defs", "style", "g", "path", "use", "text", "tspan", "clipPath", "rect"}


class Page(HTMLParser):
    """Parses a page and notes what is wrong with it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        assert len(dict(attrs)) == len(attrs), f"<{tag}> has an attribute twice"
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(self.words)

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]


def check_page(path: Path) -> Page:
    """Return the page after the checks that hold for every page."""
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert len(text.encode()) < 1_000_000
    # Nothing is loaded: no scripts, no frames, no addresses but anchors of the page itself.
    names = {tag for tag, _ in page.tags}
    assert not names & {"script", "link", "iframe", "object", "embed", "image", "use", "base", "svg"}
    for tag, attrs in page.tags:
        assert not any(key.startswith("on") or key == "action" for key in attrs), tag
        assert (attrs.get("href") or "#").startswith("#")
        for key in {"src", "srcset"} & set(attrs):
            check_drawing(str(attrs[key]))
    assert not re.search(r"url\(|@import|https?://", text)
    assert "default-src 'none'; style-src 'unsafe-inline'; img-src data:" in text
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert {str(attrs["href"])[1:] for attrs in page.named("a")} <= set(ids)
    # Headers in tables, and words for those who cannot see the pictures.
    assert text.count("<table") == text.count("<thead")
    assert all(attrs.get("scope") in ("row", "col") for attrs in page.named("th"))
    assert all(len(str(attrs["alt"])) > 40 for attrs in page.named("img"))
    # Each picture for the screen and the phone, in light and in dark.
    assert len(page.named("source")) == 3 * len(page.named("img"))
    assert text.count("prefers-color-scheme: dark") == 1 + 2 * len(page.named("img"))
    return page


def check_drawing(address: str) -> None:
    """Check a picture of a page: SVG that loads nothing, with finite coordinates."""
    assert address.startswith(SVG)
    root = ElementTree.fromstring(base64.b64decode(address.removeprefix(SVG), validate=True))
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert root.get("role") == "img"
    for element in root.iter():
        assert element.tag.rpartition("}")[2] in DRAWN, element.tag
        for key, value in element.attrib.items():
            assert not key.startswith("on")
            assert not key.endswith("href") or value.startswith("#")
            assert not re.search(r"url\((?!#)|@import|https?://", value)
            if key in ("d", "x", "y", "width", "height", "viewBox"):
                assert "nan" not in value
                assert "inf" not in value
