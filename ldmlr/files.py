"""Files are written whole or not at all.

Every output goes to a temporary name in the folder of its target, is flushed to disk and
then renamed, so that a crash, a full disk or an interrupt never leaves half a file and
never harms the file that was there before. What a process left that was killed in between is told by
its name, and removed by the next one that writes in the folder.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import secrets
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ldmlr import lease, objects, progress, spool
from ldmlr.errors import InputError, LdmlrError, UsageError, opt, with_article
from ldmlr.pids import is_dead, machine_mark
from ldmlr.remote import as_path, is_remote

# What system calls say where a file system, such as one of a network, has no such thing.
_LACKING = (errno.ENODEV, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL)
# Of a file name in most file systems, bytes.
_LONGEST_NAME = 255
# Folders in which this process has looked for what dead ones left.
_swept: set[tuple[int, Path]] = set()
# Folders elsewhere in which this process may write.
_tried: set[Path] = set()


def check_output(path: Path, overwrite: bool = False) -> Path:
    """Refuse an output that exists, or whose folder cannot be made or written.

    Called before work starts, so that an hour of training does not end in a refusal. Nothing is
    left behind: a folder that is missing is made only when the file is.
    """
    path = as_path(path)
    if path.exists() and not overwrite:
        raise UsageError(f"{path}: already exists; name another output or pass {opt('overwrite', True)}")
    if path.exists() and not path.is_file():
        what = "a folder" if path.is_dir() else "a device"
        raise UsageError(f"{path}: is {what} where a file is expected; name another output")
    if is_remote(path):
        _try_folder(path.parent)
        return path
    folder = existing_folder(path)
    _sweep_once(folder)  # a start that was killed here left its probe, and the file may go further down
    # access() follows the permission bits only; root and read-only mounts need the attempt.
    probe = _temporary(folder / "ldmlr")
    try:
        os.close(os.open(probe, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC))
        probe.unlink()
    except OSError as error:
        raise os_error(error, folder) from error
    return path


def _try_folder(folder: Path) -> None:
    """Write and remove an object, once, to know that this is allowed."""
    if folder not in _tried:
        probe = str(_temporary(folder / "ldmlr"))
        objects.write(probe, b"")
        with suppress(LdmlrError, OSError):  # who may write may not be allowed to remove
            objects.remove(probe)
        _tried.add(folder)


def fitting(name: str, ending: str, start: str = "") -> str:
    """Return the file name ``<start>NAME<ending>``; of a name that would be too long, its hash."""
    found = f"{start}{name}{ending}"
    if len(os.fsencode(found)) > _LONGEST_NAME:
        found = f"{start}{hashlib.sha256(os.fsencode(name)).hexdigest()[:32]}{ending}"
    return found


def beside(path: Path, ending: str) -> Path:
    """Return the hidden name ``.NAME<ending>`` beside a file; of a name that would be too long, its hash."""
    return path.with_name(fitting(path.name, ending, "."))


def lock_of(path: Path) -> Path:
    """Return the name of the lock of an output."""
    return beside(path, ".lock")


def _temporary(path: Path) -> Path:
    """Return a new temporary name beside a file; it says which process of which machine it belongs to."""
    return beside(path, f".{os.getpid()}-{machine_mark()}{secrets.token_hex(4)}.tmp")


def sweep(folder: Path) -> None:
    """Remove the temporary files of processes that are dead: those killed in the middle of writing."""
    pattern = re.compile(rf"\..*\.(\d{{1,10}})-{machine_mark()}[0-9a-f]{{8}}\.tmp")
    with suppress(OSError):
        for name in os.listdir(folder):
            found = pattern.fullmatch(name)
            if found and is_dead(int(found[1])):
                with suppress(OSError):
                    (folder / name).unlink()


def _sweep_once(folder: Path) -> None:
    """Sweep a folder the first time that this process writes in it."""
    mark = (os.getpid(), folder)
    if mark not in _swept:
        _swept.add(mark)
        sweep(folder)


def check_unfinished(state: Path, overwrite: bool = False) -> None:
    """Refuse to start afresh where an interrupted run left its state, unless that is asked for."""
    if state.exists() and not overwrite:
        raise UsageError(
            f"{state}: an interrupted run left its work here; go on with {opt('resume', True)}, or "
            f"start afresh with {opt('overwrite', True)}"
        )


def existing_folder(path: Path) -> Path:
    """Return the nearest folder above a path that is there; of a URL, where its file is made."""
    if is_remote(path):
        return spool.base()
    folder = path.parent
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder


def room_for(path: Path) -> str:
    """Return what to do where an output does not fit, for messages."""
    if is_remote(path):
        return f"it is made in {spool.base()} first: free some space there, or set TMPDIR to another disk"
    return "free some space or choose another folder"


def check_outputs(paths: Iterable[Path | None], overwrite: bool = False) -> None:
    """Refuse outputs as `check_output` does; None is an output that is not asked for."""
    for path in paths:
        if path is not None:
            check_output(path, overwrite)


def make_folder(folder: Path) -> Path:
    """Make a folder and those above it; errors name it."""
    if is_remote(folder):
        return folder  # an object's name has slashes in it: there is nothing to be made
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise os_error(error, folder) from error
    return folder


def check_input(path: Path, what: str = "file") -> Path:
    """Return `path` if it exists, and is no folder where `what` is a file; an error names it."""
    path = as_path(path)
    if stat.S_ISDIR(mode_of(path, what)) and what.endswith("file"):
        raise InputError(f"{path}: is a folder where {with_article(what)} is expected; name the file")
    return path


def mode_of(path: Path, what: str, place: Path | None = None) -> int:
    """Return the mode of a file or folder, at `place` if that is not where `path` leads from here.

    Pipes and devices are refused everywhere: whoever reads one may wait, or read, without end.

    Raises
    ------
    InputError
        Nothing is there that could be `what`.
    """
    try:
        mode = (place or path).stat().st_mode
    except (FileNotFoundError, NotADirectoryError, ValueError):  # the last: a zero byte in the path
        raise InputError(f"{path}: no such {what}; check the path") from None
    except OSError as error:
        raise InputError(os_error(error, path).message) from None
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise InputError(f"{path}: is a device or a pipe, expected {with_article(what)}; name a file")
    return mode


@contextmanager
def atomic_path(path: Path, overwrite: bool = False) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it becomes `path`, on failure it is removed.

    Behind a symbolic link the file it points to is written. What another process put there meanwhile is
    not replaced without `overwrite`. Of a URL the file is made on this machine, and uploaded at the end.
    """
    path = check_output(path, overwrite)
    if is_remote(path):
        try:
            with spool.outgoing(path, overwrite) as place:
                yield place
                lease.check_held(str(path), str(lock_of(path)))
        except OSError as error:
            raise os_error(error, path) from error
        return
    final = Path(os.path.realpath(path)) if path.is_symlink() else path
    make_folder(final.parent)
    _sweep_once(final.parent)
    temporary = _temporary(final)
    try:
        yield temporary
        sync(temporary)
        if overwrite or not _linked(temporary, final):
            os.replace(temporary, final)
        sync(final.parent)
    except OSError as error:
        raise os_error(error, path) from error
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()


