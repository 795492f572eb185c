"""Letting HDF5 write into memory first.

When a disk fills up while HDF5 closes a file, the library cannot let go of the file and the
process crashes at its end. So HDF5 never touches the disk here: it writes its few kilobytes of
structure into a `StagedFile`, and `commit` puts them on the disk with ordinary writes, whose
errors are ordinary. The large arrays bypass HDF5 altogether.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator
from typing import Any

import h5py

_PAGE = 1 << 16


class StagedFile(io.RawIOBase):
    """A file whose writes stay in memory until `commit`.

    Parameters
    ----------
    descriptor
        An open file, read for what was not written here.
    """

    def __init__(self, descriptor: int):
        super().__init__()
        self.descriptor = descriptor
        self.length = os.fstat(descriptor).st_size
        self.position = 0
        self.pages: dict[int, bytearray] = {}

    def seekable(self) -> bool:
        """Say that the position can be set."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Set the position."""
        self.position = (
            offset + {os.SEEK_SET: 0, os.SEEK_CUR: self.position, os.SEEK_END: self.length}[whence]
        )
        return self.position

    def tell(self) -> int:
        """Return the position."""
        return self.position

    def truncate(self, size: int | None = None) -> int:
        """Set the length."""
        self.length = self.position if size is None else size
        return self.length

    def readinto(self, buffer: Any) -> int:
        """Read at the position; zeros where nothing was written."""
        view = memoryview(buffer).cast("B")
        count = max(0, min(len(view), self.length - self.position))
        for page, begin, done, size in self._spans(count):
            view[done : done + size] = self._page(page)[begin : begin + size]
        self.position += count
        return count

    def write(self, data: Any) -> int:
        """Write at the position."""
        view = memoryview(data).cast("B")
        for page, begin, done, size in self._spans(len(view)):
            content = self.pages.setdefault(page, self._page(page))
            content[begin : begin + size] = view[done : done + size]
        self.position += len(view)
        self.length = max(self.length, self.position)
        return len(view)

    def commit(self) -> None:
        """Write everything to the disk."""
        os.ftruncate(self.descriptor, self.length)
        for page, content in sorted(self.pages.items()):
            start = page * _PAGE
            pwrite(self.descriptor, memoryview(content)[: max(0, self.length - start)], start)
        self.pages.clear()

    def _spans(self, count: int) -> Iterator[tuple[int, int, int, int]]:
        """Yield (page, first byte in it, bytes done before, bytes) over a range at the position."""
        done = 0
        while done < count:
            page, begin = divmod(self.position + done, _PAGE)
            size = min(_PAGE - begin, count - done)
            yield page, begin, done, size
            done += size

    def _page(self, page: int) -> bytearray:
        if page in self.pages:
            return self.pages[page]
        data = os.pread(self.descriptor, _PAGE, page * _PAGE)
        return bytearray(data.ljust(_PAGE, b"\0"))


@contextlib.contextmanager
def staged(descriptor: int, mode: str) -> Iterator[h5py.File]:
    """Open a descriptor as an HDF5 file for writing; what was written reaches the disk at the end.

    The file format is that of HDF5 1.8 and later, whose metadata carry checksums. Objects are
    aligned to 64 bytes, so that memory maps are aligned for any element type and vector width.
    No times are kept: the same contents are the same bytes, whenever they are written.
    """
    stage = StagedFile(descriptor)
    if mode == "w":
        _begin(stage)
        mode = "r+"
    with h5py.File(
        stage, mode, libver=("v108", "v108"), alignment_threshold=1, alignment_interval=64
    ) as handle:  # fmt: skip
        yield handle
    stage.commit()


def _begin(stage: StagedFile) -> None:
    """Write an empty file whose root group keeps no times, which `h5py.File` cannot be asked for."""
    creation, access = h5py.h5p.create(h5py.h5p.FILE_CREATE), h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    creation.set_obj_track_times(False)
    access.set_fclose_degree(h5py.h5f.CLOSE_STRONG)
    access.set_libver_bounds(h5py.h5f.LIBVER_V18, h5py.h5f.LIBVER_V18)
    access.set_alignment(1, 64)
    access.set_fileobj_driver(h5py.h5fd.fileobj_driver, stage)
    h5py.h5f.create(b"staged", h5py.h5f.ACC_TRUNC, creation, access).close()


def new_group(parent: h5py.Group, name: str) -> h5py.Group:
    """Create a group that keeps no times."""
    settings = h5py.h5p.create(h5py.h5p.GROUP_CREATE)
    settings.set_obj_track_times(False)
    return h5py.Group(h5py.h5g.create(parent.id, name.encode(), gcpl=settings))


def pwrite(descriptor: int, data: memoryview, offset: int) -> None:
    """Write all of the bytes at an offset."""
    while len(data):
        count = os.pwrite(descriptor, data, offset)
        data, offset = data[count:], offset + count
