"""Image sets: HDF5, lists of pictures, and the public archives."""

from __future__ import annotations

import io
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
from PIL import Image

from ldmlr.data import open_image_set

from . import mutate
from .form import NAMES, RNG, Format, hash_of

PIXELS = RNG.integers(0, 255, (12, 8, 8, 3), np.uint8)


def _images(folder: Path, path: Path) -> str:
    found = open_image_set(path)
    splits = [split for split in (found.train, found.test, found.val) if split is not None]
    return hash_of(
        found.class_names, *(part for split in splits for part in (split.load(slice(None)), split.labels))
    )


def _image_hdf5(folder: Path) -> str:
    with h5py.File(folder / "images.h5", "w") as file:
        file.create_dataset("train/images", data=PIXELS, chunks=(4, 8, 8, 3), compression="gzip")
        file["train/labels"], file["class_names"] = np.arange(12) % 3, list(NAMES)
    return "images.h5"


def _list(folder: Path) -> str:
    for row, pixels in enumerate(PIXELS):
        Image.fromarray(pixels).save(folder / f"{row}.png")
    (folder / "train.txt").write_text("".join(f"{row}.png {row % 3}\n" for row in range(12)))
    return "train.txt"


def _picture(kind: str) -> Callable[[Path], str]:
    def write(folder: Path) -> str:
        _list(folder)
        name = f"picture.{kind}"
        Image.fromarray(PIXELS[0]).save(folder / name)
        (folder / "with.txt").write_text(f"{name} 0\n1.png 1\n")
        return name

    return write


def _decoded(folder: Path, path: Path) -> str:
    return _images(folder, folder / "with.txt")


def _archive(python: bool) -> Callable[[Path], str]:
    names = [f"label {i}".encode() for i in range(10)]
    labels = np.arange(10, dtype=np.uint8)
    planes = RNG.integers(0, 255, (10, 3072), np.uint8)

    def write(folder: Path) -> str:
        members: dict[str, bytes] = {}
        for batch in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
            if python:
                document = {b"data": planes, b"labels": labels.tolist()}
                members[batch] = pickle.dumps(document, protocol=3)
            else:
                members[f"{batch}.bin"] = np.hstack([labels[:, None], planes]).tobytes()
        meta = {b"label_names": names}
        members |= (
            {"batches.meta": pickle.dumps(meta, 3)} if python else {"batches.meta.txt": b"\n".join(names)}
        )
        with tarfile.open(folder / "cifar.tar.gz", "w:gz", compresslevel=1) as archive:
            for name, content in members.items():
                entry = tarfile.TarInfo(f"cifar/{name}")
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
        return "cifar.tar.gz"

    return write


FORMATS = (
    Format("image HDF5", _image_hdf5, _images),
    Format("image list", _list, _images, mutate.text_mutated),
    Format("PNG", _picture("png"), _decoded),
    Format("JPEG", _picture("jpg"), _decoded),
    Format("CIFAR archive", _archive(False), _images, mutate.in_tar),
    Format("CIFAR archive of pickles", _archive(True), _images, mutate.in_tar),
)
