"""What a file is that was given for a model file, by its first bytes."""

from __future__ import annotations

import zipfile
from pathlib import Path

# What two files of PyTorch are called: neither says which code makes the network.
TORCHSCRIPT, TORCH_SAVE = (
    "a TorchScript program",
    "a file of torch.save, such as weights without their network",
)


def other_file(path: Path) -> str | None:
    """Return what a file is by its first bytes, if it is another kind that has to do with this project."""
    try:
        with path.open("rb") as handle:
            start = handle.read(8)
    except OSError:
        return None
    kinds = {
        b"\x89HDF\r\n\x1a\n": "a feature store (HDF5)",
        b"\x80\x02": TORCH_SAVE,
        b"{": "a JSON file, such as the manifest of a store",
    }
    if start.startswith(b"PK"):
        return _zip_file(path)
    return next((words for first, words in kinds.items() if start.startswith(first)), None)


def may_be_safetensors(path: Path) -> bool:
    """Tell whether a file starts as safetensors do: the length of a header in JSON, and its bracket."""
    try:
        with path.open("rb") as handle:
            start = handle.read(9)
    except OSError:
        return False
    return start[8:] == b"{"


def _zip_file(path: Path) -> str:
    """Return what a ZIP file is by the names in it."""
    try:
        with zipfile.ZipFile(path) as file:
            names = [name.rpartition("/")[2] for name in file.namelist()]
    except (OSError, ValueError, zipfile.BadZipFile):
        return "a .npz or torch.save file"
    if "constants.pkl" in names:
        return TORCHSCRIPT
    return TORCH_SAVE if "data.pkl" in names else "a .npz file"
