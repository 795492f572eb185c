"""Looking at HDF5's text heaps before HDF5 does.

The HDF5 library keeps texts of varying length in "global heaps", the one structure of the format
without a checksum, and walks a damaged one without end (HDF5 2.0: an object of size zero). A
damaged file must be an error, not a hang, so the heaps are walked here first.
"""

from __future__ import annotations

import h5py

from ldmlr.errors import InputError
from ldmlr.store.rows import DataFile

# Where more than this lies outside the contiguous datasets, it is not all looked at: chunked data
# of other programs, or the texts of millions of ids.
SCAN_BYTES = 64 << 20
_MARK = b"GCOL\x01\0\0\0"


def check_heaps(source: DataFile, handle: h5py.File) -> None:
    """Raise if a heap of texts is damaged.

    In files of superblock 2 and later, as all stores written here are, the other structures carry checksums.
    In older ones the places of datasets may be wrong as well, and a heap be missed: those are read in a
    process with limits first (`ldmlr.store.opening.probe`).
    """
    with source.opened() as file:
        gaps = _gaps(_extents(handle), source.size)
        if sum(stop - start for start, stop in gaps) > SCAN_BYTES:
            return
        for start, stop in gaps:
            file.seek(start)
            data = file.read(stop - start)
            place = data.find(_MARK)
            while place >= 0:
                if (start + place) % 8 == 0 and not _is_sound(data[place:]):
                    where = f"texts at byte {start + place}"
                    raise InputError(f"{source.path}: is a damaged HDF5 file ({where}); copy it again")
                place = data.find(_MARK, place + 1)


def _extents(handle: h5py.File) -> list[tuple[int, int]]:
    """Return where the contiguous datasets lie."""
    found: list[tuple[int, int]] = []

    def visit(_: str, item: h5py.HLObject) -> None:
        if isinstance(item, h5py.Dataset) and item.chunks is None:
            offset = item.id.get_offset()
            if offset is not None:
                found.append((offset, offset + item.id.get_storage_size()))

    handle.visititems(visit)
    return sorted(found)


def _gaps(extents: list[tuple[int, int]], size: int) -> list[tuple[int, int]]:
    gaps, last = [], 0
    for start, stop in extents:
        if last < start <= size:
            gaps.append((last, start))
        last = max(last, stop)
    return [*gaps, (last, size)] if last < size else gaps


def _is_sound(heap: bytes) -> bool:
    """Walk the objects of a heap: each a header of 16 bytes and its contents, then free space."""
    size = int.from_bytes(heap[8:16], "little")
    if not 16 <= size <= len(heap):
        return False
    place = 16
    while size - place >= 16:
        index = int.from_bytes(heap[place : place + 2], "little")
        length = int.from_bytes(heap[place + 8 : place + 16], "little")
        step = 16 + -(-length // 8) * 8 if index else length
        if step < 16 or step > size - place:
            return False
        place += step
    return True
