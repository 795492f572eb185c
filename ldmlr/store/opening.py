"""Opening an HDF5 file, and what becomes of problems found in it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import h5py

from ldmlr.errors import InputError
from ldmlr.files import os_error


class Report:
    """Receives problems: raises the first one."""

    def problem(self, message: str) -> None:
        """Take note of a problem."""
        raise InputError(message)


class Collector(Report):
    """Receives problems: keeps them all."""

    def __init__(self) -> None:
        self.problems: list[str] = []

    def problem(self, message: str) -> None:
        """Take note of a problem."""
        self.problems.append(message)


def check_file(path: str | Path, place: Path | None = None) -> Path:
    """Return the path of a store if a file is there.

    Parameters
    ----------
    path
        The path as it was given.
    place
        Where the file lies, if `path` may be relative to another working folder.

    Raises
    ------
    InputError
        Nothing is there, or a folder, a device or a pipe, which would be waited for without end.
    """
    path = Path(path)
    try:
        mode = os.stat(place or path).st_mode
    except (FileNotFoundError, NotADirectoryError, ValueError):  # the last: a zero byte in the path
        raise InputError(f"{path}: no such feature store; check the path") from None
    except OSError as error:
        raise InputError(str(os_error(error, path))) from None
    if stat.S_ISDIR(mode):
        raise InputError(
            f"{path}: is a folder, not a feature store; name the file (`ldmlr baseline` and "
            "`ldmlr encode` take folders of images)"
        )
    if not stat.S_ISREG(mode):
        raise InputError(f"{path}: is a device or a pipe, not a feature store; name a file")
    return path


def open_hdf5(path: Path, place: Path | None = None) -> h5py.File:
    """Open an HDF5 file for reading; errors say what the file is instead. Parameters as of `check_file`."""
    place = Path(place or check_file(path))
    start = b""
    try:
        with open(place, "rb") as handle:
            start = handle.read(8)
        return h5py.File(place, "r", locking="best-effort")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; check the path") from None
    except PermissionError:
        raise InputError(f"{path}: permission denied; make the file readable") from None
    except (OSError, RuntimeError, ValueError) as error:
        size = place.stat().st_size
        model = _model(place)
        if model is not None:
            raise InputError(
                f"{path}: is a {model} (safetensors), not a feature store; give the store that it belongs "
                "to, or one made by `ldmlr encode` or `ldmlr store import`"
            ) from None
        raise InputError(f"{path}: {_what_instead(start, size, error)}") from None


def damaged(path: Path, error: BaseException) -> InputError:
    """Return an error for a file whose structure HDF5 cannot follow."""
    text = str(error).strip("'\"").splitlines()
    detail = text[0][:160] if text else type(error).__name__
    return InputError(f"{path}: is a damaged HDF5 file ({detail}); copy it again")


def _model(path: Path) -> str | None:
    """Return what kind of model a file is, if it is one."""
    # It imports torch, which stores do without.
    from ldmlr.modelfile import noun_of

    return noun_of(path)


def _what_instead(start: bytes, size: int, error: BaseException) -> str:
    imported = "`ldmlr store import` turns it into a store"
    if not size:
        return "is empty; write or copy it again"
    if start == b"\x89HDF\r\n\x1a\n":
        if "truncated" in str(error):
            return f"is truncated: the HDF5 file goes on after its {size} bytes; copy it again"
        if "unable to lock" in str(error) or "already open" in str(error):
            return "is being written by another process; wait until it is done"
        return f"is a damaged HDF5 file ({str(error).splitlines()[0][:160]}); copy it again"
    if start.startswith(b"PK"):
        return f"is a zip or .npz file, not HDF5; {imported}"
    if start.startswith(b"\x93NUMPY"):
        return f"is a .npy file, not HDF5; {imported}"
    if start.startswith(b"PAR1"):
        return f"is a Parquet file, not HDF5; {imported}"
    return "is not an HDF5 file; expected a feature store, see `ldmlr store import --help`"
