"""Ranges of rows dealt to several workers, each in a thread of its own, and taken in their order."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Generator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Range = tuple[int, int]
Drawn = tuple[Range, npt.NDArray[np.float32]]
# Yields the rows of each range; they are valid until the next range is asked for.
Worker = Callable[[list[Range]], Generator[Drawn, None, None]]


def side_by_side(ranges: Sequence[Range], workers: Sequence[Worker]) -> Generator[Drawn, None, None]:
    """Yield the rows of each range, in order; they are valid until the next range is asked for.

    Range i is the work of worker i modulo their number. Each is as far ahead of the caller as it can be
    without rows being overwritten.

    Parameters
    ----------
    ranges
        First row and end of each range.
    workers
        What draws, such as one device each.

    Raises
    ------
    Exception
        What a worker raised. The others are stopped, as they are when the caller stops early.
    """
    lanes = [_Lane(worker, list(ranges[at :: len(workers)])) for at, worker in enumerate(workers)]
    try:
        for number in range(len(ranges)):
            lane = lanes[number % len(lanes)]
            yield lane.take()
            lane.go_on()
    finally:
        for lane in lanes:
            lane.stopped = True
            lane.go_on()
        for lane in lanes:
            lane.thread.join()


class _Lane:
    """A worker, its thread and its ranges."""

    def __init__(self, worker: Worker, ranges: list[Range]) -> None:
        self.worker, self.ranges = worker, ranges
        self.stopped = False
        self.ready: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.may_go_on = threading.Semaphore(0)
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def take(self) -> Drawn:
        """Wait for the next rows, or raise what came in their place."""
        found = self.ready.get()
        if isinstance(found, BaseException):
            raise found
        rows: Drawn = found
        return rows

    def go_on(self) -> None:
        """Say that the rows last taken may be overwritten."""
        self.may_go_on.release()

    def _run(self) -> None:
        try:
            with contextlib.closing(self.worker(self.ranges)) as drawn:
                for rows in drawn:
                    self.ready.put(rows)
                    self.may_go_on.acquire()
                    if self.stopped:
                        return
        except BaseException as error:
            self.ready.put(error)
