"""One owner at a time: an output, its parts and its shard belong to the process that writes them.

Two processes that write one output would mix their parts. So whoever begins takes a lock beside the output,
``.NAME.lock``, and a second start is refused in one line. The lock is a record lock of the operating system:
it ends with its process, however that ends, is not passed on to forked children, and works on network
file systems that have locks. Where there are none, that is said once and the work goes on: files are
still written whole or not at all, and parts carry the key they were drawn under. An output elsewhere has a
lock of another kind, see `ldmlr.lease`.
"""

from __future__ import annotations

import dataclasses
import errno
import fcntl
import os
import platform
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ldmlr import progress
from ldmlr.errors import LdmlrError, opt
from ldmlr.files import lock_of, make_folder, os_error, sweep
from ldmlr.lease import leased
from ldmlr.remote import as_path, is_remote

_TAKEN = (errno.EACCES, errno.EAGAIN)
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL)


@dataclasses.dataclass
class _Hold:
    """How often one thread of one process has taken one output."""

    process: int
    thread: int
    times: int = 1


_held: dict[Path, _Hold] = {}
_guard = threading.Lock()


@contextmanager
def owned(path: Path) -> Iterator[None]:
    """Own an output for a block; what dead processes left beside it is removed first.

    The owner may take it again within the block, so that a command can own what the functions that it
    calls own too.

    Parameters
    ----------
    path
        The output; its folder is made if it is missing, and removed again if nothing was written.

    Raises
    ------
    LdmlrError
        Another process or another thread writes this output.
    """
    path = as_path(path)
    real = path if is_remote(path) else Path(os.path.realpath(path))
    if not _take(real, path):
        yield
        return
    try:
        if is_remote(real):
            with leased(str(real), str(lock_of(real))):
                yield
            return
        with _folder(real.parent), _locked(real, path):
            sweep(real.parent)
            yield
    finally:
        with _guard:
            hold = _held[real]
            hold.times -= 1
            if not hold.times:
                del _held[real]


def _take(real: Path, path: Path) -> bool:
    """Note the output as taken; tell whether this thread takes it for the first time."""
    me = (os.getpid(), threading.get_ident())
    with _guard:
        hold = _held.get(real)
        # A forked child has its parent's notes, but none of its locks.
        if hold is None or hold.process != me[0]:
            _held[real] = _Hold(*me)
            return True
        if hold.thread != me[1]:
            raise _refusal(path, "another thread of this process")
        return False


@contextmanager
def _folder(folder: Path) -> Iterator[None]:
    """Make a folder and those above it; those that were made and are empty at the end are removed."""
    missing = []
    above = folder
    while not above.exists() and above != above.parent:
        missing.append(above)
        above = above.parent
    make_folder(folder)
    try:
        yield
    finally:
        with suppress(OSError):
            for made in missing:
                made.rmdir()


@contextmanager
def _locked(real: Path, path: Path) -> Iterator[None]:
    """Hold the lock file of an output, and remove it at the end."""
    name = lock_of(real)
    descriptor = _acquire(name, path)
    try:
        yield
    finally:
        # First the name, then the lock: whoever opened the file in between finds it gone, and opens anew.
        with suppress(OSError):
            name.unlink()
        os.close(descriptor)


def _acquire(name: Path, path: Path) -> int:
    while True:
        try:
            descriptor = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise os_error(error, path) from error
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _NO_LOCKS:
                progress.say_once(
                    f"note: {path.parent}: this file system has no locks; start one command at a time for "
                    "an output"
                )
                return descriptor
            holder = os.pread(descriptor, 200, 0).decode(errors="replace").strip()
            os.close(descriptor)
            if error.errno in _TAKEN:
                raise _refusal(path, holder or "another process") from None
            raise os_error(error, path) from error
        if _is(descriptor, name):
            break
        os.close(descriptor)
    with suppress(OSError):  # who holds it is for people; a full disk is reported by the work itself
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} on {platform.node()}".encode(), 0)
    return descriptor


def _is(descriptor: int, name: Path) -> bool:
    """Tell whether an open file still has its name."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(name))
    except FileNotFoundError:
        return False


def _refusal(path: Path, holder: str) -> LdmlrError:
    return LdmlrError(
        f"{path}: {holder} is writing this output; wait until that has ended, or name another {opt('out')}"
    )
