"""Many stores at once: small ones side by side, one thread each, then large ones on all threads in turn.

On a Ray cluster a store is a task, whatever its size.

A small store does not fill several cores: its work is many short calls. A large one does, and several of them
in memory at once may be too many. What is written does not depend on it: the native trainer and the samplers
give the same bits for any number of threads.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ldmlr import progress
from ldmlr.device import thread_number
from ldmlr.diffusion.config import DiffusionConfig
from ldmlr.engines.config import EngineConfig
from ldmlr.engines.processes import run_tasks
from ldmlr.engines.ray import Outcome, cluster, task_outcomes
from ldmlr.errors import LdmlrError
from ldmlr.generation.augment import Job, augment
from ldmlr.generation.config import GenerateConfig

# Bytes of the rows of a store, views counted, up to which it is small.
SMALL = 64 << 20


def augment_all(
    jobs: Sequence[Job],
    diffusion: DiffusionConfig,
    config: GenerateConfig,
    *,
    engine: EngineConfig | None = None,
    device: str = "cpu",
    threads: int | None = None,
    **options: Any,
) -> Iterator[tuple[Job, dict[str, Any] | LdmlrError]]:
    """Augment stores and yield each with its figures, or with the error that it ended in, as they finish.

    Parameters
    ----------
    jobs
        The stores.
    diffusion, config
        As `ldmlr.generation.augment.augment` takes them.
    engine
        Who does it; None: this machine.
    device
        ``cpu``, ``cuda`` or ``cuda:N``; on a CUDA device stores are done in turn. For Ray also ``auto``: what
        a worker has.
    threads
        CPU threads in all, None: all usable cores; on Ray those of a store, None: one.
    **options
        The other options of `augment`.
    """
    common = {**options, "device": device}
    if engine is not None and engine.engine == "ray":
        common["threads"] = threads or 1
        for number, result in _on_ray(engine, jobs, diffusion, config, common):
            yield jobs[number], result
        return
    cores, small = thread_number(threads), [job for job in jobs if device == "cpu" and is_small(job)]
    if cores == 1 or len(small) < 2 or diffusion.network != "additive":
        small = []  # the trainer of other networks has other last bits for other numbers of threads
    others = [job for job in jobs if job not in small]
    with progress.bar(len(jobs), "augment", "store") as bar:
        tasks = [(job, diffusion, config, {**common, "threads": 1}) for job in small]
        for number, result in run_tasks(_augment, tasks, cores):
            bar.update(1)
            yield small[number], result
        for job in others:
            try:
                result = _augment(job, diffusion, config, {**common, "threads": threads})
            except LdmlrError as error:
                result = error
            bar.update(1)
            yield job, result


def _on_ray(
    engine: EngineConfig,
    jobs: Sequence[Job],
    diffusion: DiffusionConfig,
    config: GenerateConfig,
    options: dict[str, Any],
) -> Iterator[Outcome]:
    """Augment stores on a cluster; an error of one is its outcome, as it is here."""
    tasks = [(job, diffusion, config, options) for job in jobs]
    with cluster(engine.address) as ray, progress.bar(len(jobs), "augment", "store") as bar:
        for outcome in task_outcomes(
            ray, _augment_silently, tasks, threads=options["threads"], on_gpu=options["device"] != "cpu"
        ):
            bar.update(1)
            yield outcome


def _augment_silently(*arguments: Any) -> dict[str, Any]:
    progress.silence()
    return _augment(*arguments)


def is_small(job: Job) -> bool:
    """Tell whether a store is so small that it is done on one thread, beside others."""
    try:
        with job.open() as store:
            split = store.split("train")
            views = 0 if split.views is None else len(split.views)
            return 4 * len(split) * store.dim * (1 + views) <= SMALL
    except LdmlrError:
        return False  # what is wrong with it is said when it is its turn


def _augment(
    job: Job, diffusion: DiffusionConfig, config: GenerateConfig, options: dict[str, Any]
) -> dict[str, Any]:
    return augment(job, diffusion, config, **options)
