"""Image sets in one HDF5 file.

Layout: ``train/images [N, H, W, C]`` uint8 with 1 or 3 channels, ``train/labels [N]`` whole
numbers in ``0 .. C-1``, optionally the same under ``test`` and ``val``, and ``class_names [C]``, in files of
other programs also called ``classes``.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ldmlr.boundary import boundary
from ldmlr.data.images import ArraySplit, Images, Labels, check_classes, check_labels, infer_classes
from ldmlr.errors import InputError
from ldmlr.files import check_input
from ldmlr.store.datasets import check_filters
from ldmlr.store.layout import SPLITS, repeated_name
from ldmlr.store.names import CLASS_NAME_KEYS, names_of_classes
from ldmlr.store.opening import open_hdf5, probe

AGAIN = "copy or download it again"


def read_hdf5(path: Path, image_size: int | None = None) -> tuple[dict[str, ArraySplit], tuple[str, ...]]:
    """Read an image set from an HDF5 file.

    Returns
    -------
    splits
        ``train`` and, where present, ``test`` and ``val``.
    class_names
        One name per class; the numbers where the file has no names.

    Raises
    ------
    InputError
        The file is damaged, or its layout is not the one above.
    """
    if not h5py.is_hdf5(check_input(path, "image file")) and os.access(path, os.R_OK):
        raise InputError(f"{path}: not an HDF5 file, or damaged; copy or download it again")
    probe(path)
    with open_hdf5(path) as file, boundary(path, "HDF5 file", AGAIN):
        arrays = {name: _read_split(path, file, name) for name in SPLITS if name in file or name == "train"}
        names = _class_names(path, file, [labels for _, labels in arrays.values()])
    num_classes = len(names) if names else infer_classes(arrays["train"][1], f"{path}: train/labels")
    splits = {}
    for name, (images, labels) in arrays.items():
        labels = check_labels(labels, num_classes, f"{path}: {name}/labels")
        splits[name] = ArraySplit(images, labels, num_classes, image_size=image_size)
    shapes = {name: split.images.shape[1:] for name, split in splits.items()}
    for name, shape in shapes.items():
        if shape != shapes["train"]:
            raise InputError(
                f"{path}: {name}/images are {list(shape)} and train/images {list(shapes['train'])}; "
                "all splits need the same height, width and channels"
            )
    names = names or tuple(str(label) for label in range(num_classes))
    check_classes(splits["train"], names, str(path))
    return splits, names


def _read_split(path: Path, file: Any, name: str) -> tuple[Images, Labels]:
    group = file.get(name)
    if isinstance(group, h5py.Group) and "features" in group and "images" not in group:
        raise InputError(
            f"{path}: holds features, not images; a feature store goes to ldmlr diffuse or ldmlr finetune"
        )
    images, labels = (_dataset(path, file, f"{name}/{key}") for key in ("images", "labels"))
    shape = images.shape
    if images.dtype != np.uint8:
        raise InputError(f"{path}: {name}/images are {images.dtype}; expected uint8, 0 .. 255")
    if len(shape) != 4 or shape[3] not in (1, 3):
        hint = "transpose to [N, H, W, C]" if len(shape) == 4 and shape[1] in (1, 3) else "reshape them"
        raise InputError(
            f"{path}: {name}/images have the shape {list(shape)}; expected [N, H, W, C] with 1 or 3 "
            f"channels; {hint}"
        )
    if 0 in shape:
        raise InputError(f"{path}: {name}/images are empty {list(shape)}; leave out a split without images")
    with boundary(path, "HDF5 file", AGAIN, f"{name} cannot be read"):
        pixels, classes = images[()], labels[()]
    return pixels, check_labels(classes, None, f"{path}: {name}/labels", rows=shape[0])


def _dataset(path: Path, file: Any, key: str) -> Any:
    found = file.get(key)
    if not isinstance(found, h5py.Dataset):
        raise InputError(
            f"{path}: no dataset {key}; expected train/images [N, H, W, C] uint8 and train/labels [N], "
            "and the same under test and val if there"
        )
    check_filters(f"{path}: {key}", found)
    if found.shape is None:
        raise InputError(f"{path}: {key} is an empty dataspace, without any values; write the arrays again")
    return found


def _class_names(path: Path, file: Any, labels: list[Labels]) -> tuple[str, ...] | None:
    if "class_names" not in file:
        others = [file[key] for key in CLASS_NAME_KEYS if isinstance(file.get(key), h5py.Dataset)]
        found = (names_of_classes(item[...], labels) for item in others if item.ndim == 1)
        return next((names for names in found if names is not None), None)
    try:
        names = file["class_names"].asstr()[()]
        if np.ndim(names) != 1:
            raise ValueError
    except (TypeError, AttributeError, ValueError):
        raise InputError(f"{path}: class_names are not a list of texts; write one text per class") from None
    # Images that are told apart would become one class wherever a name stands for its class.
    repeated = repeated_name(names.tolist())
    if repeated is not None:
        raise InputError(f"{path}: class_names: {repeated}; rename one")
    return tuple(str(name) for name in names)
