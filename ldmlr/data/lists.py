"""Image lists: one ``path label`` per line, the convention of ImageNet-LT and iNaturalist.

Paths start at the image root (by default the folder of the list); they may contain spaces.
Labels are whole numbers from 0. The lists of the other splits are found by name: where the
name of the given list contains ``train``, the same name with ``test`` or ``val`` instead is
used if that file exists (``ImageNet_LT_train.txt``: ``ImageNet_LT_test.txt`` and
``ImageNet_LT_val.txt``). With a ``val`` list alone, that is the test set (iNaturalist).
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

import numpy as np

from ldmlr.data.files import BadImage, FileSplit, ImageFile
from ldmlr.data.images import check_classes, infer_classes
from ldmlr.data.reading import Reading
from ldmlr.errors import InputError, opt
from ldmlr.files import check_input, os_error
from ldmlr.progress import track


def read_lists(path: Path, reading: Reading) -> tuple[dict[str, FileSplit], tuple[str, ...]]:
    """Read a training list and the lists beside it; see the rule above.

    Every image is looked up (not opened), so that missing ones are found before the work starts.

    Parameters
    ----------
    path
        The training list.
    reading
        How to read; what is left out is noted there.

    Returns
    -------
    splits
        ``train`` and, where their lists exist, ``test`` and ``val``.
    class_names
        The labels as text.

    Raises
    ------
    InputError
        A line is not ``path label``, a listed image does not exist, or labels leave a gap.
    """
    root = reading.image_root or path.parent
    if not check_input(root, "image root").is_dir():
        raise InputError(f"{root}: the image root is not a folder; check {opt('image_root')}")
    lists = {"train": path, **siblings(path)}
    parsed = {split: _parse(listing) for split, listing in lists.items()}
    num_classes = infer_classes([label for _, label in parsed["train"].values()], str(path))
    names = tuple(str(label) for label in range(num_classes))
    splits = {}
    for split, entries in parsed.items():
        listing = lists[split]
        _check_range(listing, entries, num_classes)
        files = _looked_up(listing, entries, root, reading)
        labels = np.array([entries[file.line or 0][1] for file in files], np.int64)
        splits[split] = FileSplit(
            root, files, labels, num_classes, image_size=reading.image_size, listing=listing
        )
    check_classes(splits["train"], names, str(path))
    return splits, names


def _looked_up(
    listing: Path, entries: dict[int, tuple[str, int]], root: Path, reading: Reading
) -> list[ImageFile]:
    """Return the images of a list; those that are not there are refused, or left out where that is asked."""
    files, missing = [], []
    inside = os.path.join(os.path.abspath(root), "")
    for line, (name, _) in track(entries.items(), f"looking up {listing.name}", len(entries)):
        if not os.path.abspath(root / name).startswith(inside):
            raise InputError(
                f"{listing}: line {line}: {name} leads out of the image root {root}; name a folder above the "
                f"images with {opt('image_root')}"
            )
        try:
            status = os.stat(root / name)
        except (OSError, ValueError):
            missing.append((line, root / name))
            continue
        if not stat.S_ISREG(status.st_mode):
            raise InputError(f"{listing}: line {line}: {root / name} is no image file; correct the line")
        files.append(ImageFile(name, status.st_size, line))
    if missing and files and reading.skip_bad:
        reading.skip(
            BadImage(-1, f"{listing}: line {line}: {image}", "no such image") for line, image in missing
        )
    elif missing:
        more = f" (and {len(missing) - 1:,} more of {len(entries):,})" if len(missing) > 1 else ""
        remedy = (
            f"pass {opt('image_root')}, the folder the paths start from"
            if reading.image_root is None
            else f"check {opt('image_root')}"
        )
        if files:
            remedy += f", correct the list, or go on without with {opt('skip_bad', True)}"
        line, image = missing[0]
        raise InputError(f"{listing}: line {line}: no image {image}{more}; {remedy}")
    return files


def siblings(path: Path) -> dict[str, Path]:
    """Return the existing test and val lists that belong to a training list."""
    before, found, after = path.name.rpartition("train")
    if not found:
        return {}
    others = {split: path.with_name(f"{before}{split}{after}") for split in ("test", "val")}
    return {split: other for split, other in others.items() if other.is_file()}


def _parse(listing: Path) -> dict[int, tuple[str, int]]:
    """Return line number -> (path, label)."""
    try:
        lines = listing.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise InputError(f"{listing}: not a text file in UTF-8; expected `path label` on each line") from None
    except OSError as error:
        raise os_error(error, listing) from error
    entries = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        parts = line.strip().rsplit(maxsplit=1)
        if len(parts) != 2 or not (parts[1].isascii() and parts[1].isdigit()):
            shown = line.strip() if len(line) <= 60 else f"{line.strip()[:57]}..."
            raise InputError(
                f"{listing}: line {number}: {shown!r} is not `path label`: path, space, whole number from 0"
            )
        entries[number] = (parts[0], int(parts[1]))
    if not entries:
        raise InputError(f"{listing}: the list is empty; expected `path label` on each line")
    return entries


def _check_range(listing: Path, entries: dict[int, tuple[str, int]], num_classes: int) -> None:
    for line, (_, label) in entries.items():
        if label >= num_classes:
            raise InputError(
                f"{listing}: line {line}: label {label} is out of range; the training list has the labels "
                f"0 .. {num_classes - 1}"
            )
