"""Open an image set from whatever the user has: one function, every source."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ldmlr.data.hdf5 import read_hdf5
from ldmlr.data.images import ImageSet
from ldmlr.errors import InputError, UsageError


def open_image_set(
    source: str | Path,
    *,
    imbalance_factor: float | None = None,
    seed: int = 0,
    image_root: str | Path | None = None,
    image_size: int | None = None,
) -> ImageSet:
    """Open an image set."""
    path = Path(source)
    if imbalance_factor is not None or image_root is not None:
        raise UsageError(f"{source}: this kind of source takes neither --imbalance-factor nor --image-root")
    if not path.is_file():
        raise InputError(f"{source}: no such file; check the path")
    splits, class_names = read_hdf5(path, image_size)
    provenance: dict[str, Any] = {
        "source": str(source), "kind": "hdf5", "imbalance_factor": None, "seed": None,
        "indices_sha256": None, "counts": splits["train"].counts.tolist(),
    }  # fmt: skip
    return ImageSet(
        path.stem, splits["train"], splits.get("test"), splits.get("val"), class_names, provenance
    )
