"""Folders of small images: each class of a colour of its own, or images of one value each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image


def write_photos(
    folder: Path, splits: Mapping[str, Sequence[int]], size: int, ending: str, rng: np.random.Generator
) -> Path:
    """Write SPLIT/kindLABEL/NUMBER images, so many of each class as a split says, and return the folder."""
    for split, counts in splits.items():
        for label, count in enumerate(counts):
            place = folder / split / f"kind{label}"
            place.mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 60, (size, size, 3), np.uint8)
                pixels[..., label] += 120
                Image.fromarray(pixels).save(place / f"{i}.{ending}")
    return folder


def save(
    path: Path, value: int | tuple[int, ...] = 0, size: tuple[int, int] = (8, 6), mode: str = "RGB"
) -> Path:
    """Save an image of one colour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value).save(path)
    return path


def write_pets(folder: Path) -> Path:
    """Write two classes in a folder each: three cats (values 0, 10, 20), two dogs (100, 110)."""
    for i, (name, value) in enumerate([("cat/a.png", 0), ("cat/b.png", 10), ("cat/c.png", 20),
                                       ("dog/a.png", 100), ("dog/b.png", 110)]):  # fmt: skip
        save(folder / "pets" / name, (value, i, 0))
    return folder / "pets"
