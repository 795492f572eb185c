"""Folders of small images, each class of a colour of its own: red, green and blue."""

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
