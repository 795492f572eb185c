"""Batches of pixels from an image split, in memory or read ahead, and their statistics."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import torch

from ldmlr.data.images import ImageSplit, different_sizes
from ldmlr.data.imageset import ImageSet
from ldmlr.errors import InputError, opt

# Sets up to this size are decoded once and kept, in bytes; larger ones are read batch by batch.
MEMORY_LIMIT = 1 << 30
# Images that the pixel statistics are taken from, spread evenly over larger sets.
STATISTICS_ROWS = 20_000

Rows = npt.NDArray[np.int64]


class Pixels:
    """The images of a split as uint8 tensors ``[n, C, H, W]`` (with the channels last in memory).

    Parameters
    ----------
    split
        The images.
    memory_limit
        Keep the whole split in memory if it is no larger than this, bytes.
    """

    def __init__(self, split: ImageSplit, memory_limit: int = MEMORY_LIMIT) -> None:
        self._split = split
        self.shape = image_shape(split)
        size = len(split) * int(np.prod(self.shape))
        kept = size <= memory_limit
        self._images = torch.from_numpy(split.load(slice(0, len(split)))) if kept else None

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._split)

    def keep_on(self, device: torch.device) -> None:
        """Move the images that are kept in memory to a device; `load` then returns them there."""
        if self._images is not None:
            self._images = self._images.to(device)

    def load(self, rows: Rows) -> torch.Tensor:
        """Return the images of some rows."""
        if self._images is None:
            pixels = torch.from_numpy(self._split.load(rows))
        else:
            pixels = self._images[torch.from_numpy(rows).to(self._images.device)]
        return pixels.permute(0, 3, 1, 2)

    def batches(self, plan: Iterable[Rows]) -> Iterator[tuple[Rows, torch.Tensor]]:
        """Yield the rows and images of each batch of a plan; the next one is read meanwhile."""
        if self._images is not None:
            for rows in plan:
                yield rows, self.load(rows)
            return
        with ThreadPoolExecutor(max_workers=1) as reader:
            ahead = None
            for rows in plan:
                following = rows, reader.submit(self.load, rows)
                if ahead is not None:
                    yield ahead[0], ahead[1].result()
                ahead = following
            if ahead is not None:
                yield ahead[0], ahead[1].result()

    def statistics(self) -> tuple[list[float], list[float]]:
        """Return mean and standard deviation of each channel, of values 0 .. 255.

        They are exact, from histograms, over all images or 20,000 spread evenly.
        """
        count = min(len(self), STATISTICS_ROWS)
        chosen = np.linspace(0, len(self) - 1, count).round().astype(np.int64)
        plan = np.array_split(chosen, -(-count // 500))
        histogram = np.zeros((self.shape[2], 256), np.int64)
        for _, images in self.batches(plan):
            for channel, bins in enumerate(histogram):
                bins += torch.bincount(images[:, channel].flatten(), minlength=256).numpy()
        values, total = np.arange(256), histogram.sum(1)
        mean = histogram @ values / total
        variance = histogram @ values.astype(np.int64) ** 2 / total - mean**2
        # A constant channel (blank images) must not divide by zero: one grey level is the least.
        std = np.sqrt(np.maximum(variance, 1.0))
        return mean.tolist(), std.tolist()


def image_shape(split: ImageSplit) -> tuple[int, int, int]:
    """Return height, width and channels; images of varying sizes are refused."""
    if split.shape is None:
        raise InputError(different_sizes(split.sizes()))
    return split.shape


def common_shape(images: ImageSet) -> tuple[int, int, int]:
    """Return the `image_shape` of all splits; another size of test or validation images is refused.

    Raises
    ------
    InputError
        They differ; both sizes are named.
    """
    shape = image_shape(images.train)
    for name, split in (("test", images.test), ("val", images.val)):
        if split is not None and split.shape != shape:
            found = "differ in size" if split.shape is None else f"are {list(split.shape)}"
            raise InputError(
                f"{images.name}: its {name} images {found}, and those for training are {list(shape)} "
                f"(height, width, channels); bring them to one size with {opt('image_size')} PIXELS"
            )
    return shape


def even_batches(rows: Rows, size: int) -> list[Rows]:
    """Split rows into batches of near-equal length, at most `size`: none is a small remainder.

    Nor is any a single row, of which batch normalisation has no statistics, unless it is the only one.
    """
    return np.array_split(rows, max(1, min(-(-len(rows) // size), len(rows) // 2)))
