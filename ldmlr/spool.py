"""Folders of this machine for what belongs to a URL: copies of objects that are needed whole, files on their
way to a store, and what an interrupted command keeps.

They lie in the folder for temporary files (``TMPDIR``), for this user alone.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import os
import re
import secrets
import shutil
import stat
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from ldmlr import objects
from ldmlr.errors import LdmlrError
from ldmlr.pids import is_dead, machine_mark
from ldmlr.remote import RemotePath, is_remote
from ldmlr.streamed import Streamed

_BLOCK = 32 << 20
_NAME = re.compile(r"(\d{1,10})-([0-9a-f]{6})-[0-9a-f]{8}")
# Copies of this process: by URL and version, so that a model is fetched once.
_copies: dict[tuple[str, str], Path] = {}
_folder_of: dict[int, Path] = {}
_guard = threading.Lock()


def base() -> Path:
    """Return the folder of this user, made for nobody else.

    Raises
    ------
    LdmlrError
        Its name is taken by another user, who could read or exchange what is put there.
    """
    folder = Path(tempfile.gettempdir()) / f"ldmlr-{os.getuid()}"
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    state = os.lstat(folder)
    if not stat.S_ISDIR(state.st_mode) or state.st_uid != os.getuid() or state.st_mode & 0o077:
        raise LdmlrError(f"{folder}: must be a folder of this user alone; remove it, or set TMPDIR")
    return folder


def kept(path: RemotePath) -> Path:
    """Return where this machine keeps what an interrupted command leaves beside a URL."""
    mark = hashlib.sha256(str(path.parent).encode()).hexdigest()[:16]
    folder = base() / mark
    folder.mkdir(exist_ok=True)
    return folder / path.name


def own_folder() -> Path:
    """Return a folder that goes with this process; what dead processes left is removed first."""
    with _guard:
        process = os.getpid()
        if process not in _folder_of:
            for left in base().iterdir():
                found = _NAME.fullmatch(left.name)
                if found and found[2] == machine_mark() and is_dead(int(found[1])):
                    shutil.rmtree(left, ignore_errors=True)
            folder = base() / f"{process}-{machine_mark()}-{secrets.token_hex(4)}"
            folder.mkdir()
            _folder_of[process] = folder
            atexit.register(_leave, process, folder)
        return _folder_of[process]


def _leave(process: int, folder: Path) -> None:
    if os.getpid() == process:  # a forked child has the parent's list of what to do at the end
        shutil.rmtree(folder, ignore_errors=True)


def fetched(path: RemotePath) -> Path:
    """Return a local copy of an object, which is there until this process ends.

    Raises
    ------
    FileNotFoundError
        There is no such object.
    """
    found = path.found()
    key = (str(path), found.version)
    if not (found.version and key in _copies and _copies[key].exists()):
        _copies[key] = _fetch(path, _new(path), found)
    return _copies[key]


def fetched_together(paths: Sequence[RemotePath]) -> list[Path]:
    """Return local copies of objects of one folder in one folder, there until this process ends.

    Raises
    ------
    FileNotFoundError
        One of them is missing.
    """
    folder = _new(paths[0]).parent
    return [_fetch(path, folder / path.name, path.found()) for path in paths]


def _fetch(path: RemotePath, place: Path, found: objects.Info) -> Path:
    _check_space(path, found.size)
    with open(place, "wb") as file, Streamed(str(path), found) as source:
        while block := source.read(_BLOCK):
            file.write(block)
    return place


def _new(path: RemotePath) -> Path:
    """Return a new place for a file of the same name."""
    folder = own_folder() / secrets.token_hex(4)
    folder.mkdir()
    return folder / path.name


def _check_space(path: RemotePath, size: int) -> None:
    free = shutil.disk_usage(base()).free
    if size > free:
        raise LdmlrError(
            f"{path}: its {size / 1e9:,.1f} GB do not fit into {base()}, where {free / 1e9:,.1f} GB are "
            "free; set TMPDIR to a larger disk"
        )


@contextlib.contextmanager
def local_copy(path: Path) -> Iterator[Path]:
    """Yield a file of this machine: the path itself, or a copy of the object; errors name the object.

    Raises
    ------
    FileNotFoundError
        There is no such object.
    """
    if not is_remote(path):
        yield path
        return
    with renamed(fetched(path), path) as place:
        yield place


@contextlib.contextmanager
def renamed(place: Path, path: Path) -> Iterator[Path]:
    """Let errors call a file of this machine, which is yielded, by what it stands for."""
    try:
        yield place
    except LdmlrError as error:
        if place == path or str(place) not in error.message:
            raise
        raise type(error)(error.message.replace(str(place), str(path))) from error


@contextlib.contextmanager
def outgoing(path: RemotePath, overwrite: bool) -> Iterator[Path]:
    """Yield the name of a local file; on success it becomes the object, on failure nothing does."""
    place = _new(path)
    try:
        yield place
        objects.upload(place, str(path), overwrite)
    finally:
        shutil.rmtree(place.parent, ignore_errors=True)
