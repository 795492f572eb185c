"""What a section of the page is made of: plain data, which the template lays out by its kind.

Nothing here is HTML; every text is taken as words.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import ClassVar

from ldmlr.report.picture import Picture


@dataclasses.dataclass(frozen=True)
class Words:
    """A paragraph."""

    kind: ClassVar[str] = "words"
    text: str
    soft: bool = False


@dataclasses.dataclass(frozen=True)
class Heading:
    """A heading within a section."""

    kind: ClassVar[str] = "heading"
    text: str


@dataclasses.dataclass(frozen=True)
class Bullets:
    """A list."""

    kind: ClassVar[str] = "bullets"
    lines: Sequence[str]
    soft: bool = False


@dataclasses.dataclass(frozen=True)
class Judgement:
    """The verdict: a headline, lines below it, and the outcome that colours it."""

    kind: ClassVar[str] = "judgement"
    headline: str
    lines: Sequence[str]
    outcome: str


@dataclasses.dataclass(frozen=True)
class Table:
    """A table whose first column names the row.

    Parameters
    ----------
    header
        One heading per column.
    rows
        Cells.
    caption
        What the table shows.
    chosen
        Numbers of the rows that stand out.
    wordy
        The last column is prose.
    """

    kind: ClassVar[str] = "table"
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    chosen: frozenset[int] = frozenset()
    wordy: bool = False


@dataclasses.dataclass(frozen=True)
class Heat:
    """A square of shares in per cent, coloured: rows are labels, columns predictions."""

    kind: ClassVar[str] = "heat"
    names: Sequence[str]
    shares: Sequence[Sequence[float]]
    caption: str


@dataclasses.dataclass(frozen=True)
class Facts:
    """Names and values."""

    kind: ClassVar[str] = "facts"
    values: Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class Code:
    """Text as it is."""

    kind: ClassVar[str] = "code"
    text: str


@dataclasses.dataclass(frozen=True)
class Folded:
    """Blocks folded away under a line of words."""

    kind: ClassVar[str] = "folded"
    summary: str
    blocks: Sequence[Block]


Block = Words | Heading | Bullets | Judgement | Table | Heat | Facts | Code | Folded | Picture


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of the page: its anchor, its heading and what is in it."""

    name: str
    title: str
    blocks: Sequence[Block]

    @property
    def pictures(self) -> list[Picture]:
        """Those of its blocks that are drawn."""
        return [block for block in self.blocks if isinstance(block, Picture)]
