"""Open an image set from whatever the user has: one function, every source."""

from __future__ import annotations

import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import h5py
import numpy as np

from ldmlr.data import digits
from ldmlr.data.cifar import is_cifar_folder, read_cifar
from ldmlr.data.files import FileSplit
from ldmlr.data.folders import read_folder
from ldmlr.data.hdf5 import read_hdf5
from ldmlr.data.images import ImageSplit, check_classes
from ldmlr.data.imageset import ImageSet
from ldmlr.data.lists import read_lists
from ldmlr.data.longtail import LongTailedDraw, hold_out, is_imbalanced
from ldmlr.data.reading import Reading
from ldmlr.errors import InputError, UsageError, counted, nearest, opt
from ldmlr.files import check_input
from ldmlr.remote import as_path

BUILTIN = ("digits-lt",)
MAX_TEST_FRACTION = 0.9
# A drawn test split is the same for every seed.
_TEST_SEED = 0

_KINDS = {
    "hdf5": (".h5", ".hdf5", ".hdf"),
    "list": (".txt", ".lst", ".list"),
    "cifar": (".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz"),
}

Splits = Mapping[str, ImageSplit]


def open_image_set(
    source: str | Path,
    *,
    imbalance_factor: float | None = None,
    seed: int = 0,
    shuffle_classes: bool = False,
    indices: str | Path | None = None,
    image_root: str | Path | None = None,
    image_size: int | None = None,
    image_crop: float | None = None,
    test_fraction: float | None = None,
    skip_bad: bool = False,
) -> ImageSet:
    """Open an image set and draw a long-tailed training set from it where asked.

    Parameters
    ----------
    source
        ``digits-lt`` (built in), or a path: an HDF5 file, a folder per class, an image list, a
        CIFAR archive or its extracted folder. A built-in name wins; write ``./digits-lt`` for a
        folder of that name.
    imbalance_factor
        Keep ``n_max * factor^(-c / (C-1))`` training images of class c, drawn without
        replacement. None: all images (``digits-lt``: factor 30).
    seed
        Chooses the images of the draw.
    shuffle_classes
        Let the seed also choose which classes are frequent. Otherwise class 0 is the largest.
    indices
        A saved draw (JSON) to use again instead of drawing.
    image_root
        Folder that the paths of an image list start from; by default the folder of the list.
    image_size
        Bring images to this size: shorter side resized, centre cropped. None leaves them.
    image_crop
        Share of the shorter side that is kept, such as 0.875; None: all of it.
    test_fraction
        Where the source has no test split: draw this share of every class as one, the same for every seed.
        It is drawn first, so that a long-tailed draw leaves the test images alone.
    skip_bad
        Go on without images that cannot be decoded or are not there: every file is decoded once, and
        ``provenance["skipped"]`` lists those that were left out. Otherwise they are refused when they
        are met.

    Returns
    -------
    image_set
        Checked: every class has training images, labels are in range, every file is there. Where
        the source has a val split and no test split, val is the test set. ``notes`` say what was left
        out, or taken for something else.

    Raises
    ------
    InputError
        A file is missing, damaged or wrongly laid out, or a saved draw belongs to other images.
    UsageError
        An argument does not fit the source, or its value is out of range.

    Examples
    --------
    >>> image_set = open_image_set("digits-lt", seed=0)
    >>> image_set.train.counts.tolist()
    [120, 82, 56, 38, 26, 18, 12, 8, 5, 4]
    """
    if image_size is not None and image_size < 1:
        raise UsageError(f"{opt('image_size')}: must be at least 1, not {image_size}")
    if image_crop is not None and not 0 < image_crop <= 1:
        raise UsageError(f"{opt('image_crop')}: must be above 0 and at most 1, not {image_crop:g}")
    if image_crop is not None and image_size is None:
        raise UsageError(f"{opt('image_crop')}: needs {opt('image_size')}, the size after it")
    if imbalance_factor is not None and indices is not None:
        raise UsageError(
            f"{opt('imbalance_factor')}: a saved draw has its own factor; leave one of the two out"
        )
    kind = _kind(source)
    if image_root is not None and kind != "list":
        raise UsageError(
            f"{opt('image_root')}: only an image list takes a root, and {source} is none; leave it out"
        )
    if kind == "digits-lt" and imbalance_factor is None and indices is None:
        imbalance_factor = digits.IMBALANCE_FACTOR
    reading = Reading(as_path(image_root) if image_root else None, image_size, skip_bad)
    splits, class_names = _read(as_path(source), kind, reading)
    if image_size is not None and image_crop is not None:
        splits = {name: split.brought_to(image_size, image_crop) for name, split in splits.items()}
    if skip_bad:
        splits = {name: _without_bad(split, reading) for name, split in splits.items()}
        check_classes(splits["train"], class_names, str(source))
    if reading.skipped:
        reading.note(f"{source}: left out, cannot be decoded: {counted(len(reading.skipped), 'image')}")
    splits, test_from = _with_test(str(source), splits, test_fraction, reading)
    train, test, val = splits["train"], splits.get("test"), splits.get("val")
    if test is not None:
        _note_untested(str(source), test, class_names, reading)
    draw = None
    if indices is not None:
        draw = LongTailedDraw.load(indices)
    elif imbalance_factor is not None:
        draw = LongTailedDraw.draw(
            train, str(source), imbalance_factor, seed, shuffle_classes=shuffle_classes
        )
    if draw is not None:
        _note_imbalanced(str(source), train, draw, reading)
        train = draw.apply(train, str(source))
    provenance = {
        "source": str(source),
        "kind": kind,
        "test_from": test_from,
        "imbalance_factor": draw.imbalance_factor if draw else None,
        "seed": draw.seed if draw else None,
        "shuffle_classes": draw.shuffle_classes if draw else None,
        "indices_sha256": draw.sha256 if draw else None,
        "counts": train.counts.tolist(),
        **({"image_crop": image_crop} if image_crop not in (None, 1) else {}),
        **({"test_fraction": test_fraction} if test_fraction is not None else {}),
        **({"skipped": reading.skipped} if reading.skipped else {}),
    }
    name = kind if kind in BUILTIN else _name(as_path(source))
    return ImageSet(name, train, test, val, class_names, provenance, draw, tuple(reading.notes))


