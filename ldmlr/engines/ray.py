"""Tasks on a Ray cluster, or on a Ray that is started on this machine for the time of a command.

A lost worker's task is tried again by Ray; an error that the task itself raises is not, since it would come
again: the other tasks are finished first, so that a second start has only the failed ones to do. Tasks run in
the folder that the command was started in, where the worker's machine has it, so that relative paths mean the
same there.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ldmlr.errors import LdmlrError, UsageError, opt

# How often Ray starts a task again whose worker was lost.
RETRIES = 5

# (number of the task, what it returned or the error that it ended in)
Outcome = tuple[int, Any]


@contextlib.contextmanager
def cluster(address: str | None) -> Iterator[Any]:
    """Yield Ray, connected: to `address`, to what ``RAY_ADDRESS`` names, else started on this machine.

    Raises
    ------
    UsageError
        Ray is not installed, or there is no cluster at the address.
    """
    # Before the import, which reads it: nothing is reported to anybody.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError:
        raise UsageError(
            f"{opt('engine', 'ray')}: Ray is not installed; pip install 'ldmlr[ray]', or leave it out"
        ) from None
    if ray.is_initialized():  # the caller's own connection, which stays
        yield ray
        return
    where = address or os.environ.get("RAY_ADDRESS")
    if where is None:  # workers that are nicer than this process would wait for all others of a busy machine
        os.environ.setdefault("RAY_worker_niceness", "0")
    options: dict[str, Any] = {"address": where} if where else {"include_dashboard": False}
    try:
        ray.init(log_to_driver=False, logging_level=logging.ERROR, **options)
    except Exception as error:  # of many kinds; a start that takes too long has none of its own
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UsageError(
            f"{opt('address')}: no Ray cluster at {where or 'this machine'} ({reason}); start one with "
            f"`ray start --head`, or leave {opt('address')} out"
        ) from None
    try:
        yield ray
    finally:
        ray.shutdown()


def task_outcomes(
    ray: Any, work: Callable[..., Any], tasks: Sequence[tuple[Any, ...]], *, threads: int, on_gpu: bool
) -> Iterator[Outcome]:
    """Run one task per tuple of arguments; yield (number of the task, result or `LdmlrError`) as they finish.

    Parameters
    ----------
    ray
        From `cluster`.
    work
        A function of a module that the workers can import.
    tasks
        Its arguments, task by task.
    threads
        CPUs a task takes.
    on_gpu
        Whether a task takes a GPU, where the cluster has any.
    """
    remote = ray.remote(_in_folder).options(
        num_cpus=threads, num_gpus=_gpus(ray, on_gpu), max_retries=RETRIES, retry_exceptions=False
    )
    waiting = {remote.remote(Path.cwd(), work, *task): number for number, task in enumerate(tasks)}
    while waiting:
        (ready,), _ = ray.wait(list(waiting), num_returns=1)
        number = waiting.pop(ready)
        yield number, _result(ray, ready, number)[0]


def pool_outcomes(
    ray: Any,
    make: Callable[..., Callable[..., Any]],
    arguments: tuple[Any, ...],
    tasks: Sequence[tuple[Any, ...]],
    *,
    threads: int,
    on_gpu: bool,
) -> Iterator[Outcome]:
    """Run tasks as `task_outcomes`, by workers that keep what is dear to make, such as a network.

    Parameters
    ----------
    ray, tasks, threads, on_gpu
        As of `task_outcomes`.
    make
        Called once in each worker, before its first task; what it returns is called with the arguments of
        the tasks.
    arguments
        Those of `make`.
    """
    gpus, there = _gpus(ray, on_gpu), ray.cluster_resources()
    room = int(there["GPU"]) if gpus else int(there.get("CPU", 1)) // threads
    actor = ray.remote(_Keeper).options(
        num_cpus=threads, num_gpus=gpus, max_restarts=RETRIES, max_task_retries=RETRIES
    )

    def worker() -> Any:
        return actor.remote(Path.cwd(), make, arguments)

    idle = [worker() for _ in range(max(1, min(room, len(tasks))))]
    waiting = list(enumerate(tasks))[::-1]
    busy: dict[Any, tuple[int, Any]] = {}
    while waiting or busy:
        while idle and waiting:
            number, task = waiting.pop()
            one = idle.pop()
            busy[one.do.remote(*task)] = number, one
        (ready,), _ = ray.wait(list(busy), num_returns=1)
        number, one = busy.pop(ready)
        result, lost = _result(ray, ready, number)
        idle.append(worker() if lost else one)
        yield number, result


def all_results(outcomes: Iterable[Outcome]) -> Iterator[Outcome]:
    """Yield the outcomes that are results.

    Raises
    ------
    LdmlrError
        Tasks failed: the first error, after all others were finished.
    """
    failed: list[LdmlrError] = []
    for number, result in outcomes:
        if isinstance(result, LdmlrError):
            failed.append(result)
        else:
            yield number, result
    if failed:
        more = f" (and {len(failed) - 1} more failed)" if len(failed) > 1 else ""
        first = failed[0]
        raise type(first)(
            f"{first.message}{more}; what was finished is kept: go on with {opt('resume', True)}"
        )


def _gpus(ray: Any, wanted: bool) -> int:
    """Return how many GPUs a task takes."""
    return 1 if wanted and ray.cluster_resources().get("GPU", 0) else 0


def _result(ray: Any, ready: Any, number: int) -> tuple[Any, bool]:
    """Return what a task returned, or its error, and whether its worker is lost for good.

    Raises
    ------
    LdmlrError
        The task ended in an exception of another kind, which is a fault of the program.
    """
    try:
        return ray.get(ready), False
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        if not isinstance(cause, LdmlrError):
            raise LdmlrError(f"task {number} failed: {type(cause).__name__}: {cause}") from error
        return cause, False
    except ray.exceptions.RayError as error:
        kind = type(error).__name__
        return LdmlrError(f"the worker of task {number} was lost {RETRIES + 1} times ({kind})"), True


def _in_folder(folder: Path, work: Callable[..., Any], *arguments: Any) -> Any:
    """Do a task in the folder of the command."""
    _enter(folder)
    return work(*arguments)


def _enter(folder: Path) -> None:
    with contextlib.suppress(OSError):  # another machine need not have it: then paths are to be absolute
        os.chdir(folder)


class _Keeper:
    """A worker of a pool."""

    def __init__(
        self, folder: Path, make: Callable[..., Callable[..., Any]], arguments: tuple[Any, ...]
    ) -> None:
        _enter(folder)
        self.make, self.arguments = make, arguments
        self.made: Callable[..., Any] | None = None

    def do(self, *task: Any) -> Any:
        """Do a task; an error of making what it needs is one of the task."""
        if self.made is None:
            self.made = self.make(*self.arguments)
        return self.made(*task)
