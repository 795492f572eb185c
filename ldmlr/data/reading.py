"""How an image set is read, and what is to be said of what was found."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ldmlr.data.files import BadImage


@dataclasses.dataclass
class Reading:
    """The reading of one image set.

    Attributes
    ----------
    image_root
        Folder that the paths of an image list start from; None: the folder of the list.
    image_size
        Bring images to this size; None leaves them.
    skip_bad
        Go on without images that cannot be decoded.
    notes
        Sentences on what was left out or taken for something else.
    skipped
        Images that were left out as they cannot be used: file and reason.
    """

    image_root: Path | None = None
    image_size: int | None = None
    skip_bad: bool = False
    notes: list[str] = dataclasses.field(default_factory=list)
    skipped: list[dict[str, Any]] = dataclasses.field(default_factory=list)

    def note(self, text: str) -> None:
        """Say something of the set."""
        self.notes.append(text)

    def skip(self, bad: Iterable[BadImage]) -> None:
        """Leave images out."""
        self.skipped += [{"file": image.where, "why": image.reason} for image in bad]
