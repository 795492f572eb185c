"""Objects in a store elsewhere, through fsspec: what is there, bytes of it, and writing it whole.

Everything that goes over a network to such a store goes through here; what fails is asked for again
(`ldmlr.connection`).

An object appears under its name whole or not at all. S3, Google Cloud Storage and Azure promise that for an
upload; elsewhere it goes to a name of its own first, and is moved.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import secrets
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from ldmlr.connection import (
    TRIES,
    WHOLE_UPLOADS,
    connect,
    make_folder,
    persistent,
    protocol,
    raise_unanswered,
)
from ldmlr.errors import LdmlrError, UsageError, counted, opt

# What says that an object is another one than before, in the words of the several stores.
_VERSIONS = (
    "ETag", "etag", "generation", "VersionId", "md5Hash", "LastModified", "last_modified", "mtime", "created",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Info:
    """What is known of an object.

    Attributes
    ----------
    size
        Bytes.
    version
        Changes when the object is replaced; empty where the store says nothing of the kind.
    is_folder
        Whether it is no object, but a name that others begin with.
    """

    size: int
    version: str
    is_folder: bool


# What a thread has found in a block that looks every object up once.
_memory = threading.local()


@contextlib.contextmanager
def looked_up_once() -> Iterator[None]:
    """Ask once what is known of each object that is there, for a block that only reads.

    Opening a store asks again and again. That an object was replaced meanwhile shows at the next read.
    """
    outermost = getattr(_memory, "found", None) is None
    if outermost:
        _memory.found = {}
    try:
        yield
    finally:
        if outermost:
            _memory.found = None


def info(url: str) -> Info | None:
    """Return what is known of an object; None where there is none."""
    known: dict[str, Info] = getattr(_memory, "found", None) or {}
    if url in known:
        return known[url]
    found = persistent(url, lambda: _info(url))
    if found is not None and getattr(_memory, "found", None) is not None:
        _memory.found[url] = found
    return found


def _info(url: str) -> Info | None:
    store, key = connect(url)
    try:
        found = store.info(key)
    except FileNotFoundError as error:
        raise_unanswered(error)
        return None
    version = next((str(found[name]) for name in _VERSIONS if found.get(name)), "")
    return Info(int(found.get("size") or 0), version, found.get("type") == "directory")


def names(url: str) -> list[str]:
    """Return the names of the objects and folders in a folder."""

    def attempt() -> list[str]:
        store, key = connect(url)
        try:
            found = store.ls(key, detail=False)
        except (FileNotFoundError, NotADirectoryError):
            return []
        key = key.rstrip("/")
        inside = (str(name).rstrip("/") for name in found)
        return sorted({name.rsplit("/", 1)[-1] for name in inside if name != key})

    return persistent(url, attempt)


def read(url: str) -> bytes:
    """Return an object.

    Raises
    ------
    FileNotFoundError
        There is none.
    """

    def attempt() -> bytes:
        store, key = connect(url)
        return bytes(store.cat_file(key))

    return persistent(url, attempt)


def read_ranges(url: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
    """Return the bytes ``start .. stop - 1`` of an object for each of several ranges, which are not empty.

    They are asked for side by side where the store's library can. What fails is asked for again, alone.

    Raises
    ------
    FileNotFoundError
        There is no such object.
    """
    found: dict[int, bytes] = {}

    def attempt() -> None:
        store, key = connect(url)
        missing = [number for number in range(len(ranges)) if number not in found]
        starts, stops = zip(*(ranges[number] for number in missing), strict=True)
        answers = store.cat_ranges([key] * len(missing), list(starts), list(stops), on_error="return")
        failed: Exception | None = None
        for number, answer in zip(missing, answers, strict=True):
            start, stop = ranges[number]
            if isinstance(answer, Exception):
                failed = answer
            elif len(answer) != stop - start:
                failed = OSError(f"{counted(len(answer), 'byte')} came instead of {stop - start}")
            else:
                found[number] = bytes(answer)
        if failed is not None:
            raise failed

    if ranges:
        persistent(url, attempt)
    return [found[number] for number in range(len(ranges))]


def write(url: str, data: bytes) -> None:
    """Write a small object."""

    def attempt() -> None:
        store, key = connect(url)
        make_folder(store, url, key)
        store.pipe_file(key, data)

    with _into(url):
        persistent(url, attempt)


@contextlib.contextmanager
def _into(url: str) -> Iterator[None]:
    """Say in one line that what an object is to be written into is not there."""
    try:
        yield
    except FileNotFoundError:
        raise LdmlrError(f"{url}: there is no such bucket; make it, or name another") from None


def create(url: str, data: bytes) -> bool:
    """Write a small object if there is none of its name; tell whether this was done.

    Where the store has no such request, it is looked for first and read afterwards: of two that come in the
    same moment, one finds the other's.
    """

    def attempt() -> None:
        store, key = connect(url)
        make_folder(store, url, key)
        try:
            store.pipe_file(key, data, mode="create")
        except FileExistsError:
            pass  # perhaps by an earlier try of ours, whose answer was lost
        except (TypeError, ValueError, NotImplementedError):
            if _info(url) is None:
                store.pipe_file(key, data)

    with _into(url):
        persistent(url, attempt)
    try:
        return read(url) == data
    except FileNotFoundError:
        return False


def remove(url: str) -> None:
    """Remove an object.

    Raises
    ------
    FileNotFoundError
        There is none.
    """
    if info(url) is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), url)

    def attempt() -> None:
        store, key = connect(url)
        with contextlib.suppress(FileNotFoundError):  # by an earlier try, whose answer was lost
            store.rm_file(key)

    persistent(url, attempt)


def upload(local: Path, url: str, overwrite: bool) -> None:
    """Write a local file as an object, which appears when all of it is there.

    Parameters
    ----------
    local
        The file.
    url
        The object.
    overwrite
        Replace one that is there.

    Raises
    ------
    UsageError
        There is one that is not to be replaced.
    """
    size = os.path.getsize(local)
    for _ in range(TRIES):
        if not overwrite and info(url) is not None:
            raise _taken(url)
        try:
            with _into(url):
                if protocol(url) in WHOLE_UPLOADS:
                    _put(url, local, overwrite)
                else:
                    _put_and_move(url, local)
        except FileExistsError:
            # Perhaps put there by an earlier try of ours, whose answer was lost.
            if not persistent(url, lambda: _same(local, url)):
                raise _taken(url) from None
        there = info(url)
        if there is not None and there.size == size:
            return
        overwrite = True  # what is there is ours, and cut short
    raise LdmlrError(
        f"{url}: {size} bytes were written {TRIES} times, and others are there; check the object store"
    )


def _put(url: str, local: Path, overwrite: bool) -> None:
    """Upload in the requests of the store, which complete an object or none."""

    def attempt() -> None:
        store, key = connect(url)
        if not overwrite:
            try:
                store.put_file(str(local), key, mode="create")
                return
            except (TypeError, NotImplementedError):
                pass  # the library is older than such requests
        store.put_file(str(local), key)

    persistent(url, attempt)


def _put_and_move(url: str, local: Path) -> None:
    """Upload under another name, and move what is complete."""
    folder, _, name = url.rpartition("/")
    temporary = f"{folder}/.{name}.{secrets.token_hex(4)}.tmp"

    def put() -> None:
        store, key = connect(temporary)
        make_folder(store, temporary, key)
        store.put_file(str(local), key)

    def move() -> None:
        store, key = connect(url)
        with contextlib.suppress(FileNotFoundError):  # by an earlier try, whose answer was lost
            store.mv(store._strip_protocol(temporary), key)

    try:
        persistent(url, put)
        found = info(temporary)
        if found is not None and found.size == os.path.getsize(local):
            persistent(url, move)
    finally:
        with contextlib.suppress(LdmlrError, OSError):
            remove(temporary)


def _same(local: Path, url: str) -> bool:
    """Tell whether an object holds what a local file does."""
    store, key = connect(url)
    with open(local, "rb") as mine, store.open(key, "rb") as theirs:
        while True:
            block = mine.read(1 << 22)
            if block != theirs.read(1 << 22):
                return False
            if not block:
                return True


def _taken(url: str) -> UsageError:
    return UsageError(
        f"{url}: another process wrote it meanwhile; name another output or pass {opt('overwrite', True)}"
    )
