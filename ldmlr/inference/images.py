"""Features of new images, by the encoder that the run trained: a folder of images, or a single one."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from ldmlr.data.files import FileSplit, ImageFile
from ldmlr.data.folders import ENDINGS
from ldmlr.device import resolve_device
from ldmlr.encoders.model import Baseline
from ldmlr.errors import InputError, UsageError
from ldmlr.inference.chosen import Chosen
from ldmlr.store.convert.saved_dataset import is_saved_dataset

BATCH = 256
Block = tuple[int, Sequence[str] | None, npt.NDArray[np.float32]]


def image_features(chosen: Chosen, source: Path, device: str) -> tuple[int, Iterator[Block]] | None:
    """Return how many images there are, and their features block by block; None for a source of features.

    Images are brought to the size of those that the encoder was trained on.

    Raises
    ------
    InputError
        The folder has no image, or one cannot be decoded.
    UsageError
        There are images, and no encoder.
    """
    files = _files(source)
    if files is None:
        return None
    if chosen.encoder is None:
        raise UsageError(
            f"{source}: holds images, and {chosen.path} has no encoder; give features, or the folder of "
            "a run that started from images"
        )
    root, names = files
    baseline = Baseline.load(chosen.encoder, (None,))
    height, width, channels = baseline.shape
    if channels != 3 or height != width:
        raise UsageError(
            f"{source}: the encoder of {chosen.path} takes images of {height} x {width} x {channels}, which "
            "files are not brought to; encode them with ldmlr encode, and give the store"
        )
    split = FileSplit(root, names, np.zeros(len(names), np.int64), 1, image_size=height)
    return len(names), _encoded(baseline, split, bool(chosen.encoding.get("mirror")), device)


def _files(source: Path) -> tuple[Path, list[ImageFile]] | None:
    """Return the images of a folder and those below it, sorted; None for what holds no images."""
    if source.is_file() and source.suffix.lower() in ENDINGS:
        return source.parent, [ImageFile(source.name, source.stat().st_size)]
    if not source.is_dir() or is_saved_dataset(source):
        return None
    found = []
    for folder, inside, files in os.walk(source):
        inside[:] = sorted(name for name in inside if not name.startswith("."))
        for name in sorted(files):
            if Path(name).suffix.lower() in ENDINGS and not name.startswith("."):
                path = Path(folder, name)
                found.append(ImageFile(path.relative_to(source).as_posix(), path.stat().st_size))
    if not found:
        raise InputError(f"{source}: has no image (.jpg, .png, .webp, ...) in it; name a folder of images")
    return source, found


def _encoded(baseline: Baseline, split: FileSplit, mirror: bool, device: str) -> Iterator[Block]:
    place = resolve_device(device)
    baseline.network.to(place)
    for start in range(0, len(split), BATCH):
        stop = min(start + BATCH, len(split))
        pixels = torch.from_numpy(split.load(slice(start, stop))).permute(0, 3, 1, 2)
        features = baseline.features(pixels, place)
        if mirror:
            features = (features + baseline.features(pixels.flip(3), place)) / 2
        yield start, split.ids[start:stop], features.cpu().numpy()
