"""One writer of an object at a time: a lock beside it, ``.NAME.lock``, which is renewed while it is held.

An object store ends no lock with its process. So the lock says who holds it and when it was last renewed:
one that was not for some minutes, or whose process is known to be dead, is taken over. It is made by a
request that fails where there is one already (S3, Google Cloud Storage, Azure); where a store has no such
request, two that start in the same moment may both go on until one looks again. So it is looked at once
more before an output is put in its place, and who has lost it writes nothing.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import secrets
import threading
import time
from collections.abc import Iterator
from typing import Any

from ldmlr import objects
from ldmlr.errors import LdmlrError, opt
from ldmlr.pids import is_dead, machine_mark

# Seconds between two renewals, and until one that is not renewed counts as left behind.
RENEWAL, LEFT = 30.0, 300.0

_mine: dict[str, str] = {}  # what this process holds: lock -> its mark


def _content(mark: str) -> bytes:
    holder = {
        "mark": mark, "process": os.getpid(), "machine": machine_mark(), "host": platform.node(),
        "renewed": time.time(),
    }  # fmt: skip
    return json.dumps(holder).encode()


def _holder(lock: str) -> dict[str, Any] | None:
    """Return what a lock says; None where there is none, or it says nothing."""
    try:
        found = json.loads(objects.read(lock))
    except FileNotFoundError:
        return None
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


@contextlib.contextmanager
def leased(url: str, lock: str) -> Iterator[None]:
    """Hold the lock of an object for a block.

    Parameters
    ----------
    url
        The object, for messages.
    lock
        The lock.

    Raises
    ------
    LdmlrError
        Another process holds it.
    """
    mark = secrets.token_hex(8)
    _take(url, lock, mark)
    _mine[lock] = mark
    done = threading.Event()
    renewal = threading.Thread(target=_renew, args=(lock, mark, done), daemon=True)
    renewal.start()
    try:
        yield
    finally:
        done.set()
        renewal.join()
        del _mine[lock]
        # Left behind where the store does not answer: others take it over after a while.
        with contextlib.suppress(LdmlrError, OSError):
            if (_holder(lock) or {}).get("mark") == mark:
                objects.remove(lock)


def _take(url: str, lock: str, mark: str) -> None:
    while not objects.create(lock, _content(mark)):
        found = _holder(lock)
        if found is None:
            continue  # given back in between
        if not _is_left(found):
            raise LdmlrError(
                f"{url}: {_named(found)} is writing this output; wait until that has ended, or name another "
                f"{opt('out')}; if it is dead, remove {lock}"
            )
        if _holder(lock) == found:
            with contextlib.suppress(FileNotFoundError):
                objects.remove(lock)


def _is_left(holder: dict[str, Any]) -> bool:
    """Tell whether nobody holds a lock any more."""
    process, renewed = holder.get("process"), holder.get("renewed")
    if holder.get("machine") == machine_mark() and isinstance(process, int) and is_dead(process):
        return True
    return not isinstance(renewed, int | float) or time.time() - renewed > LEFT


def _named(holder: dict[str, Any]) -> str:
    return f"process {holder.get('process')} on {holder.get('host')}"


def _renew(lock: str, mark: str, done: threading.Event) -> None:
    """Write a lock again and again, so that it is seen to be held."""
    while not done.wait(RENEWAL):
        # What fails now is tried again in a while; a lock that another has taken is left to that one.
        with contextlib.suppress(LdmlrError, OSError):
            if _is_lost(_holder(lock), mark):
                return
            objects.write(lock, _content(mark))


def _is_lost(found: dict[str, Any] | None, mark: str) -> bool:
    """Tell whether a lock is gone, or another's."""
    return found is None or found.get("mark", mark) != mark


def check_held(url: str, lock: str) -> None:
    """Raise if this process held the lock of an object and has lost it.

    Raises
    ------
    LdmlrError
        Another process has taken it over.
    """
    mark = _mine.get(lock)
    if mark is None:
        return
    found = _holder(lock)
    if _is_lost(found, mark):
        holder = "another process" if not found else _named(found)
        raise LdmlrError(
            f"{url}: {holder} took this output over, as this process did not answer for {LEFT / 60:.0f} "
            "minutes; nothing was written"
        )
