"""The type of options and arguments that are paths: a file, a folder, or the URL of an object elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ldmlr.remote import as_path, is_remote


class Location(click.Path):
    """A path as the commands take it; a URL stays one."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path of a text."""
        path = as_path(value)
        return path if is_remote(path) else super().convert(path, param, ctx)
