"""Tensors saved by ``torch.save``: a dictionary of them, or one dictionary per split."""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ldmlr.boundary import boundary
from ldmlr.errors import InputError
from ldmlr.files import no_maps
from ldmlr.store.layout import Array


def is_torch_file(path: Path) -> bool:
    """Tell whether a zip file was written by ``torch.save``."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/data.pkl") for name in archive.namelist())
    except Exception:  # of a damaged zip file, whatever the module runs into
        return False


def load_tensors(path: Path) -> tuple[dict[str, Array], frozenset[str]]:
    """Return the arrays of a file of ``torch.save`` by name, and the names of those that were bfloat16.

    Those of an inner dictionary are called ``split/name``.

    Float32 tensors are mapped into memory, others (bfloat16 as float32) copied. Only tensors, numbers and
    texts are read: nothing in the file is run.

    Raises
    ------
    InputError
        The file holds other objects, or is damaged.
    """
    import torch

    with boundary(path, "file of torch.save", "save it again", "cannot be read"):
        try:
            loaded = _loaded(path)
        except pickle.UnpicklingError:
            raise InputError(
                f"{path}: holds more than tensors, numbers and texts, which is not read; save a dictionary "
                "of tensors, such as torch.save({'features': X, 'labels': y}, path)"
            ) from None
    if not isinstance(loaded, Mapping):
        raise InputError(
            f"{path}: holds a {type(loaded).__name__}, expected a dictionary of tensors, such as "
            "{'features': X, 'labels': y}"
        )
    arrays: dict[str, Array] = {}
    short = set()
    for name, value in loaded.items():
        inner = value.items() if isinstance(value, Mapping) else [("", value)]
        for more, entry in inner:
            key = f"{name}/{more}" if more else str(name)
            arrays[key] = _array(f"{path}: {key}", entry)
            if getattr(entry, "dtype", None) == torch.bfloat16:
                short.add(key)
    return arrays, frozenset(short)


def _loaded(path: Path) -> Any:
    """Return what a file holds, mapped into memory where the file system has maps."""
    import torch  # stores are read without it

    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except RuntimeError as error:
        number = re.search(r"unable to mmap .*\((\d+)\)", str(error))
        if number is None or not no_maps(OSError(int(number[1]), str(error)), path):
            raise
    return torch.load(path, map_location="cpu", weights_only=True)


def _array(where: str, value: Any) -> Array:
    import torch

    if isinstance(value, torch.Tensor):
        plain = value.detach()
        return np.asarray((plain.float() if plain.dtype == torch.bfloat16 else plain).numpy())
    try:
        return np.asarray(value)
    except ValueError:
        raise InputError(f"{where}: is no array; expected a tensor or a list of numbers or texts") from None