def _without_bad(split: ImageSplit, reading: Reading) -> ImageSplit:
    """Return a split without the images that cannot be decoded."""
    if not isinstance(split, FileSplit):
        return split
    bad = split.bad()
    reading.skip(bad)
    kept = np.setdiff1d(np.arange(len(split)), [image.row for image in bad])
    return split.subset(kept) if bad else split


def _with_test(
    source: str, splits: Splits, fraction: float | None, reading: Reading
) -> tuple[Splits, str | None]:
    """Return the splits with a test split, where there may be one, and where it is from."""
    if fraction is not None:
        if not 0 < fraction <= MAX_TEST_FRACTION:
            raise UsageError(
                f"{opt('test_fraction')}: must be above 0 and at most {MAX_TEST_FRACTION}, not {fraction:g}"
            )
        if "test" in splits:
            raise UsageError(f"{opt('test_fraction')}: {source} has a test split of its own; leave it out")
        train = splits["train"]
        kept, held = hold_out(train.labels, fraction, _TEST_SEED)
        if not len(held):
            raise UsageError(f"{opt('test_fraction')}: no class of {source} has two images; leave it out")
        return {**splits, "train": train.subset(kept), "test": train.subset(held)}, "drawn"
    if "test" not in splits and "val" in splits:
        # ImageNet and iNaturalist publish their balanced test set under the name val.
        reading.note(f"{source}: has no test split, so val is the test set, and no choice is made on it")
        others = {name: split for name, split in splits.items() if name != "val"}
        return {**others, "test": splits["val"]}, "val"
    return splits, "test" if "test" in splits else None


def _note_untested(source: str, test: ImageSplit, class_names: Sequence[str], reading: Reading) -> None:
    missing = [class_names[label] for label in np.flatnonzero(test.counts == 0).tolist()]
    if missing:
        named = ", ".join(missing[:5]) + (f" and {len(missing) - 5:,} more" if len(missing) > 5 else "")
        reading.note(
            f"{source}: {len(missing):,} of {counted(len(class_names), 'class')} have no test image "
            f"({named}); accuracies are means over the others"
        )


def _note_imbalanced(source: str, train: ImageSplit, draw: LongTailedDraw, reading: Reading) -> None:
    counts = train.counts
    if is_imbalanced(counts):
        reading.note(
            f"{source}: is imbalanced already ({counted(counts.max(), 'image')} of the largest class, "
            f"{counts.min():,} of the smallest); its order of classes is kept, and factor "
            f"{draw.imbalance_factor:g} keeps {len(draw.indices):,} of {counted(len(train), 'image')}"
        )


def _kind(source: str | Path) -> str:
    """Return the kind of a source, told by its name first and its content second."""
    if str(source) in BUILTIN:
        return str(source)
    path = as_path(source)
    if path.is_dir():
        return "cifar" if is_cifar_folder(path) else "folder"
    if not path.exists():
        if path.suffix or path.name != str(source):
            raise InputError(f"{source}: no such file or folder; check the path")
        hint = nearest(str(source), BUILTIN)
        raise InputError(f"{source}: no such file, folder or built-in set; {hint}")
    check_input(path, "image set")
    for kind, endings in _KINDS.items():
        if path.name.lower().endswith(endings):
            return kind
    if h5py.is_hdf5(path):
        return "hdf5"
    if tarfile.is_tarfile(path):
        return "cifar"
    raise InputError(
        f"{path}: not an image set; expected an HDF5 file (.h5), an image list (.txt), "
        "a CIFAR archive (.tar.gz) or a folder per class"
    )


def _read(path: Path, kind: str, reading: Reading) -> tuple[Splits, tuple[str, ...]]:
    if kind == "digits-lt":
        return digits.read_digits(reading.image_size)
    if kind == "hdf5":
        return read_hdf5(path, reading.image_size)
    if kind == "cifar":
        return read_cifar(path, reading.image_size)
    if kind == "list":
        return read_lists(path, reading)
    return read_folder(path, reading)


def _name(path: Path) -> str:
    """Return the name of a source without its ending."""
    name = path.resolve().name
    for ending in (ending for endings in _KINDS.values() for ending in endings):
        name = name.removesuffix(ending)
    return name or "images"
