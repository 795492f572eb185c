"""An object elsewhere as a file that is read by byte ranges: only what is asked for is fetched.

Small reads, as HDF5 makes them of its structures, come in blocks that are kept for a while, for all handles
of the process; large ones are fetched as they are, in pieces side by side.
"""

from __future__ import annotations

import collections
import io
import itertools
import os
import threading
from typing import Any

from ldmlr import objects
from ldmlr.errors import LdmlrError

# Bytes of a block, and of all that are kept.
BLOCK, KEPT = 1 << 20, 64 << 20
# A read from this size on passes by the blocks, in pieces of this size.
LARGE, PIECE = 8 << 20, 8 << 20
# Pieces that are in memory beside the result.
SIDE_BY_SIDE = 4

_Key = tuple[Any, int]


class _Blocks:
    """The blocks that were read last."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.kept: collections.OrderedDict[_Key, bytes] = collections.OrderedDict()

    def get(self, key: _Key) -> bytes | None:
        with self.lock:
            block = self.kept.get(key)
            if block is not None:
                self.kept.move_to_end(key)
            return block

    def put(self, key: _Key, block: bytes) -> None:
        with self.lock:
            self.kept[key] = block
            while len(self.kept) > KEPT // BLOCK:
                self.kept.popitem(last=False)

    def renew(self) -> None:
        """Take a new lock: another thread of the parent may have held the old one."""
        self.lock = threading.Lock()


_blocks = _Blocks()
os.register_at_fork(after_in_child=_blocks.renew)


class Streamed(io.RawIOBase):
    """An object that is read at any place.

    Parameters
    ----------
    url
        The object.
    found
        What is known of it; it is looked up if that is not given.

    Raises
    ------
    FileNotFoundError
        There is none.
    """

    def __init__(self, url: str, found: objects.Info | None = None) -> None:
        super().__init__()
        found = found or objects.info(url)
        if found is None:
            raise FileNotFoundError(f"{url}: no such file")
        if found.is_folder:
            raise LdmlrError(f"{url}: is a folder where a file is expected; check the path")
        self.url, self.size, self.position = url, found.size, 0
        # An object whose replacement could not be noticed shares no block with another handle.
        self._of = (url, found.version or object())

    def readable(self) -> bool:
        """Say that it can be read."""
        return True

    def seekable(self) -> bool:
        """Say that the position can be set."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Set the position."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self.position, os.SEEK_END: self.size}[whence]
        self.position = start + offset
        return self.position

    def tell(self) -> int:
        """Return the position."""
        return self.position

    def readinto(self, buffer: Any) -> int:
        """Read at the position, as much as there is."""
        view = memoryview(buffer).cast("B")
        count = max(0, min(len(view), self.size - self.position))
        if count:
            (self._large if count >= LARGE else self._small)(view[:count])
        self.position += count
        return count

    def _large(self, view: memoryview) -> None:
        step = PIECE * SIDE_BY_SIDE
        for done in range(0, len(view), step):
            last = min(done + step, len(view))
            edges = [*range(done, last, PIECE), last]
            ranges = [
                (self.position + start, self.position + stop) for start, stop in itertools.pairwise(edges)
            ]
            for start, piece in zip(edges, objects.read_ranges(self.url, ranges), strict=False):
                view[start : start + len(piece)] = piece

    def _small(self, view: memoryview) -> None:
        first, last = self.position // BLOCK, (self.position + len(view) - 1) // BLOCK
        blocks = {number: _blocks.get((self._of, number)) for number in range(first, last + 1)}
        missing = [number for number, block in blocks.items() if block is None]
        ranges = [(number * BLOCK, min((number + 1) * BLOCK, self.size)) for number in missing]
        for number, block in zip(missing, objects.read_ranges(self.url, ranges), strict=True):
            blocks[number] = block
            _blocks.put((self._of, number), block)
        whole = b"".join(block for block in blocks.values() if block is not None)
        begin = self.position - first * BLOCK
        view[:] = whole[begin : begin + len(view)]
