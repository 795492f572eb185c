"""A format: a small sound file, its mutator, and the reading as commands do it; what files are made of."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from . import mutate

FIXTURES = Path(__file__).parent.parent / "fixtures"
RNG = np.random.default_rng(0)
X = RNG.standard_normal((24, 5)).astype(np.float32)
Y = np.arange(24) % 3
NAMES = ("ant", "bee", "cat")


@dataclasses.dataclass(frozen=True)
class Format:
    """One format.

    Parameters
    ----------
    name
        In words.
    write
        Writes a sound file into a folder and returns its name.
    read
        Reads a file as the commands do and returns what stands for its contents.
    mutate
        The mutator.
    checksum
        Whether contents that differ must be noticed.
    """

    name: str
    write: Callable[[Path], str]
    read: Callable[[Path, Path], Any]
    mutate: mutate.Mutator = mutate.mutated
    checksum: bool = False


def hash_of(*parts: Any) -> str:
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray) and part.dtype.kind != "O":
            digest.update(f"{part.dtype} {part.shape}".encode())
            digest.update(np.ascontiguousarray(part).tobytes())
        else:
            digest.update(repr(part).encode("utf-8", "backslashreplace"))
    return digest.hexdigest()
