"""Images that lie in files of their own, decoded when asked for.

Any format Pillow reads. Every image becomes 8-bit RGB: grey levels are repeated, an alpha
channel is dropped, 16-bit grey keeps its upper byte, of an animation the first frame is
taken. The orientation tag of cameras (EXIF) is ignored, as usual for these data sets.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from ldmlr.data.images import Images, ImageSplit, Labels, Rows, one_line, resize_and_crop
from ldmlr.errors import InputError, opt

# Images whose headers are read to tell whether all have the same size.
_PROBES = 32
_MAX_THREADS = 16


@dataclasses.dataclass(frozen=True)
class ImageFile:
    """One image: its path below the root, its length in bytes, and its line in a list (or None)."""

    name: str
    length: int
    line: int | None = None


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
        listing: Path | None = None,
    ) -> None:
        self.root = root
        self.files = list(files)
        self.labels = labels
        self.num_classes = num_classes
        self.ids = [file.name for file in self.files]
        self.threads = min(len(os.sched_getaffinity(0)), _MAX_THREADS)
        self._image_size = image_size
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
            sizes = {self._read(int(row), pixels=False).size for row in rows}
            self._shape = (*sizes.pop()[::-1], 3) if len(sizes) == 1 else None
            self._probed = True
        return self._shape

    def load(self, indices: Rows) -> Images:
        """Decode some rows, uint8 ``[n, H, W, 3]``, with up to `threads` threads.

        Raises
        ------
        InputError
            An image is missing or does not decode (the message names it and its line in the
            list), or the images differ in size.
        """
        rows = np.arange(len(self))[indices].tolist()
        if len(rows) > 1 and self.threads > 1:
            with ThreadPoolExecutor(min(self.threads, len(rows))) as pool:
                arrays = list(pool.map(self._decode, rows))
        else:
            arrays = [self._decode(row) for row in rows]
        for row, array in zip(rows, arrays, strict=True):
            if array.shape != arrays[0].shape:
                sizes = [f"{a.shape[1]}x{a.shape[0]}" for a in (array, arrays[0])]
                raise InputError(
                    f"{self._where(row)}: is {sizes[0]}, others are {sizes[1]}; pass "
                    f"{opt('image_size')} to bring "
                    "all images to one size"
                )
        return np.stack(arrays) if arrays else np.zeros((0, *(self.shape or (0, 0, 3))), np.uint8)

    def subset(self, indices: npt.NDArray[np.int64]) -> FileSplit:
        """Return a split with only these rows, in this order."""
        return FileSplit(
            self.root,
            [self.files[i] for i in indices.tolist()],
            self.labels[indices],
            self.num_classes,
            image_size=self._image_size,
            listing=self._listing,
        )

    def fingerprint(self) -> str:
        """Return a sha256 of the names, lengths and labels of the files."""
        digest = hashlib.sha256()
        for file, label in zip(self.files, self.labels.tolist(), strict=True):
            digest.update(f"{file.name}\0{file.length}\0{label}\n".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()

    def _decode(self, row: int) -> Images:
        return np.asarray(self._read(row, pixels=True))

    def _read(self, row: int, pixels: bool) -> Image.Image:
        try:
            with Image.open(self.root / self.files[row].name) as image:
                return self._prepare(image) if pixels else image
        except UnidentifiedImageError:
            reason = "not an image that Pillow can read"
        except OSError as error:
            reason = error.strerror or one_line(error)
        except Exception as error:  # decoders of damaged files raise errors of many kinds
            reason = one_line(error)
        remedy = "replace it or take it out of the list" if self._listing else "replace or remove it"
        raise InputError(f"{self._where(row)}: cannot be decoded ({reason}); {remedy}")

    def _prepare(self, image: Image.Image) -> Image.Image:
        size = self._image_size
        if size is not None:
            # A JPEG is decoded at a half, a quarter or an eighth where twice the target remains.
            image.draft("RGB", (2 * size, 2 * size))
        image = to_rgb(image)
        return image if size is None else resize_and_crop(image, size)

    def _where(self, row: int) -> str:
        file = self.files[row]
        line = f"{self._listing}: line {file.line}: " if self._listing else ""
        return f"{line}{self.root / file.name}"


def to_rgb(image: Image.Image) -> Image.Image:
    """Return an image as 8-bit RGB.

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
    return image.convert("RGB")
