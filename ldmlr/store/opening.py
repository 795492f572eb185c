"""Opening an HDF5 file, and what becomes of problems found in it."""

from __future__ import annotations

import glob
import math
import os
import stat
from contextlib import AbstractContextManager, suppress
from pathlib import Path

import h5py

from ldmlr import isolated
from ldmlr.boundary import boundary, first_line
from ldmlr.errors import InputError, UsageError, opt
from ldmlr.files import mode_of
from ldmlr.remote import as_path, is_remote
from ldmlr.spool import fetched
from ldmlr.store.heaps import check_heaps
from ldmlr.store.rows import DataFile
from ldmlr.streamed import Streamed

SIGNATURE = b"\x89HDF\r\n\x1a\n"
# Of a packed array that unpacks to more, the first and last blocks are probed.
PROBED_BYTES, PROBED_BLOCK = 1 << 28, 1 << 22
# Files that this process has probed.
_probed: set[tuple[object, ...]] = set()
# Files whose texts it has looked through.
_looked: set[tuple[object, ...]] = set()


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
    path = as_path(path)
    if place is None and not is_remote(path) and not path.exists():
        _name_manifest(path)
    if stat.S_ISDIR(mode_of(path, "feature store", place)):
        raise InputError(
            f"{path}: is a folder, not a feature store; name the file (`ldmlr baseline` and "
            "`ldmlr encode` take folders of images)"
        )
    return path


def _name_manifest(path: Path) -> None:
    """Refuse the name that shards were written under, which no file has: their manifest is what is opened."""
    manifest = path.with_suffix(".json")
    if any(path.parent.glob(f"{glob.escape(path.stem)}-00000-of-*.h5")) and manifest.is_file():
        raise InputError(f"{path}: no such feature store, but shards of it; name their manifest {manifest}")


def open_hdf5(path: Path, place: Path | None = None) -> h5py.File:
    """Open an HDF5 file for reading; errors say what the file is instead. Parameters as of `check_file`."""
    start, place = b"", place or check_file(path)
    try:
        place = place_of(path, place)
        with place.open("rb") as handle:
            start = handle.read(9)
        if not has_checksums(start) and (start.startswith(SIGNATURE) or h5py.is_hdf5(place)):
            probe(path, place)
        start = start[:8]
        return _looked_through(path, place)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; check the path") from None
    except PermissionError:
        raise InputError(f"{path}: permission denied; make the file readable") from None
    except (OSError, RuntimeError, ValueError) as error:
        size = place.stat().st_size
        # Known only where a file is no store: others do without safetensors.
        from ldmlr.modelfile import known_kind

        model = known_kind(place)
        if model is not None:
            raise InputError(
                f"{path}: is a {model.noun} (safetensors), not a feature store; give the store that it "
                "belongs to, or one made by `ldmlr encode` or `ldmlr store import`"
            ) from None
        raise InputError(f"{path}: {_what_instead(start, size, error)}") from None


def place_of(path: Path, place: Path | None = None) -> Path:
    """Return where an HDF5 file is read; parameters as of `check_file`.

    An object elsewhere is read there if its structures carry checksums, as those of stores do. Of another
    one a copy is fetched: it must be read in a process with limits first.
    """
    place = place or check_file(path)
    if not is_remote(place):
        return place
    with place.open("rb") as handle:
        start = handle.read(9)
    return place if has_checksums(start) else fetched(place)


def is_hdf5(path: Path) -> bool:
    """Tell whether a file is HDF5, wherever in it the signature lies."""
    if not is_remote(path):
        return bool(h5py.is_hdf5(path))
    size, place = path.stat().st_size, 0
    with path.open("rb") as handle:
        while place < size:
            handle.seek(place)
            if handle.read(len(SIGNATURE)) == SIGNATURE:
                return True
            place = max(512, 2 * place)
    return False


def has_checksums(start: bytes) -> bool:
    """Tell by its first nine bytes whether a file is HDF5 whose structures carry checksums.

    Those have superblock 2 or later. The signature of others may lie further on, behind a block of another
    program, as MATLAB writes one.
    """
    return start.startswith(SIGNATURE) and start[8:] >= b"\x02"


