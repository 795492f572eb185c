"""Labelled images: what stage 1 trains on and encodes, whatever the files they came from.

A split hands out uint8 images by index. `ArraySplit` holds them in memory;
`ldmlr.data.files.FileSplit` decodes them when asked. Everything is checked when a split is
made, so that what follows need not doubt it.
"""

from __future__ import annotations

import abc
import collections
import hashlib
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from PIL import Image

from ldmlr.errors import InputError, counted, opt

Images = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]
Sizes = collections.Counter[tuple[int, int]]
Rows = slice | npt.NDArray[np.integer[Any]] | Sequence[int]


class ImageSplit(abc.ABC):
    """Images with labels, loaded by row.

    Attributes
    ----------
    labels
        Class of each image, int64 ``[N]``, in ``0 .. num_classes - 1``.
    num_classes
        Number of classes of the set, C.
    ids
        One id per image: its row in the source (int64 ``[N]``), or its path (list of text).
    """

    labels: Labels
    num_classes: int
    ids: npt.NDArray[np.int64] | list[str]

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels)

    @property
    def counts(self) -> npt.NDArray[np.int64]:
        """Images per class, ``[C]``."""
        return np.bincount(self.labels, minlength=self.num_classes).astype(np.int64)

    @property
    @abc.abstractmethod
    def shape(self) -> tuple[int, int, int] | None:
        """Height, width and channels of every image; None where the sizes vary."""

    def sizes(self) -> Sizes:
        """Return how often each (width, height) occurs, in a sample of a large set."""
        height, width, _ = self.shape or (0, 0, 0)
        return collections.Counter({(width, height): len(self)})

    @abc.abstractmethod
    def load(self, indices: Rows) -> Images:
        """Return the images of some rows, uint8 ``[n, H, W, C]``.

        Raises
        ------
        InputError
            An image cannot be read or decoded, or the images differ in size.
        """

    @abc.abstractmethod
    def subset(self, indices: npt.NDArray[np.int64]) -> Self:
        """Return a split with only these rows, in this order."""

    @abc.abstractmethod
    def brought_to(self, image_size: int, image_crop: float) -> Self:
        """Return the split with the images of another size.

        Parameters
        ----------
        image_size
            Side of the images, pixels.
        image_crop
            Share of the shorter side that is kept.
        """

    @abc.abstractmethod
    def fingerprint(self) -> str:
        """Return a sha256 of the images as they lie in the source, and of the labels.

        For files it covers relative paths and sizes, not contents, so that it stays cheap. The
        size that images are brought to is not part of it.
        """