def _linked(temporary: Path, final: Path) -> bool:
    """Give a file its final name, which fails where there is one; tell whether the disk has such links."""
    try:
        os.link(temporary, final)
    except FileExistsError:
        raise UsageError(
            f"{final}: another process wrote it meanwhile; name another output or pass "
            f"{opt('overwrite', True)}"
        ) from None
    except OSError:
        return False
    return True


def write_bytes(path: Path, data: bytes | memoryview, overwrite: bool = True) -> None:
    """Write `data` to `path`, whole or not at all."""
    with atomic_path(path, overwrite) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str, overwrite: bool = True) -> None:
    """Write `text` as UTF-8 to `path`, whole or not at all."""
    write_bytes(path, text.encode(), overwrite)


def parse_json(text: str | bytes) -> Any:
    """Return what a JSON text holds; whatever is wrong with it, be it a thousand brackets, is ValueError."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("brackets within brackets without end") from None


def sync(path: Path) -> None:
    """Flush a file or a folder to the disk; where that is not to be had, it is said once."""
    try:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        # A folder that one may write in, and not list, can only be flushed by others.
        if error.errno not in (*_LACKING, errno.EACCES, errno.EPERM, errno.EBADF):
            raise
        place = path if path.is_dir() else path.parent
        progress.say_once(
            f"note: {place}: files here cannot be flushed to the disk ({error.strerror}); after a loss of "
            "power, look whether the last output is whole"
        )


def no_maps(error: BaseException | None, path: Path) -> bool:
    """Tell whether an error is that a file system has no memory maps, and say once that files are read.

    Parameters
    ----------
    error
        What the map ended with. Some libraries have the number in their text alone.
    path
        The file.
    """
    if not isinstance(error, OSError):
        return False
    if error.errno not in _LACKING and not any(f"(os error {number})" in str(error) for number in _LACKING):
        return False
    progress.say_once(
        f"note: {path.parent}: this file system has no memory maps; files are read into memory instead"
    )
    return True


def os_error(error: OSError, path: Path) -> LdmlrError:
    """Turn an operating-system error into one line that names the file and the remedy."""
    remedies = {
        errno.ENOSPC: "the disk is full; free some space or choose another folder",
        errno.EDQUOT: "the disk quota is used up; free some space or choose another folder",
        errno.EFBIG: "the file grew past the size limit; raise it or choose another folder",
        errno.EACCES: "permission denied; choose a folder you can use",
        errno.EPERM: "operation not permitted; choose a folder you can use",
        errno.EROFS: "the file system is read-only; choose another folder",
        errno.ENOENT: "no such file or folder; check the path",
        errno.ENOTDIR: "a part of the path is a file, not a folder; check the path",
        errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
        errno.EISDIR: "is a folder where a file is expected; check the path",
    }
    if is_remote(path) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS):
        return LdmlrError(f"{path}: {error.strerror}; {room_for(path)}")
    detail = remedies.get(error.errno or 0)
    if detail is None:
        detail = f"{error.strerror or error}; check the path and the disk"
    return LdmlrError(f"{path}: {detail}")
