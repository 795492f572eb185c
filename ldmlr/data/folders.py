"""A folder per class: ``ROOT/CLASS/*.jpg``, or the same in the folders of splits.

::

    ROOT/train/CLASS/*.jpg      or training/
    ROOT/test/CLASS/*.jpg       or testing/
    ROOT/val/CLASS/*.jpg        or valid/, validation/

Classes are the folder names in sorted order, in the composed form of Unicode (NFC), so that a name typed on
one system matches that from another. The images of a class may lie in one folder more
(``CLASS/images/*.jpg``). Hidden files are left alone; of other files that are left out, and of folders beside
``train`` that are no splits, a note says so. Where there is a ``val`` folder and no ``test`` folder, ``val``
is the test set, as usual for ImageNet.
"""

from __future__ import annotations

import collections
import os
import unicodedata
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from ldmlr.data.files import BadImage, FileSplit, ImageFile, refusal
from ldmlr.data.images import check_classes
from ldmlr.data.reading import Reading
from ldmlr.errors import InputError, counted, nearest
from ldmlr.files import os_error
from ldmlr.progress import track

ENDINGS = frozenset(
    {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm"}
)

# What folders called so are; they are no classes.
_SPLITS = {
    "train": "train", "training": "train", "test": "test", "testing": "test",
    "val": "val", "valid": "val", "validation": "val",
}  # fmt: skip


def read_folder(root: Path, reading: Reading) -> tuple[dict[str, FileSplit], tuple[str, ...]]:
    """List the images below a folder, without opening them.

    Parameters
    ----------
    root
        The folder.
    reading
        How to read; what is left out is noted there.

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
        folders of the splits hold images without class folders, or a link points nowhere.
    """
    parts = _split_folders(root, reading)
    if "train" not in parts:
        folders = _class_folders(root)
        _check_no_splits(root, [folder.name for folder in folders])
        parts = {"train": root}
    names = tuple(sorted({_composed(folder.name) for folder in _class_folders(parts["train"])}))
    splits = {}
    for split, folder in parts.items():
        folders = _class_folders(folder)
        for found in folders:
            if _composed(found.name) not in names:
                raise InputError(
                    f"{found}: no such class under {parts['train']} "
                    f"({nearest(_composed(found.name), names)}); rename or remove the folder"
                )
        splits[split] = _read_split(folder, folders, names, reading)
    check_classes(splits["train"], names, str(parts["train"]))
    return splits, names


def _split_folders(root: Path, reading: Reading) -> dict[str, Path]:
    """Return the folders of the splits, if there is one for training with folders in it."""
    found: dict[str, list[Path]] = collections.defaultdict(list)
    others = []
    for name in _folders(root):
        split = _SPLITS.get(name.lower())
        if split is None:
            others.append(name)
        else:
            found[split].append(root / name)
    if not any(_folders(folder) for folder in found.get("train", ())):
        return {}
    for split, folders in found.items():
        if len(folders) > 1:
            named = " and ".join(folder.name for folder in folders)
            raise InputError(f"{root}: {named} are both the {split} images; keep one, or join them")
    if others:
        reading.note(
            f"{root}: {_named(others)} beside {found['train'][0].name} {'is' if len(others) == 1 else 'are'} "
            "no split and left out; splits are train, test and val"
        )
    return {split: found[split][0] for split in ("train", "test", "val") if split in found}


def _named(names: list[str]) -> str:
    """Return up to three names, and how many more there are."""
    more = f" and {len(names) - 3:,} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


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


def _class_folders(root: Path) -> list[Path]:
    names = _folders(root)
    if not names:
        raise InputError(
            f"{root}: no class folders in it; expected {root / 'CLASS'}/*.jpg, a folder per class"
        )
    return [root / name for name in names]


def _check_no_splits(root: Path, names: list[str]) -> None:
    """Refuse splits without class folders, which would be taken for classes; one class may be called so."""
    words = [name for name in names if name.lower() in _SPLITS]
    if len(words) > 1 or len(words) == len(names):
        raise InputError(
            f"{root}: its folders {', '.join(words)} are splits without classes; expected "
            f"{root / 'train' / 'CLASS'}/*.jpg, a folder per class in train, and the same in test or val"
        )


def _read_split(root: Path, folders: list[Path], class_names: tuple[str, ...], reading: Reading) -> FileSplit:
    number = {name: label for label, name in enumerate(class_names)}
    files: list[ImageFile] = []
    labels: list[int] = []
    listing = _Listing(root)
    for folder in track(folders, f"listing {root.name}", unit="folders"):
        images = listing.images_of(folder)
        files += images
        labels += [number[_composed(folder.name)]] * len(images)
    if listing.bad:
        if not reading.skip_bad:
            raise refusal(listing.bad)
        reading.skip(listing.bad)
    if listing.others:
        reading.note(
            f"{root}: left out, no images by their ending: {counted(len(listing.others), 'file')}: "
            f"{_named(listing.others)}"
        )
    split = FileSplit(
        root, files, np.array(labels, np.int64), len(class_names), image_size=reading.image_size
    )
    # Classes in the order of their numbers, where their folders are in another.
    order = np.argsort(split.labels, kind="stable")
    return split if np.all(np.diff(split.labels) >= 0) else split.subset(order)


class _Listing:
    """The images of a split, and what was found instead of images.

    Parameters
    ----------
    root
        The folder that the names start from.

    Attributes
    ----------
    bad
        Links that point nowhere.
    others
        Names of files that are no images by their ending.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.bad: list[BadImage] = []
        self.others: list[str] = []

    def images_of(self, folder: Path) -> list[ImageFile]:
        """Return the images of a class, sorted; they may lie in the only folder of its folder."""
        images = self._in(folder)
        if images:
            return images
        inside = _folders(folder)
        if len(inside) == 1 and (images := self._in(folder / inside[0])):
            return images
        deeper = [name for name in inside if self._in(folder / name)]
        wanted = f"{self.root / 'CLASS'}/*.jpg"
        if deeper:
            raise InputError(
                f"{folder}: has its images in the folders {_named(deeper)}; expected {wanted}, so move "
                "them one level up, or name them in an image list (PATH LABEL on each line)"
            )
        raise InputError(
            f"{folder}: no image in this class folder; expected {wanted} (or .png, .webp, ...), so add "
            "images or remove the folder"
        )

    def _in(self, folder: Path) -> list[ImageFile]:
        images = []
        below = folder.relative_to(self.root).as_posix()
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.name.startswith(".") or entry.is_dir():
                        continue
                    name = f"{below}/{entry.name}"
                    if os.path.splitext(entry.name)[1].lower() not in ENDINGS:
                        self.others.append(name)
                    elif entry.is_symlink() and not os.path.exists(entry.path):
                        self.bad.append(
                            BadImage(
                                -1, entry.path, f"a link to {os.readlink(entry.path)}, which is not there"
                            )
                        )
                    elif entry.is_file():
                        images.append(ImageFile(name, entry.stat().st_size))
        except OSError as error:
            raise os_error(error, folder) from error
        _check_names(folder, (image.name for image in images))
        return sorted(images, key=lambda image: image.name)