class ArraySplit(ImageSplit):
    """Images in memory.

    Parameters
    ----------
    images
        uint8 ``[N, H, W, C]`` with 1 or 3 channels.
    labels
        int64 ``[N]``.
    num_classes
        Number of classes, C.
    ids
        Rows of the source; by default ``0 .. N - 1``.
    image_size
        Resize the shorter side to this many pixels and crop the centre, when loading.
    image_crop
        Share of the shorter side that is kept.
    """

    def __init__(
        self,
        images: Images,
        labels: Labels,
        num_classes: int,
        *,
        ids: npt.NDArray[np.int64] | None = None,
        image_size: int | None = None,
        image_crop: float = 1.0,
    ) -> None:
        self.images = images
        self.labels = labels
        self.num_classes = num_classes
        self.ids: npt.NDArray[np.int64] = np.arange(len(labels)) if ids is None else ids
        same = images.shape[1:3] == (image_size, image_size) and image_crop == 1
        self._image_size, self._image_crop = None if same else image_size, image_crop
        self._fingerprint: str | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels of every image."""
        height, width, channels = self.images.shape[1:]
        size = self._image_size
        return (height, width, channels) if size is None else (size, size, channels)

    def load(self, indices: Rows) -> Images:
        """Return the images of some rows, uint8 ``[n, H, W, C]``."""
        rows = self.images[indices] if isinstance(indices, slice) else self.images[np.asarray(indices, int)]
        if self._image_size is None:
            return rows.copy() if isinstance(indices, slice) else rows
        result = np.empty((len(rows), *self.shape), np.uint8)
        for row, pixels in enumerate(rows):
            image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
            result[row] = np.asarray(resize_and_crop(image, self._image_size, self._image_crop)).reshape(
                self.shape
            )
        return result

    def subset(self, indices: npt.NDArray[np.int64]) -> ArraySplit:
        """Return a split with only these rows, in this order."""
        return ArraySplit(
            self.images[indices],
            self.labels[indices],
            self.num_classes,
            ids=self.ids[indices],
            image_size=self._image_size,
            image_crop=self._image_crop,
        )

    def brought_to(self, image_size: int, image_crop: float) -> ArraySplit:
        """Return the split with the images of another size."""
        return ArraySplit(
            self.images, self.labels, self.num_classes,
            ids=self.ids, image_size=image_size, image_crop=image_crop,
        )  # fmt: skip

    def fingerprint(self) -> str:
        """Return a sha256 of the images and labels."""
        if self._fingerprint is None:
            digest = hashlib.sha256(repr(self.images.shape).encode())
            digest.update(np.ascontiguousarray(self.images).data)
            digest.update(np.ascontiguousarray(self.labels, dtype="<i8").data)
            self._fingerprint = digest.hexdigest()
        return self._fingerprint


def resize_and_crop(image: Image.Image, size: int, crop: float = 1.0) -> Image.Image:
    """Crop a square of the share `crop` of the shorter side from the centre, and resize it (bicubic).

    With 1 that is the whole shorter side at `size` pixels; with 0.875 it is 256 / 224 of them, of which the
    centre stays.
    """
    width, height = image.size
    if (width, height) == (size, size) and crop == 1:
        return image
    # The crop is taken in source coordinates, so that only pixels that stay are computed.
    side = min(width, height) * crop
    left, top = (width - side) / 2, (height - side) / 2
    box = (left, top, left + side, top + side)
    return image.resize((size, size), Image.Resampling.BICUBIC, box=box)


def different_sizes(sizes: Sizes) -> str:
    """Say which sizes images have, and what brings them to one."""
    seen = [f"{width}x{height} ({count:,})" for (width, height), count in sizes.most_common(4)]
    more = f" and {len(sizes) - 4:,} more" if len(sizes) > 4 else ""
    side = min(min(size) for size in sizes)
    # What networks for photographs expect; smaller images are not made larger.
    wanted = min(side, 224)
    return (
        f"the images differ in size: {', '.join(seen)}{more}; bring them to one with "
        f"{opt('image_size', wanted)}"
    )


def check_labels(
    labels: npt.ArrayLike, num_classes: int | None, where: str, rows: int | None = None
) -> Labels:
    """Return labels as int64 ``[N]`` after checking type, shape, number and range.

    Parameters
    ----------
    labels
        What the file holds.
    num_classes
        Number of classes where it is known; else only negative labels are refused.
    where
        File and dataset, for the message.
    rows
        Number of images that must match.
    """
    array = np.asarray(labels)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise InputError(
            f"{where}: labels are {array.dtype} {list(array.shape)}; expected whole numbers "
            "(int64), one per image, [N]"
        )
    if rows is not None and len(array) != rows:
        raise InputError(
            f"{where}: {counted(len(array), 'label')} for {counted(rows, 'image')}; there must be "
            "one label per image"
        )
    wrong = np.flatnonzero((array < 0) | (array >= (num_classes or np.iinfo(np.int32).max)))
    if wrong.size:
        upper = f"{num_classes - 1}" if num_classes else "C-1"
        raise InputError(
            f"{where}: label {int(array[wrong[0]])} in row {int(wrong[0])} is out of range; "
            f"labels must be 0 .. {upper}"
        )
    return array.astype(np.int64)


def infer_classes(labels: npt.ArrayLike, where: str) -> int:
    """Return the number of classes of training labels that must be ``0 .. C-1`` without a gap."""
    present = np.unique(np.asarray(labels))
    if len(present) < 2:
        raise InputError(f"{where}: only {len(present)} class; a classifier needs at least two")
    missing = np.flatnonzero(present != np.arange(len(present)))
    if missing.size:
        raise InputError(
            f"{where}: no training image has label {int(missing[0])}, but one has {int(present[-1])}; "
            "number the classes from 0 without gaps"
        )
    return len(present)


def check_classes(split: ImageSplit, class_names: Sequence[str], where: str) -> None:
    """Refuse a training split with fewer than two classes, or with a class that has no image."""
    if len(class_names) < 2:
        raise InputError(f"{where}: only {len(class_names)} class; a classifier needs at least two")
    empty = np.flatnonzero(split.counts == 0)
    if empty.size:
        more = f" (and {empty.size - 1} more)" if empty.size > 1 else ""
        raise InputError(
            f"{where}: class {int(empty[0])} ({class_names[empty[0]]}){more} has no training image; "
            "add one or remove the class"
        )
