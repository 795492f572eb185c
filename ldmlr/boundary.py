"""The boundary to what others wrote: whatever a reading library raises becomes one line that names the file.

Which exception comes out of a damaged file depends on the library, its version and the damage (h5py alone
raises five kinds), so none is listed. Inside a boundary stands reading and nothing else: a fault of this
package there would be called damage. The first exception stays attached as the cause.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ldmlr.errors import InputError, LdmlrError
from ldmlr.files import os_error

# Errors of the system, not of the contents.
_SYSTEM = (
    errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE, errno.ESTALE, errno.ENOSPC, errno.EDQUOT,
)  # fmt: skip
# What PyTorch, the loader of libraries, Python's threads, C++ and Rust say where memory is used up.
_MEMORY = (
    "can't allocate memory", "not enough memory", "Cannot allocate memory", "memory allocation failed",
    "Storage size calculation overflowed", "failed to map segment", "can't start new thread", "bad_alloc",
    "(os error 12)",
)  # fmt: skip


@contextmanager
def boundary(
    path: str | Path, what: str, remedy: str = "copy or write it again", fault: str = ""
) -> Iterator[None]:
    """Turn whatever is raised within into `InputError`, unless it is an `LdmlrError` already.

    Parameters
    ----------
    path
        The file, for the message.
    what
        What it should be, such as ``Parquet file``.
    remedy
        What to do.
    fault
        What is wrong with it, in words.  [default: is a damaged WHAT]
    """
    fault = fault or f"is a damaged {what}"
    try:
        yield
    except LdmlrError:
        raise
    except MemoryError as error:
        raise _too_large(path, what) from error
    except RecursionError as error:
        raise InputError(f"{path}: {fault} (brackets within brackets without end); {remedy}") from error
    except OSError as error:
        if error.errno in _SYSTEM:
            raise os_error(error, Path(path)) from error
        if error.errno == errno.ENAMETOOLONG and isinstance(error.filename, str):
            raise os_error(error, Path(error.filename)) from error  # mostly one that was to be written
        if out_of_memory(error):
            raise _too_large(path, what) from error
        raise InputError(f"{path}: {fault} ({first_line(error)}); {remedy}") from error
    except Exception as error:
        if out_of_memory(error):
            raise _too_large(path, what) from error
        raise InputError(f"{path}: {fault} ({first_line(error)}); {remedy}") from error


def _too_large(path: str | Path, what: str) -> InputError:
    return InputError(
        f"{path}: its contents need more memory than there is, if it is no damaged {what}; use a larger "
        "machine, or get the file again"
    )


def out_of_memory(error: BaseException) -> bool:
    """Tell whether an error is one of memory: many libraries have no class for it, and say it in words."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or (isinstance(error, OSError) and error.errno == errno.ENOMEM)
        or any(words in str(error) for words in _MEMORY)
    )


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says, without its end, or the name of its kind."""
    text = error.message if isinstance(error, LdmlrError) else str(error)
    if isinstance(error, KeyError):
        text = text.strip("'\"")
    lines = text.strip().splitlines()
    line = lines[0] if lines else ""
    return (line if isinstance(error, LdmlrError) else line[:160]).rstrip(" :;.") or type(error).__name__
