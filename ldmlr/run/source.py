"""What a run starts from: a feature store, an image set, a built-in set or a TOML file."""

from __future__ import annotations

from pathlib import Path

import h5py

from ldmlr.data.open import BUILTIN
from ldmlr.errors import InputError, UsageError, nearest


def kind_of(source: str) -> str:
    """Return ``builtin``, ``toml``, ``store`` or ``images`` for a SOURCE argument.

    An HDF5 file is an image set if it has ``/train/images``, else a feature store; a JSON
    file is the manifest of a sharded store.

    Raises
    ------
    UsageError
        Nothing of that name exists; the nearest built-in set is named.
    InputError
        The file ends in .h5 but is not HDF5.
    """
    if source in BUILTIN:
        return "builtin"
    path = Path(source)
    if not path.exists():
        if path.suffix or "/" in source:
            raise InputError(f"{source}: no such file or folder; check the path")
        raise UsageError(
            f"{source}: neither a file nor a folder nor a built-in set; {nearest(source, BUILTIN)}"
        )
    if path.suffix == ".toml":
        return "toml"
    if path.suffix == ".json":
        return "store"
    if path.is_file() and h5py.is_hdf5(path):
        with h5py.File(path, "r") as file:
            return "images" if "train/images" in file else "store"
    if path.suffix in (".npz", ".npy", ".parquet", ".pt", ".pth"):
        raise InputError(
            f"{source}: is no feature store; ldmlr store import makes one of {path.suffix} files"
        )
    if path.suffix in (".csv", ".tsv"):
        raise InputError(
            f"{source}: is no feature store; save the features as .npz or Parquet, which ldmlr store import "
            "makes one of"
        )
    if path.suffix in (".h5", ".hdf5"):
        raise InputError(f"{source}: not an HDF5 file, or cut short; copy or write it again")
    return "images"


def default_name(source: str) -> str:
    """Return the name of the run folder for a source: the file's name without its suffixes."""
    name = Path(source).name
    for suffix in (".h5", ".hdf5", ".toml", ".txt", ".json", ".tar.gz", ".tgz"):
        name = name.removesuffix(suffix)
    return name or "run"
