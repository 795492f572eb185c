"""Tasks on a Ray cluster, or on a Ray that is started on this machine for the time of a command.

A lost worker's task is tried again by Ray; an error that the task itself raises is not, since it would come
again: the other tasks are finished first, so that a second start has only the failed ones to do.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ldmlr.errors import LdmlrError, UsageError, opt

# How often Ray starts a task again whose worker was lost.
RETRIES = 5


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
    options: dict[str, Any] = {"address": where} if where else {"include_dashboard": False}
    try:
        ray.init(log_to_driver=False, logging_level=logging.ERROR, **options)
    except (ConnectionError, ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UsageError(
            f"{opt('address')}: no Ray cluster at {where or 'this machine'} ({reason}); start one with "
            f"`ray start --head`, or leave {opt('address')} out"
        ) from None
    try:
        yield ray
    finally:
        ray.shutdown()


def run_tasks(
    ray: Any, work: Callable[..., Any], tasks: Sequence[tuple[Any, ...]], *, threads: int, on_gpu: bool
) -> Iterator[tuple[int, Any]]:
    """Run one task per tuple of arguments; yield (number of the task, what it returned) as they finish.

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

    Raises
    ------
    LdmlrError
        A task failed (after all others were finished), or its worker was lost again and again.
    """
    gpus = 1 if on_gpu and ray.cluster_resources().get("GPU", 0) else 0
    remote = ray.remote(work).options(
        num_cpus=threads, num_gpus=gpus, max_retries=RETRIES, retry_exceptions=False
    )
    waiting = {remote.remote(*task): number for number, task in enumerate(tasks)}
    failed: list[LdmlrError] = []
    while waiting:
        (ready,), _ = ray.wait(list(waiting), num_returns=1)
        number = waiting.pop(ready)
        try:
            result = ray.get(ready)
        except ray.exceptions.RayTaskError as error:
            cause = error.cause
            if not isinstance(cause, LdmlrError):
                raise LdmlrError(f"task {number} failed: {type(cause).__name__}: {cause}") from error
            failed.append(cause)
            continue
        except ray.exceptions.RayError as error:
            failed.append(
                LdmlrError(
                    f"the worker of task {number} was lost {RETRIES + 1} times ({type(error).__name__})"
                )
            )
            continue
        yield number, result
    if failed:
        more = f" (and {len(failed) - 1} more failed)" if len(failed) > 1 else ""
        first = failed[0]
        raise type(first)(
            f"{first.message}{more}; what was finished is kept: go on with {opt('resume', True)}"
        )
