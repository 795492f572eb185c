"""Tiles of fixed size, aligned to the global row number: the same rows in any batch, to the bit.

The last bits of a row of a product depend on how many rows are multiplied and with how many threads. Rows
that are evaluated in such tiles, padded at the ends and each on one thread, are the same to the bit for any
batch split, offset and thread count.
"""

from __future__ import annotations

from collections.abc import Iterator


def aligned_tiles(first_row: int, count: int, tile: int) -> Iterator[tuple[int, slice, slice]]:
    """Yield the tiles that hold rows ``first_row .. first_row + count - 1``.

    Parameters
    ----------
    first_row, count
        Global number of the first row of the batch, and rows in it.
    tile
        Rows in a tile.

    Yields
    ------
    Global number of the tile's first row, which rows of the tile belong to the batch, and which rows
    of the batch these are.
    """
    for start in range(first_row // tile * tile, first_row + count, tile):
        low, high = max(start, first_row), min(start + tile, first_row + count)
        yield start, slice(low - start, high - start), slice(low - first_row, high - first_row)
