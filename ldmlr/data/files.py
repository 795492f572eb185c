"""Images that lie in files of their own, decoded when asked for.

Any format Pillow reads. Every image becomes 8-bit RGB: grey levels are repeated, an alpha
channel is dropped, 16-bit grey keeps its upper byte, of an animation the first frame is
taken. Images are turned as the orientation tag of cameras (EXIF) says.
"""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from ldmlr.boundary import first_line
from ldmlr.data.images import (
    Images,
    ImageSplit,
    Labels,
    Rows,
    Sizes,
    different_sizes,
    resize_and_crop,
)  # fmt: skip
from ldmlr.errors import InputError, counted, opt
from ldmlr.progress import track

T = TypeVar("T")

# Images whose headers are read to tell whether all have the same size.
_PROBES = 32
_MAX_THREADS = 16
# Images whose headers are read to say which sizes there are.
_SIZES_OF = 5000
# Images that the message of an error names; `--dry-run` lists the others too.
_NAMED = 10
_ORIENTATION = 0x0112


@dataclasses.dataclass(frozen=True)
class ImageFile:
    """One image: its path below the root, its length in bytes, and its line in a list (or None)."""

    name: str
    length: int
    line: int | None = None


@dataclasses.dataclass(frozen=True)
class BadImage:
    """An image that cannot be used: its row, where it is in words, and why."""

    row: int
    where: str
    reason: str


class BadImages(InputError):
    """Images that cannot be decoded.

    Attributes
    ----------
    images
        All of them that were found.
    """

    def __init__(self, message: str, images: Sequence[BadImage] = ()) -> None:
        super().__init__(message)
        self.images = tuple(images)


def refusal(bad: Sequence[BadImage], in_list: bool = False) -> BadImages:
    """Return the error that names images that cannot be used, and what to do."""
    remedy = "out of the list" if in_list else "away"
    if len(bad) == 1:
        what = f"{bad[0].where}: cannot be decoded ({bad[0].reason}); replace it or take it {remedy}"
    else:
        named = ", ".join(f"{image.where} ({image.reason})" for image in bad[:_NAMED])
        more = f" and {len(bad) - _NAMED:,} more" if len(bad) > _NAMED else ""
        what = (
            f"{counted(len(bad), 'image')} cannot be decoded: {named}{more}; replace them or take them "
            f"{remedy}"
        )
    return BadImages(f"{what}, or go on without with {opt('skip_bad', True)}", bad)


