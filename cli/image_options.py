"""Options of the commands that read images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

_OPTIONS = (
    click.option(
        "--imbalance-factor", type=float, default=None, metavar="F",
        help="Draw a long-tailed training set: the largest class has F times the images of the smallest.",
    ),
    click.option(
        "--image-root", type=click.Path(path_type=Path), default=None, metavar="DIR",
        help="Folder that the paths of an image list start from.",
    ),
    click.option(
        "--image-size", type=click.IntRange(min=1), default=None, metavar="PIXELS",
        help="Resize the shorter side to this and crop the centre square.",
    ),
)  # fmt: skip


def image_options(function: F) -> F:
    """Add the options of `ldmlr.data.open_image_set`."""
    for decorate in reversed(_OPTIONS):
        function = decorate(function)
    return function
