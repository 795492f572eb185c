"""What the site does to a page: links that leave the documentation become names of files.

On a code host a page may link to a script or to a folder of results. The site holds the pages alone, so
there such a link is shown as the path it names. Links between pages stay links, and are checked.
"""

from __future__ import annotations

import posixpath
import re
from typing import Any

LINK = re.compile(r"\[(?P<text>[^]]*)\]\((?P<target>[^)\s:#]+)(?:#[^)\s]*)?\)")


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Return the text of a page with links out of the documentation turned into paths."""

    def shown(found: re.Match[str]) -> str:
        path = posixpath.normpath(
            posixpath.join("docs", posixpath.dirname(page.file.src_uri), found["target"])
        )
        if path.startswith("docs/"):
            return found[0]
        text = found["text"]
        return f"`{path}`" if text.strip("`") in (path, posixpath.basename(path)) else f"{text} (`{path}`)"

    return LINK.sub(shown, markdown)