class FileSplit(ImageSplit):
    """Images in files below one root.

    Safe to hand to worker processes: it holds no open file and no thread.

    Parameters
    ----------
    root
        Folder that the names start from.
    files
        One entry per image.
    labels
        int64 ``[N]``.
    num_classes
        Number of classes, C.
    image_size
        Resize the shorter side to this many pixels and crop the centre; None leaves the size.
    image_crop
        Share of the shorter side that is kept.
    listing
        The list file, for messages.
    """

    ids: list[str]

    def __init__(
        self,
        root: Path,
        files: Sequence[ImageFile],
        labels: Labels,
        num_classes: int,
        *,
        image_size: int | None = None,
        image_crop: float = 1.0,
        listing: Path | None = None,
    ) -> None:
        self.root = root
        self.files = list(files)
        self.labels = labels
        self.num_classes = num_classes
        self.ids = [file.name for file in self.files]
        self.threads = min(len(os.sched_getaffinity(0)), _MAX_THREADS)
        self._image_size, self._image_crop = image_size, image_crop
        self._listing = listing
        self._shape: tuple[int, int, int] | None = None
        self._probed = False

    @property
    def shape(self) -> tuple[int, int, int] | None:
        """Height, width and 3 channels; None where a sample of the files differs in size."""
        if self._image_size is not None:
            return (self._image_size, self._image_size, 3)
        if not self._probed:
            rows = np.unique(np.linspace(0, len(self) - 1, min(_PROBES, len(self))).astype(int))
            sizes = self._sizes(rows)
            self._shape = (*next(iter(sizes))[::-1], 3) if len(sizes) == 1 else None
            self._probed = True
        return self._shape

    def sizes(self) -> Sizes:
        """Return how often each (width, height) occurs among up to 5,000 images spread evenly."""
        return self._sizes(np.unique(np.linspace(0, len(self) - 1, min(_SIZES_OF, len(self))).astype(int)))

    def _sizes(self, rows: npt.NDArray[np.int64]) -> Sizes:
        def size(row: int) -> tuple[int, int] | BadImage:
            return self._read(row, _size)

        found = self._each(size, rows.tolist())
        self._check([entry for entry in found if isinstance(entry, BadImage)])
        return collections.Counter(entry for entry in found if isinstance(entry, tuple))

    def load(self, indices: Rows) -> Images:
        """Decode some rows, uint8 ``[n, H, W, 3]``, with up to `threads` threads.

        Raises
        ------
        InputError
            An image is missing or does not decode (the message names it and its line in the
            list), or the images differ in size.
        """
        rows = np.arange(len(self))[indices].tolist()
        found = self._each(self._decode, rows)
        self._check([entry for entry in found if isinstance(entry, BadImage)])
        arrays = [entry for entry in found if not isinstance(entry, BadImage)]
        for row, array in zip(rows, arrays, strict=True):
            if array.shape != arrays[0].shape:
                raise InputError(f"{self._where(row)}: {different_sizes(self.sizes())}")
        return np.stack(arrays) if arrays else np.zeros((0, *(self.shape or (0, 0, 3))), np.uint8)

    def bad(self, label: str = "checking the images") -> list[BadImage]:
        """Decode every image and return those that cannot be, in the order of the rows.

        The `shape` is then that of all images, not of a sample.
        """
        step = 64 * self.threads
        starts = range(0, len(self), step)
        found: list[BadImage] = []
        shapes: set[tuple[int, int, int]] = set()
        for start in track(starts, label, len(starts), unit="batches"):
            rows = list(range(start, min(start + step, len(self))))
            for entry in self._each(self._shape_or_bad, rows):
                if isinstance(entry, BadImage):
                    found.append(entry)
                else:
                    shapes.add(entry)
        self._shape, self._probed = (shapes.pop() if len(shapes) == 1 else None), True
        return found

    def _shape_or_bad(self, row: int) -> tuple[int, int, int] | BadImage:
        found = self._decode(row)
        return found if isinstance(found, BadImage) else (found.shape[0], found.shape[1], found.shape[2])

    def _each(self, work: Callable[[int], T], rows: list[int]) -> list[T]:
        """Do some work for each row, with up to `threads` threads."""
        if len(rows) > 1 and self.threads > 1:
            with ThreadPoolExecutor(min(self.threads, len(rows))) as pool:
                return list(pool.map(work, rows))
        return [work(row) for row in rows]

    def _check(self, bad: list[BadImage]) -> None:
        if bad:
            raise refusal(bad, in_list=self._listing is not None)

    def subset(self, indices: npt.NDArray[np.int64]) -> FileSplit:
        """Return a split with only these rows, in this order."""
        return FileSplit(
            self.root,
            [self.files[i] for i in indices.tolist()],
            self.labels[indices],
            self.num_classes,
            image_size=self._image_size,
            image_crop=self._image_crop,
            listing=self._listing,
        )

    def brought_to(self, image_size: int, image_crop: float) -> FileSplit:
        """Return the split with the images of another size."""
        return FileSplit(
            self.root, self.files, self.labels, self.num_classes,
            image_size=image_size, image_crop=image_crop, listing=self._listing,
        )  # fmt: skip

    def fingerprint(self) -> str:
        """Return a sha256 of the names, lengths and labels of the files."""
        digest = hashlib.sha256()
        for file, label in zip(self.files, self.labels.tolist(), strict=True):
            digest.update(f"{file.name}\0{file.length}\0{label}\n".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()

    def _decode(self, row: int) -> Images | BadImage:
        found = self._read(row, self._prepare)
        return found if isinstance(found, BadImage) else np.asarray(found)

    def _read(self, row: int, use: Callable[[Image.Image], T]) -> T | BadImage:
        """Open the image of a row and use it; what is wrong with it instead, if anything is."""
        try:
            with Image.open(self.root / self.files[row].name) as image:
                return use(image)
        except UnidentifiedImageError:
            reason = "not an image that Pillow can read"
        except OSError as error:
            reason = error.strerror or first_line(error)
        except Exception as error:  # decoders of damaged files raise errors of many kinds
            reason = first_line(error)
        return BadImage(row, self._where(row), reason)

    def _prepare(self, image: Image.Image) -> Image.Image:
        size = self._image_size
        if size is not None:
            # A JPEG is decoded at a half, a quarter or an eighth where twice the target remains.
            needed = int(np.ceil(2 * size / self._image_crop))
            image.draft("RGB", (needed, needed))
        image = to_rgb(image, _orientation(image))
        return image if size is None else resize_and_crop(image, size, self._image_crop)

    def _where(self, row: int) -> str:
        file = self.files[row]
        line = f"{self._listing}: line {file.line}: " if self._listing else ""
        return f"{line}{self.root / file.name}"


def _orientation(image: Image.Image) -> int:
    """Return the orientation tag of a camera, 1 .. 8; 1, upright, where there is none or it is damaged."""
    if image.format == "PNG" and "exif" not in image.info:
        return 1  # looking further would decode it
    try:
        found = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # a damaged tag is none; the pixels may be whole
        return 1
    return found if found in range(1, 9) else 1


def _size(image: Image.Image) -> tuple[int, int]:
    """Return width and height of an image as it is seen."""
    width, height = image.size
    return (height, width) if _orientation(image) >= 5 else (width, height)


# How to turn the pixels of an orientation upright (EXIF 2.32, tag 0x0112).
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # fmt: skip


def to_rgb(image: Image.Image, orientation: int = 1) -> Image.Image:
    """Return an image as 8-bit RGB, turned upright.

    Parameters
    ----------
    image
        The image.
    orientation
        How a camera was held, as EXIF counts it; 1 is upright.

    Raises
    ------
    ValueError
        The pixels are floating-point numbers, whose range is unknown.
    """
    if image.mode == "F":
        raise ValueError("floating-point pixels; save it with 8 bits per channel")
    if image.mode.startswith("I"):
        # Pillow would clip 16-bit grey at 255.
        grey = np.clip(np.asarray(image).astype(np.int64) >> 8, 0, 255).astype(np.uint8)
        image = Image.fromarray(grey)
    elif image.mode == "P":
        # Straight to RGB, Pillow warns about the transparency of a palette.
        image = image.convert("RGBA")
    image = image.convert("RGB")
    return image if orientation == 1 else image.transpose(_UPRIGHT[orientation])
