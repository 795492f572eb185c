"""What a run starts from: a feature store, an image set, a built-in set or a TOML file."""

from __future__ import annotations

from pathlib import Path

from ldmlr.data.featuresets import FEATURE_SETS
from ldmlr.data.open import BUILTIN
from ldmlr.errors import InputError, UsageError, nearest
from ldmlr.files import check_input, parse_json
from ldmlr.remote import as_path
from ldmlr.results import RESULT
from ldmlr.run.steps import RECORD
from ldmlr.store.convert.ready import holds_features
from ldmlr.store.opening import open_hdf5


def kind_of(source: str) -> str:
    """Return ``builtin``, ``toml``, ``store`` or ``images`` for a SOURCE argument.

    ``store`` are features in any form: an HDF5 file without ``/train/images``, the manifest of a sharded
    store, .npz, .npy, Parquet, CSV and others. What a run wrote is no source of another one.

    Raises
    ------
    UsageError
        Nothing of that name exists; the nearest built-in set is named.
    InputError
        The file ends in .h5 but is not HDF5, or is a model, or what a command wrote of its figures.
    """
    if source in BUILTIN:
        return "builtin"
    if source in FEATURE_SETS:
        return "store"
    path = as_path(source)
    if not path.exists():
        if path.suffix or "/" in source:
            raise InputError(f"{source}: no such file or folder; check the path")
        hint = nearest(source, (*BUILTIN, *FEATURE_SETS))
        raise UsageError(f"{source}: neither a file nor a folder nor a built-in set; {hint}")
    check_input(path, "source")
    if path.suffix == ".toml":
        return "toml"
    _check_not_result(source, path)
    if holds_features(path):
        return "store"
    if path.is_file() and path.suffix in (".h5", ".hdf5", ".safetensors"):
        open_hdf5(path).close()  # which says what the file is instead
    return "images"


def _check_not_result(source: str, path: Path) -> None:
    """Refuse the folder of a run, and the result document of a command."""
    file = path / RESULT if path.is_dir() else path
    if path.is_dir() and (file.is_file() or any(path.glob("seed-*/*/" + RECORD))):
        raise InputError(
            f"{source}: is the folder of a run; use ldmlr report to read it, or give the images or the store "
            "that it was made from"
        )
    if path.suffix != ".json":
        return
    try:
        document = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return
    if isinstance(document, dict) and isinstance(document.get("command"), str):
        raise InputError(
            f"{source}: is the result of ldmlr {document['command']}; use ldmlr report to read it, or give "
            "the images or the store that it was made from"
        )


def default_name(source: str) -> str:
    """Return the name of the run folder for a source: the file's name without its suffixes."""
    name = as_path(source).name
    suffixes = (
        ".gz", ".h5", ".hdf5", ".h5ad", ".nc", ".toml", ".txt", ".json", ".tar", ".tgz", ".npz", ".npy",
        ".parquet", ".csv", ".tsv", ".pt", ".pth",
    )  # fmt: skip
    for suffix in suffixes:
        name = name.removesuffix(suffix)
    return name or "run"
