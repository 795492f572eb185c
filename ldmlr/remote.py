"""Paths that are URLs: objects in a store elsewhere, with the methods of `pathlib.Path`.

``pathlib.Path("s3://bucket/key")`` has lost a slash and means a local file. So whatever takes a path from a
caller makes it one by `as_path`, which returns a `RemotePath` for a URL. That is a path like others: its
parent, its name and what lies beside it are those of the URL, and what is there is looked up where it lies.
Where a file of this machine is needed, for a memory map or by a library that opens files by name, it ends in
one line that says so; `ldmlr.spool.local_copy` gives such a file.
"""

from __future__ import annotations

import errno
import fnmatch
import io
import os
import re
import stat
from collections.abc import Generator
from pathlib import Path, PosixPath
from typing import Any, BinaryIO, Self, TypeGuard

from ldmlr import objects
from ldmlr.errors import LdmlrError
from ldmlr.streamed import Streamed

_URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]+://")
# Of URLs that a caller has made a `Path` of: these protocols are recognised.
_PROTOCOLS = {
    "s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oci", "oss", "r2", "hf", "hdfs", "webhdfs",
    "http", "https", "ftp", "sftp", "memory", "file",
}  # fmt: skip


def as_path(path: str | os.PathLike[str]) -> Path:
    """Return a path as it was meant: a `RemotePath` of a URL, of ``file://`` and everything else a local one.

    A `Path` that was made of a URL, and so lost a slash, is one too, where no folder has such a name.
    """
    if isinstance(path, RemotePath):
        return path
    text = path if isinstance(path, str) else os.fspath(path)
    if _URL.match(text):
        protocol, _, rest = text.partition("://")
    else:
        protocol, colon, rest = text.partition(":/")
        if isinstance(path, str) or not colon or protocol not in _PROTOCOLS or os.path.isdir(f"{protocol}:"):
            return Path(path)
    protocol = protocol.lower()
    if protocol == "file":
        # Three slashes, of which a `Path` keeps one: files are named from the root.
        return Path(rest if "://" in text else f"/{rest}")
    return RemotePath(f"{protocol}:", *[part for part in rest.split("/") if part])


def below(folder: Path, name: str) -> Path:
    """Return what a name means that is read in a folder: a path from there, unless it is whole or a URL."""
    path = as_path(name)
    return path if is_remote(path) or path.is_absolute() else folder / path


def is_remote(path: str | os.PathLike[str]) -> TypeGuard[RemotePath]:
    """Tell whether a path is that of an object elsewhere."""
    return isinstance(path, RemotePath)


class RemotePath(PosixPath):
    """The URL of an object, or of a folder of objects. Made by `as_path`."""

    def __str__(self) -> str:
        first, *others = self.parts or ("",)
        return f"{first}//{'/'.join(others)}"

    def __fspath__(self) -> str:
        raise LdmlrError(f"{self}: a file of this machine is needed here, not a URL; copy it first")

    def __repr__(self) -> str:
        return f"RemotePath({str(self)!r})"

    def __hash__(self) -> int:
        return hash(str(self))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RemotePath) and str(self) == str(other)

    def __reduce__(self) -> Any:
        return as_path, (str(self),)

    def __truediv__(self, other: Any) -> Any:
        return self.joinpath(other)

    def joinpath(self, *others: Any) -> Any:
        """Return a path below this one; another URL or a path from the root stands for itself."""
        last = as_path(others[-1]) if others else None
        if last is not None and (is_remote(last) or last.is_absolute()):
            return last
        return super().joinpath(*others)

    def absolute(self) -> Self:
        """Return the path: a URL depends on no folder."""
        return self

    def resolve(self, strict: bool = False) -> Self:
        """Return the path."""
        return self

    def expanduser(self) -> Self:
        """Return the path."""
        return self

    def is_symlink(self) -> bool:
        """Say no."""
        return False

    def samefile(self, other_path: Any) -> bool:
        """Tell whether another path is the same URL."""
        return self == as_path(other_path)

    def found(self) -> objects.Info:
        """Return what is known of the object.

        Raises
        ------
        FileNotFoundError
            There is none.
        """
        found = objects.info(str(self))
        if found is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self))
        return found

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        """Return kind and size; the rest is zero."""
        found = self.found()
        mode = stat.S_IFDIR if found.is_folder else stat.S_IFREG
        return os.stat_result((mode | 0o644, 0, 0, 1, 0, 0, found.size, 0, 0, 0))

    def exists(self, *, follow_symlinks: bool = True) -> bool:
        """Tell whether there is an object of this name, or one whose name goes on after it."""
        return objects.info(str(self)) is not None

    def is_file(self, *, follow_symlinks: bool = True) -> bool:
        """Tell whether it is an object."""
        found = objects.info(str(self))
        return found is not None and not found.is_folder

    def is_dir(self, *, follow_symlinks: bool = True) -> bool:
        """Tell whether names of objects go on after this one."""
        found = objects.info(str(self))
        return found is not None and found.is_folder

    def open(self, mode: str = "r", *_: Any, **__: Any) -> BinaryIO:  # type: ignore[override]
        """Open the object for reading bytes."""
        if mode != "rb":
            os.fspath(self)  # which says that this cannot be
        return io.BufferedReader(Streamed(str(self)))

    def read_bytes(self) -> bytes:
        """Return the object."""
        return objects.read(str(self))

    def read_text(self, encoding: str | None = None, errors: str | None = None, *_: Any) -> str:
        """Return the object as text."""
        return self.read_bytes().decode(encoding or "utf-8", errors or "strict")

    def unlink(self, missing_ok: bool = False) -> None:
        """Remove the object."""
        try:
            objects.remove(str(self))
        except FileNotFoundError:
            if not missing_ok:
                raise

    def iterdir(self) -> Generator[Self, None, None]:
        """Yield what is in the folder."""
        for name in objects.names(str(self)):
            yield self / name

    def glob(self, pattern: str, **_: Any) -> Generator[Self, None, None]:
        """Yield what is below the folder and matches a pattern, whose stars stand for no slash."""
        first, _slash, rest = pattern.partition("/")
        for path in self.iterdir():
            if fnmatch.fnmatchcase(path.name, first):
                if rest:
                    yield from path.glob(rest)
                else:
                    yield path
