"""The public CIFAR archives, as downloaded or extracted.

Binary version: records of one label byte (CIFAR-100: a coarse one, then the fine one) and 3,072
bytes of pixels, plane by plane. Python version: pickles, read by `ldmlr.data.unpickle`. Archives
are read in place: nothing is extracted, and members count by their file name alone.
Format: https://www.cs.toronto.edu/~kriz/cifar.html
"""

from __future__ import annotations

import dataclasses
import tarfile
from pathlib import Path
from typing import Any

import numpy as np

from ldmlr.boundary import boundary
from ldmlr.data.images import ArraySplit, Images, Labels, check_classes, check_labels
from ldmlr.data.unpickle import load_pickle
from ldmlr.errors import InputError, counted
from ldmlr.files import os_error

PIXELS = 3 * 32 * 32
# The largest real member has 155 MB; a longer one is no CIFAR file, whatever it inflates to.
_LONGEST_MEMBER = 512 * 2**20
_LONGEST_ARCHIVE = 2**30


@dataclasses.dataclass(frozen=True)
class Layout:
    """One of the four public archives.

    Attributes
    ----------
    num_classes
        10, or 100 (the fine labels).
    train, test, names
        File names of the batches and of the class names.
    labels_key, names_key
        Keys of the Python version; empty for the binary version.
    """

    num_classes: int
    train: tuple[str, ...]
    test: str
    names: str
    labels_key: bytes = b""
    names_key: bytes = b""

    @property
    def files(self) -> tuple[str, ...]:
        """Every file of the archive that is read."""
        return (*self.train, self.test, self.names)


LAYOUTS = (
    Layout(10, tuple(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin", "batches.meta.txt"),
    Layout(100, ("train.bin",), "test.bin", "fine_label_names.txt"),
    Layout(
        10, tuple(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta",
        b"labels", b"label_names",
    ),
    Layout(100, ("train",), "test", "meta", b"fine_labels", b"fine_label_names"),
)  # fmt: skip
_NAMES = frozenset(name for layout in LAYOUTS for name in layout.files)


def is_cifar_folder(folder: Path) -> bool:
    """Tell whether a folder holds a training batch of one of the archives."""
    return any((folder / name).is_file() for layout in LAYOUTS for name in layout.train)


def read_cifar(path: Path, image_size: int | None = None) -> tuple[dict[str, ArraySplit], tuple[str, ...]]:
    """Read a CIFAR archive or the folder it was extracted to.

    Returns
    -------
    splits
        ``train`` and ``test``.
    class_names
        Those of the archive; fine classes for CIFAR-100.

    Raises
    ------
    InputError
        The archive is damaged, no CIFAR archive, or a file of it is missing or damaged.
    """
    files = _read_folder(path) if path.is_dir() else _read_archive(path)
    layout = next((known for known in LAYOUTS if any(name in files for name in known.train)), None)
    if layout is None:
        raise InputError(
            f"{path}: no CIFAR files in this archive (data_batch_1.bin, train.bin, data_batch_1 or train); "
            "extract other archives and name their folder"
        )
    for name in layout.files:
        if name not in files:
            raise InputError(f"{path}: {name} is missing; download or extract the archive again")
    names = _class_names(layout, files[layout.names], f"{path}: {layout.names}")
    splits = {}
    for split, members in (("train", layout.train), ("test", (layout.test,))):
        parts = [_read_batch(layout, files.pop(name), f"{path}: {name}") for name in members]
        images, labels = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        splits[split] = ArraySplit(images, labels, layout.num_classes, image_size=image_size)
    check_classes(splits["train"], names, str(path))
    return splits, names


def _read_folder(folder: Path) -> dict[str, bytes]:
    try:
        return {name: (folder / name).read_bytes() for name in _NAMES if (folder / name).is_file()}
    except OSError as error:
        raise os_error(error, Path(error.filename or folder)) from error


def _read_archive(path: Path) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    with (
        boundary(path, "tar archive", "download the archive again", "not a tar archive, or damaged"),
        tarfile.open(path, "r:*") as archive,
    ):
        unpacked = 0
        for member in archive:
            unpacked += member.size
            if unpacked > _LONGEST_ARCHIVE:
                raise InputError(
                    f"{path}: unpacks to far more than a CIFAR archive; download the archive again"
                )
            name = member.name.rpartition("/")[2]
            if name not in _NAMES or not member.isreg():
                continue
            if name in files or member.size > _LONGEST_MEMBER:
                raise InputError(
                    f"{path}: {member.name} is there twice or too long for CIFAR; download it again"
                )
            content = archive.extractfile(member)
            files[name] = content.read() if content else b""
        # The checksum of a compressed archive stands at its end.
        for _ in range(_LONGEST_ARCHIVE >> 20):
            if archive.fileobj is None or not archive.fileobj.read(2**20):
                break
    return files


def _read_batch(layout: Layout, data: bytes, where: str) -> tuple[Images, Labels]:
    if not layout.labels_key:
        length = PIXELS + (2 if layout.num_classes == 100 else 1)
        if not data or len(data) % length:
            raise InputError(
                f"{where}: {counted(len(data), 'byte')}, not a whole number of {length}-byte "
                "records; the file is truncated or of another kind, download the archive again"
            )
        records = np.frombuffer(data, np.uint8).reshape(-1, length)
        planes: Any = records[:, -PIXELS:]
        labels = records[:, -PIXELS - 1]
    else:
        document = load_pickle(data, where)
        planes, found = document.get(b"data"), document.get(layout.labels_key)
        if not isinstance(planes, np.ndarray) or planes.shape[1:] != (PIXELS,) or not len(planes):
            raise InputError(f"{where}: no data [N, {PIXELS}] uint8 in it; download the archive again")
        if not isinstance(found, list) or any(type(label) is not int for label in found):
            key = layout.labels_key.decode()
            raise InputError(f"{where}: no list {key} of whole numbers in it; download the archive again")
        labels = np.array(found)
    images = np.ascontiguousarray(planes.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
    return images, check_labels(labels, layout.num_classes, where, rows=len(images))


def _class_names(layout: Layout, data: bytes, where: str) -> tuple[str, ...]:
    if layout.names_key:
        found = load_pickle(data, where).get(layout.names_key)
        lines = found if isinstance(found, list) else []
    else:
        lines = data.split(b"\n")
    names = tuple(line.decode("utf-8", "replace").strip() for line in lines if isinstance(line, bytes))
    names = tuple(name for name in names if name)
    if len(names) != layout.num_classes:
        raise InputError(
            f"{where}: {counted(len(names), 'class name')}, expected {layout.num_classes}; download "
            "the archive again"
        )
    return names
