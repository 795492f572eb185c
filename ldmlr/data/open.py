"""Open an image set from whatever the user has: one function, every source."""

from __future__ import annotations

import tarfile
from collections.abc import Mapping
from pathlib import Path

import h5py

from ldmlr.data import digits
from ldmlr.data.cifar import is_cifar_folder, read_cifar
from ldmlr.data.folders import read_folder
from ldmlr.data.hdf5 import read_hdf5
from ldmlr.data.images import ImageSplit
from ldmlr.data.imageset import ImageSet
from ldmlr.data.lists import read_lists
from ldmlr.data.longtail import LongTailedDraw
from ldmlr.errors import InputError, UsageError, nearest, opt

BUILTIN = ("digits-lt",)

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

    Returns
    -------
    image_set
        Checked: every class has training images, labels are in range, every file is there. Where
        the source has a val split and no test split, val is the test set.

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
    splits, class_names = _read(Path(source), kind, Path(image_root) if image_root else None, image_size)
    train, test, val = splits["train"], splits.get("test"), splits.get("val")
    test_from = "test" if test else None
    if test is None and val is not None:
        # ImageNet and iNaturalist publish their balanced test set under the name val.
        test, val, test_from = val, None, "val"
    draw = None
    if indices is not None:
        draw = LongTailedDraw.load(indices)
    elif imbalance_factor is not None:
        draw = LongTailedDraw.draw(
            train, str(source), imbalance_factor, seed, shuffle_classes=shuffle_classes
        )
    if draw is not None:
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
    }
    name = kind if kind in BUILTIN else _name(Path(source))
    return ImageSet(name, train, test, val, class_names, provenance, draw)


def _kind(source: str | Path) -> str:
    """Return the kind of a source, told by its name first and its content second."""
    if str(source) in BUILTIN:
        return str(source)
    path = Path(source)
    if path.is_dir():
        return "cifar" if is_cifar_folder(path) else "folder"
    if not path.exists():
        if path.suffix or path.name != str(source):
            raise InputError(f"{source}: no such file or folder; check the path")
        hint = nearest(str(source), BUILTIN)
        raise InputError(f"{source}: no such file, folder or built-in set; {hint}")
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


def _read(
    path: Path, kind: str, image_root: Path | None, image_size: int | None
) -> tuple[Splits, tuple[str, ...]]:
    if kind == "digits-lt":
        return digits.read_digits(image_size)
    if kind == "hdf5":
        return read_hdf5(path, image_size)
    if kind == "cifar":
        return read_cifar(path, image_size)
    if kind == "list":
        return read_lists(path, image_root, image_size)
    return read_folder(path, image_size)


def _name(path: Path) -> str:
    """Return the name of a source without its ending."""
    name = path.resolve().name
    for ending in (ending for endings in _KINDS.values() for ending in endings):
        name = name.removesuffix(ending)
    return name or "images"