def probe(path: Path, place: Path | None = None) -> None:
    """Read everything in an HDF5 file whose structures have no checksums, in a process with limits.

    The library loops for ever or crashes on some damaged files. Stores and other files of superblock 2 and
    later carry checksums, and are looked through here (`ldmlr.store.heaps`); older ones, as h5py writes them
    by default, are read elsewhere first. Once for each file and process: what was read once is known.

    Raises
    ------
    InputError
        Reading it ended that process, or took too long. Whatever else is wrong is left to the reader.
    """
    where = (place or path).absolute()
    if isolated.inside():
        return
    mark = _mark(where)
    if mark not in _probed:
        isolated.call(read_all, where, path=path, size=where.stat().st_size)
        _probed.add(mark)


def _looked_through(path: Path, place: Path) -> h5py.File:
    """Open a file whose texts, looked through once, HDF5 can walk."""
    if is_remote(place):
        file = h5py.File(Streamed(str(place)), "r")
    else:
        file = h5py.File(place, "r", locking="best-effort")
    try:
        mark = _mark(place)
        if mark not in _looked:
            with reading_hdf5(path):
                check_heaps(DataFile.of(path, place), file)
            _looked.add(mark)
    except BaseException:
        file.close()
        raise
    return file


def note_known(place: Path) -> None:
    """Take a file as read before: by the process that this one works for."""
    _probed.add(_mark(place))


def _mark(place: Path) -> tuple[object, ...]:
    if is_remote(place):
        return DataFile.of(place).mark
    state = os.stat(place)
    return state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns


def read_all(path: str) -> None:
    """Read all attributes, texts and packed numbers of an HDF5 file; errors are none of its concern."""
    # Which errors there are and what they mean is for the reader to say, who reads the same again.
    with suppress(Exception), _looked_through(as_path(path), as_path(path)) as file:
        file.visititems(_read_item)
        _read_item("/", file)


def _read_item(_: str, item: h5py.HLObject) -> None:
    for name in item.attrs:
        with suppress(Exception):
            item.attrs[name]
    if not isinstance(item, h5py.Dataset) or not item.shape:
        return
    with suppress(Exception):
        if item.chunks is None and item.dtype.kind in "iufb":
            return  # plain bytes at a place: nothing is followed
        width = max(1, math.prod(item.shape[1:]) * item.dtype.itemsize)
        step = max(1, PROBED_BLOCK // width)
        stops = range(0, item.shape[0], step)
        many = len(stops) * step * width > PROBED_BYTES
        for start in (*stops[:2], *stops[-2:]) if many else stops:
            item[start : start + step]


def reading_hdf5(where: str | Path) -> AbstractContextManager[None]:
    """Return the boundary to what HDF5 raises where it cannot follow a file; `where` is for messages."""
    return boundary(where, "HDF5 file", "copy it again")


def _what_instead(start: bytes, size: int, error: BaseException) -> str:
    imported = "`ldmlr store import` turns it into a store"
    if not size:
        return "is empty; write or copy it again"
    if start == SIGNATURE:
        if "truncated" in str(error):
            return f"is truncated: the HDF5 file goes on after its {size} bytes; copy it again"
        if "clear file consistency flags" in str(error) or "SWMR" in str(error):
            return (
                "is marked as being written: wait if that is so; if its writer was killed, clear the mark "
                "with h5clear -s FILE (of the HDF5 tools)"
            )
        if "unable to lock" in str(error) or "already open" in str(error):
            return "is being written by another process; wait until it is done"
        return f"is a damaged HDF5 file ({first_line(error)}); copy it again"
    if start.startswith(b"PK"):
        return f"is a zip or .npz file, not HDF5; {imported}"
    if start.startswith(b"\x93NUMPY"):
        return f"is a .npy file, not HDF5; {imported}"
    if start.startswith(b"PAR1"):
        return f"is a Parquet file, not HDF5; {imported}"
    return "is not an HDF5 file; expected a feature store, see `ldmlr store import --help`"


def check_no_keys(path: Path, reason: str, *keys: str | None) -> None:
    """Refuse names of features and labels for a file that has no use for them; `reason` says why."""
    for key, option in zip(keys, (opt("features_key"), opt("labels_key")), strict=True):
        if key is not None:
            raise UsageError(f"{option}: {path}: {reason}; leave it out")
