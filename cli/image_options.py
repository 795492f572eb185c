"""Options of the commands that read images, and opening what they name."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from .location import Location
from .options import say

if TYPE_CHECKING:
    from ldmlr.data.imageset import ImageSet

F = TypeVar("F", bound=Callable[..., Any])

_OPTIONS = (
    click.option(
        "--imbalance-factor", type=float, default=None, metavar="F",
        help="Draw a long-tailed training set: the largest class has F times the images of the smallest.",
    ),
    click.option(
        "--image-root", type=Location(), default=None, metavar="DIR",
        help="Folder that the paths of an image list start from.",
    ),
    click.option(
        "--image-size", type=click.IntRange(min=1), default=None, metavar="PIXELS",
        help="Resize the shorter side to this and crop the centre square.",
    ),
    click.option(
        "--image-crop", type=click.FloatRange(0, 1, min_open=True), default=None, metavar="F",
        help="Share of the shorter side that the crop keeps, such as 0.875.  [default: all]",
    ),
    click.option(
        "--test-fraction", type=click.FloatRange(0, 0.9, min_open=True), default=None, metavar="F",
        help="Without a test split: draw this share of every class as one, the same for every seed.",
    ),
    click.option(
        "--skip-bad", is_flag=True,
        help="Go on without images that cannot be decoded; result.json lists them.",
    ),
)  # fmt: skip
NAMES = ("imbalance_factor", "image_root", "image_size", "image_crop", "test_fraction", "skip_bad")


def image_options(function: F) -> F:
    """Add the options of `ldmlr.data.open_image_set`."""
    for decorate in reversed(_OPTIONS):
        function = decorate(function)
    return function


def open_images(source: str, values: dict[str, Any], seed: int, check: bool) -> ImageSet:
    """Open an image set by a command's options, and say what is to be said of it.

    Parameters
    ----------
    source
        What the command names.
    values
        The options.
    seed
        Of a long-tailed draw.
    check
        Look into every file, as for --dry-run: all that are bad are listed.
    """
    from ldmlr.data.open import open_image_set

    images = open_image_set(source, seed=seed, **values)
    for note in images.notes:
        say(note)
    if check:
        checked(images.check_images)
    return images


def checked(look: Callable[[], None]) -> None:
    """Look into every image, and list all that are bad before the error that names the first of them."""
    from ldmlr.data.files import BadImages

    try:
        look()
    except BadImages as error:
        for image in error.images:
            say(f"{image.where}: {image.reason}")
        raise
