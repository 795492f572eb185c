"""Tasks in processes of this machine, one thread each: for many small pieces of work.

Processes, not threads: fitting is Python between calls of the extension, and one interpreter runs one thread
of it at a time. They are started afresh (spawned), not forked, because libraries with threads of their own do
not survive a fork, and they end with their parent, whatever ends it.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from ldmlr import progress
from ldmlr.errors import LdmlrError, opt

# Libraries read these when they are loaded: one thread a process.
ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
# A worker that does not end by itself after so many seconds is killed.
PATIENCE = 10.0


def run_tasks(
    work: Callable[..., Any], tasks: Sequence[tuple[Any, ...]], count: int
) -> Iterator[tuple[int, Any]]:
    """Run one task per tuple of arguments; yield (number of the task, what it returned) as they finish.

    Parameters
    ----------
    work
        A function of a module. An `LdmlrError` that it raises is yielded in the place of a result.
    tasks
        Its arguments, task by task.
    count
        Processes.

    Raises
    ------
    Exception
        What `work` raises beside `LdmlrError`. Whatever ends this early, Ctrl-C included, ends the workers as
        Ctrl-C would.
    """
    waiting = list(enumerate(tasks))[::-1]
    workers = [_Worker() for _ in range(min(count, len(tasks)))]
    try:
        for worker in workers:
            worker.start(work)
        for worker in workers:
            worker.give(*waiting.pop())
        while busy := {worker.pipe: worker for worker in workers if worker.task is not None}:
            for pipe in wait(list(busy)):
                worker = busy[pipe]  # type: ignore[index]
                number, result = worker.take()
                if worker.lost and waiting:
                    worker.start(work)
                if waiting:
                    worker.give(*waiting.pop())
                if isinstance(result, Exception) and not isinstance(result, LdmlrError):
                    raise result
                yield number, result
    finally:
        for worker in workers:
            worker.end()


class _Worker:
    """A process, the parent's end of its pipe, and the number of the task that it does."""

    def __init__(self) -> None:
        self.process: BaseProcess
        self.pipe: Connection
        self.task: int | None = None
        self.lost = False

    def start(self, work: Callable[..., Any]) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(work, theirs), daemon=True)
        with _one_thread():
            self.process.start()
        theirs.close()
        self.lost = False

    def give(self, number: int, arguments: tuple[Any, ...]) -> None:
        self.task = number
        # A worker that died meanwhile is noticed when its result is read.
        with contextlib.suppress(OSError):
            self.pipe.send(arguments)

    def take(self) -> tuple[int, Any]:
        """Return the number of the task and its result; a lost process is an error of its task."""
        number, self.task = self.task, None
        assert number is not None
        try:
            return number, self.pipe.recv()
        except (EOFError, OSError):
            self.lost = True
            self.process.join(PATIENCE)
            return number, LdmlrError(
                f"its process was ended from outside (status {self.process.exitcode}), as happens where the "
                f"memory is used up; the same again with fewer {opt('threads')} needs less of it"
            )

    def end(self) -> None:
        """Let an idle process go, and interrupt a busy one."""
        if not hasattr(self, "process"):
            return
        busy, self.task = self.task is not None, None
        self.pipe.close()
        if busy:
            self.process.terminate()
        self.process.join(PATIENCE)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Have processes that are started meanwhile load their libraries with one thread each."""
    before = {name: os.environ.get(name) for name in ONE_THREAD}
    os.environ.update(dict.fromkeys(ONE_THREAD, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _serve(work: Callable[..., Any], pipe: Connection) -> None:
    """Do tasks until the parent closes the pipe; an interrupt unwinds them, so that nothing stays half."""
    signal.signal(signal.SIGTERM, _interrupt)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    progress.silence()
    try:
        while True:
            arguments = pipe.recv()
            try:
                result = work(*arguments)
            except Exception as error:
                result = error
            pipe.send(result)
    except (EOFError, KeyboardInterrupt, BrokenPipeError):
        sys.exit(0)


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
