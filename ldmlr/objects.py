"""Objects in a store elsewhere, through fsspec: what is there, bytes of it, and writing it whole.

Everything that goes over a network to such a store goes through here. A request that fails is made again,
a bounded number of times with growing pauses, unless the answer is final (nothing there, no permission). What
fails for good is one line that names the URL.

An object appears under its name whole or not at all. S3, Google Cloud Storage and Azure promise that for an
upload; elsewhere it goes to a name of its own first, and is moved.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import random
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from ldmlr.errors import LdmlrError, UsageError, opt

T = TypeVar("T")

# One request of five may fail: then one in 400,000 fails so many times in a row.
TRIES = 8
# Seconds before the second try, and at most before a later one: eleven in all.
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
# Seconds after which no further try is begun: one may have to wait for an answer that does not come.
PATIENCE = 300.0
# What S3's library is told, unless fsspec's configuration says otherwise: it has tries of its own within each
# of these, and would wait a minute for a machine that is not there.
_S3_SETTINGS = {"retries": {"max_attempts": 0}, "connect_timeout": 10}
# Where an upload appears when it is complete, and not before.
_WHOLE_UPLOADS = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "oci", "oss", "r2"}
# Where folders need no making: an object's name has slashes in it.
_NO_FOLDERS = {*_WHOLE_UPLOADS, "memory", "http", "https"}
# Answers that another try would not change.
_FINAL = (
    PermissionError, IsADirectoryError, NotADirectoryError,
    NotImplementedError, ImportError, TypeError, ValueError, AttributeError, LookupError, MemoryError,
    LdmlrError,
)  # fmt: skip
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
# By name: these come from libraries that need not be there.
_NO_CREDENTIALS = {
    "NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "DefaultCredentialsError",
}  # fmt: skip
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
    found = _persistent(url, lambda: _info(url))
    if found is not None and getattr(_memory, "found", None) is not None:
        _memory.found[url] = found
    return found


def _info(url: str) -> Info | None:
    store, key = _store(url)
    try:
        found = store.info(key)
    except FileNotFoundError:
        return None
    version = next((str(found[name]) for name in _VERSIONS if found.get(name)), "")
    return Info(int(found.get("size") or 0), version, found.get("type") == "directory")


def names(url: str) -> list[str]:
    """Return the names of the objects and folders in a folder."""

    def attempt() -> list[str]:
        store, key = _store(url)
        try:
            found = store.ls(key, detail=False)
        except (FileNotFoundError, NotADirectoryError):
            return []
        key = key.rstrip("/")
        inside = (str(name).rstrip("/") for name in found)
        return sorted({name.rsplit("/", 1)[-1] for name in inside if name != key})

    return _persistent(url, attempt)


def read(url: str) -> bytes:
    """Return an object.

    Raises
    ------
    FileNotFoundError
        There is none.
    """

    def attempt() -> bytes:
        store, key = _store(url)
        return bytes(store.cat_file(key))

    return _persistent(url, attempt)


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
        store, key = _store(url)
        missing = [number for number in range(len(ranges)) if number not in found]
        starts, stops = zip(*(ranges[number] for number in missing), strict=True)
        answers = store.cat_ranges([key] * len(missing), list(starts), list(stops), on_error="return")
        failed: Exception | None = None
        for number, answer in zip(missing, answers, strict=True):
            start, stop = ranges[number]
            if isinstance(answer, Exception):
                failed = answer
            elif len(answer) != stop - start:
                failed = OSError(f"{len(answer)} bytes came instead of {stop - start}")
            else:
                found[number] = bytes(answer)
        if failed is not None:
            raise failed

    if ranges:
        _persistent(url, attempt)
    return [found[number] for number in range(len(ranges))]


def write(url: str, data: bytes) -> None:
    """Write a small object."""

    def attempt() -> None:
        store, key = _store(url)
        _make_folder(store, url, key)
        store.pipe_file(key, data)

    _persistent(url, attempt)


def create(url: str, data: bytes) -> bool:
    """Write a small object if there is none of its name; tell whether this was done.

    Where the store has no such request, it is looked for first and read afterwards: of two that come in the
    same moment, one finds the other's.
    """

    def attempt() -> None:
        store, key = _store(url)
        _make_folder(store, url, key)
        try:
            store.pipe_file(key, data, mode="create")
        except FileExistsError:
            pass  # perhaps by an earlier try of ours, whose answer was lost
        except (TypeError, ValueError, NotImplementedError):
            if _info(url) is None:
                store.pipe_file(key, data)

    _persistent(url, attempt)
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
        store, key = _store(url)
        with contextlib.suppress(FileNotFoundError):  # by an earlier try, whose answer was lost
            store.rm_file(key)

    _persistent(url, attempt)


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
            if _protocol(url) in _WHOLE_UPLOADS:
                _put(url, local, overwrite)
            else:
                _put_and_move(url, local)
        except FileExistsError:
            # Perhaps put there by an earlier try of ours, whose answer was lost.
            if not _persistent(url, lambda: _same(local, url)):
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
        store, key = _store(url)
        if not overwrite:
            try:
                store.put_file(str(local), key, mode="create")
                return
            except (TypeError, NotImplementedError):
                pass  # the library is older than such requests
        store.put_file(str(local), key)

    _persistent(url, attempt)


def _put_and_move(url: str, local: Path) -> None:
    """Upload under another name, and move what is complete."""
    folder, _, name = url.rpartition("/")
    temporary = f"{folder}/.{name}.{secrets.token_hex(4)}.tmp"

    def put() -> None:
        store, key = _store(temporary)
        _make_folder(store, temporary, key)
        store.put_file(str(local), key)

    def move() -> None:
        store, key = _store(url)
        with contextlib.suppress(FileNotFoundError):  # by an earlier try, whose answer was lost
            store.mv(store._strip_protocol(temporary), key)

    try:
        _persistent(url, put)
        found = info(temporary)
        if found is not None and found.size == os.path.getsize(local):
            _persistent(url, move)
    finally:
        with contextlib.suppress(LdmlrError, OSError):
            remove(temporary)


def _same(local: Path, url: str) -> bool:
    """Tell whether an object holds what a local file does."""
    store, key = _store(url)
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


def _protocol(url: str) -> str:
    return url.partition("://")[0]


def _make_folder(store: Any, url: str, key: str) -> None:
    """Make the folder of an object where there are folders."""
    if _protocol(url) not in _NO_FOLDERS:
        store.makedirs(key.rpartition("/")[0] or "/", exist_ok=True)


def _store(url: str) -> tuple[Any, str]:
    """Return the file system of fsspec for a URL, and what it calls the object.

    Asked for with each request: fsspec keeps one for every process, and the one of a parent is no use after a
    fork.
    """
    try:
        import fsspec
    except ImportError:
        raise UsageError(f"{url}: fsspec is not installed; pip install 'ldmlr[remote]'") from None
    try:
        # What is listed is not kept: others write there too.
        settings: dict[str, Any] = {"use_listings_cache": False}
        protocol = _protocol(url)
        if protocol in ("s3", "s3a") and "config_kwargs" not in fsspec.config.conf.get(protocol, {}):
            settings["config_kwargs"] = _S3_SETTINGS
        store, key = fsspec.core.url_to_fs(url, **settings)
    except ImportError as error:
        raise UsageError(
            f"{url}: needs a package that is not installed ({_reason(error)}); pip install 'ldmlr[remote]' "
            "for s3://, gcsfs for gs://"
        ) from None
    except ValueError as error:
        raise UsageError(f"{url}: {_reason(error)}; use s3://, gs:// or another that fsspec knows") from None
    return store, str(key)


def _persistent(url: str, attempt: Callable[[], T]) -> T:
    """Return what a request returns, made again while it fails by errors that may pass.

    One request at a time: of several in a row that are tried together, one fails too often.
    """
    pause, began = FIRST_PAUSE, time.monotonic()
    for tries in range(1, TRIES + 1):
        try:
            return attempt()
        except (FileNotFoundError, FileExistsError, LdmlrError):
            raise
        except Exception as error:
            if isinstance(error, OSError) and error.errno in _FULL:
                raise
            if isinstance(error, _FINAL) or type(error).__name__ in _NO_CREDENTIALS:
                raise _failure(url, error) from error
            if tries == TRIES or time.monotonic() - began > PATIENCE:
                raise LdmlrError(
                    f"{url}: the object store failed {tries} times ({_reason(error)}); check the connection "
                    f"and the endpoint, and go on with {opt('resume', True)}, or start again"
                ) from error
            # Many workers meet the same failure: they do not all come back in the same moment.
            time.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(2 * pause, LONGEST_PAUSE)
    raise AssertionError("unreachable")


def _failure(url: str, error: Exception) -> LdmlrError:
    if isinstance(error, PermissionError):
        return LdmlrError(f"{url}: permission denied; check the credentials, and what they may do there")
    if type(error).__name__ in _NO_CREDENTIALS:
        return LdmlrError(f"{url}: no credentials were found ({_reason(error)}); set them up, or name a file")
    if isinstance(error, IsADirectoryError):
        return LdmlrError(f"{url}: is a folder where a file is expected; check the path")
    return LdmlrError(f"{url}: {type(error).__name__}: {_reason(error)}; check the URL")


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:160] if lines else type(error).__name__
