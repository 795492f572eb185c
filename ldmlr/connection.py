"""The object store behind a URL, through fsspec, and requests that are made again where they fail.

A request that fails is made again, a bounded number of times with growing pauses, unless the answer is final
(nothing there, no permission). What fails for good is one line that names the URL.
"""

from __future__ import annotations

import errno
import random
import socket
import time
from collections.abc import Callable
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
WHOLE_UPLOADS = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "oci", "oss", "r2"}
# Where folders need no making: an object's name has slashes in it.
_NO_FOLDERS = {*WHOLE_UPLOADS, "memory", "http", "https"}
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

_NO_CONNECTION = {"ClientConnectorError", "EndpointConnectionError", "ConnectTimeoutError"}
# Answers of a web server: not without a password, and not there.
_FORBIDDEN, _GONE = (401, 403, 407), (404, 410)


def protocol(url: str) -> str:
    """Return what stands before ``://``."""
    return url.partition("://")[0]


def make_folder(store: Any, url: str, key: str) -> None:
    """Make the folder of an object where there are folders."""
    if protocol(url) not in _NO_FOLDERS:
        store.makedirs(key.rpartition("/")[0] or "/", exist_ok=True)


def connect(url: str) -> tuple[Any, str]:
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
        kind = protocol(url)
        if kind in ("s3", "s3a") and "config_kwargs" not in fsspec.config.conf.get(kind, {}):
            settings["config_kwargs"] = _S3_SETTINGS
        store, key = fsspec.core.url_to_fs(url, **settings)
    except ImportError as error:
        raise UsageError(
            f"{url}: needs a package that is not installed ({_reason(error)}); pip install 'ldmlr[remote]' "
            "for s3:// and https://, gcsfs for gs://"
        ) from None
    except ValueError as error:
        raise UsageError(f"{url}: {_reason(error)}; use s3://, gs:// or another that fsspec knows") from None
    return store, str(key)


def raise_unanswered(error: FileNotFoundError) -> None:
    """Raise what a library called "not found" though nobody looked: no connection, no permission, a fault.

    The file system for ``http://`` does so for whatever goes wrong, and keeps the first error as the cause.
    """
    cause = error.__cause__
    if not isinstance(cause, Exception) or isinstance(cause, FileNotFoundError):
        return
    status = getattr(cause, "status", None)
    if status in _FORBIDDEN:
        raise PermissionError(str(cause)) from cause
    if status not in _GONE:
        raise cause


def persistent(url: str, attempt: Callable[[], T]) -> T:
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
                if _unreached(error):
                    raise LdmlrError(
                        f"{url}: the address did not answer in {tries} tries ({_reason(error)}); check "
                        "it for a slip, and the connection"
                    ) from error
                raise LdmlrError(
                    f"{url}: the object store failed {tries} times ({_reason(error)}); check the connection "
                    f"and the endpoint, and go on with {opt('resume', True)}, or start again"
                ) from error
            # Many workers meet the same failure: they do not all come back in the same moment.
            time.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(2 * pause, LONGEST_PAUSE)
    raise AssertionError("unreachable")


def _unreached(error: Exception) -> bool:
    """Tell whether no connection was made at all: nobody listens there, or the name is not known."""
    names = {kind.__name__ for kind in type(error).__mro__}
    return isinstance(error, ConnectionRefusedError | socket.gaierror) or bool(names & _NO_CONNECTION)


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
