"""How many threads stage 1 computes on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ldmlr.device import torch_threads

# A batch with fewer values than this (64 digits have 4,096, 128 CIFAR images 393,216) runs on one
# thread: on more, waiting for each other costs more than it saves, and on a busy machine 30 times more.
SERIAL_VALUES = 1 << 15


@contextmanager
def thread_count(values: int, threads: int | None = None) -> Iterator[None]:
    """Set torch's threads for a block and restore them.

    Parameters
    ----------
    values
        Numbers in a batch of images, ``n * H * W * C``.
    threads
        The wanted number; None is one for small batches, and torch's present setting for others.
    """
    with torch_threads(1 if threads is None and values < SERIAL_VALUES else threads):
        yield
