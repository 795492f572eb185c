"""A folder per class: ``ROOT/CLASS/*.jpg``, or ``ROOT/{train,val,test}/CLASS/*.jpg``.

Classes are the folder names in sorted order. Hidden files and files that are no images by
their ending are left alone. Where there is a ``val`` folder and no ``test`` folder, ``val`` is
the test set, as usual for ImageNet.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from ldmlr.data.files import FileSplit, ImageFile
from ldmlr.data.images import check_classes
from ldmlr.errors import InputError, nearest
from ldmlr.files import os_error
from ldmlr.progress import track

ENDINGS = frozenset(
    {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm"}
)

# Folders called so are splits, not classes.
_SPLIT_WORDS = frozenset(("train", "training", "test", "testing", "val", "valid", "validation"))


def read_folder(root: Path, image_size: int | None = None) -> tuple[dict[str, FileSplit], tuple[str, ...]]:
    """List the images below a folder, without opening them.

    Returns
    -------
    splits
        ``train`` and, where present, ``test`` and ``val``.
    class_names
        The names of the class folders.

    Raises
    ------
    InputError
        There are no class folders, one is empty, or a split has a class that ``train`` lacks; or the
        folders of the splits hold images without class folders.
    """
    if not _folders(root / "train"):
        names = _class_folders(root)
        _check_no_splits(root, names)
        splits = {"train": _read_split(root, names, names, image_size)}
        check_classes(splits["train"], names, str(root))
        return splits, names
    names = _class_folders(root / "train")
    known = frozenset(names)
    splits = {}
    for split in ("train", "test", "val"):
        folder = root / split
        if not folder.is_dir():
            continue
        present = _class_folders(folder)
        for name in present:
            if name not in known:
                raise InputError(
                    f"{folder / name}: no such class under {root / 'train'} ({nearest(name, names)}); "
                    "rename or remove the folder"
                )
        splits[split] = _read_split(folder, present, names, image_size)
    check_classes(splits["train"], names, str(root / "train"))
    return splits, names


def _folders(root: Path) -> list[str]:
    """Return the names of the visible folders in a folder, sorted."""
    try:
        with os.scandir(root) as entries:
            names = sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise os_error(error, root) from error
    _check_names(root, names)
    return names


def _check_names(folder: Path, names: Iterable[str]) -> None:
    """Refuse names that are no text: they become class names and ids in files that hold UTF-8."""
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError:
            raise InputError(f"{folder}: {name!a} is no name in UTF-8; rename it") from None


def _class_folders(root: Path) -> tuple[str, ...]:
    names = _folders(root)
    if not names:
        raise InputError(
            f"{root}: no class folders in it; expected {root / 'CLASS'}/*.jpg, a folder per class"
        )
    return tuple(names)


def _check_no_splits(root: Path, names: tuple[str, ...]) -> None:
    """Refuse splits without class folders, which would be taken for classes; one class may be called so."""
    words = [name for name in names if name.lower() in _SPLIT_WORDS]
    if len(words) > 1 or len(words) == len(names):
        raise InputError(
            f"{root}: its folders {', '.join(words)} are splits without classes; expected "
            f"{root / 'train' / 'CLASS'}/*.jpg, a folder per class in train, and the same in test or val"
        )


def _read_split(
    root: Path, folders: tuple[str, ...], class_names: tuple[str, ...], image_size: int | None
) -> FileSplit:
    number = {name: label for label, name in enumerate(class_names)}
    files: list[ImageFile] = []
    labels: list[int] = []
    for name in track(folders, f"listing {root.name}", unit="folders"):
        images = _images(root, name)
        if not images:
            raise InputError(
                f"{root / name}: no image in this class folder; expected {root / 'CLASS'}/*.jpg (or .png, "
                ".webp, ...), so add images or remove the folder"
            )
        files += images
        labels += [number[name]] * len(images)
    return FileSplit(root, files, np.array(labels, np.int64), len(class_names), image_size=image_size)


def _images(root: Path, name: str) -> list[ImageFile]:
    try:
        with os.scandir(root / name) as entries:
            images = [
                ImageFile(f"{name}/{entry.name}", entry.stat().st_size)
                for entry in entries
                if os.path.splitext(entry.name)[1].lower() in ENDINGS
                and not entry.name.startswith(".")
                and entry.is_file()
            ]
    except OSError as error:
        raise os_error(error, root / name) from error
    _check_names(root / name, (image.name for image in images))
    return sorted(images, key=lambda image: image.name)
