"""One process drives an output that others write in shards: it owns the manifest, and writes it at the end.

What is shared out may be rows to draw or images to encode. A shard is a file of its own; the union of all
shards equals the file of one process, so workers, ranks and their number are no part of the result.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ldmlr import progress
from ldmlr.engines.config import EngineConfig
from ldmlr.engines.ray import Outcome, all_results, cluster
from ldmlr.errors import UsageError, opt
from ldmlr.files import check_output, check_outputs
from ldmlr.ownership import owned
from ldmlr.ranks import Ranks
from ldmlr.store import manifest_name, shard_name

Figures = Mapping[str, Any]
# Makes the figures of the whole, and the manifest, from those of its shards.
Finish = Callable[[Sequence[Figures]], dict[str, Any]]


def check_engine(engine: EngineConfig, group: Ranks) -> bool:
    """Tell whether several are to share the work; refuse engines that exclude each other.

    Raises
    ------
    UsageError
        Ray is asked for where torchrun has started ranks, or shards where one process does all.
    """
    if not group.alone and engine.engine != "local":
        raise UsageError(
            f"{opt('engine', engine.engine)}: torchrun shares the work out already; leave one out"
        )
    shared = not group.alone or engine.engine != "local"
    if not shared and engine.shards is not None:
        raise UsageError(
            f"{opt('shards')}: one process writes all rows into one file; use {opt('engine', 'ray')}, or "
            "torchrun"
        )
    return shared


def drive_ray(
    out: Path,
    count: int,
    start: Callable[[Any], Iterable[Outcome]],
    finish: Finish,
    *,
    address: str | None,
    label: str,
    rows: int,
    resume: bool,
    overwrite: bool,
) -> dict[str, Any]:
    """Have all shards written on a Ray cluster; return the figures of the whole.

    Parameters
    ----------
    out, count
        The name that shards and manifest share, on a disk that every machine sees; and how many shards.
    start
        Starts a task per shard, given Ray; yields their outcomes.
    finish
        Called when all are there.
    address
        The cluster; None: the one ``RAY_ADDRESS`` names, else one on this machine.
    label, rows
        Of the progress over all shards.
    resume, overwrite
        Keep the shards that are finished, replace those of other settings.
    """
    done: list[Figures] = []
    with _driving(out, resume, overwrite):
        if not resume:
            check_outputs((shard_name(out, index, count) for index in range(count)), overwrite)
        with cluster(address) as ray, progress.bar(rows, label, "rows") as bar:
            _withdraw(out, overwrite)
            for _, figures in all_results(start(ray)):
                done.append(figures)
                bar.update(figures["rows"])
        return finish(done)


def drive_ranks(
    out: Path,
    count: int,
    write: Callable[[int], Figures],
    finish: Finish,
    group: Ranks,
    *,
    resume: bool,
    overwrite: bool,
) -> dict[str, Any] | None:
    """Write the shards of this rank; rank 0 waits for the others and returns the figures of the whole.

    Parameters
    ----------
    out, count, finish, resume, overwrite
        As of `drive_ray`.
    write
        Writes a shard.
    group
        The processes that share the work.
    """
    with contextlib.ExitStack() as stack:
        if group.first:
            stack.enter_context(_driving(out, resume, overwrite))
            _withdraw(out, overwrite)
        group.meet()  # nobody writes before the output is owned
        everyone = group.gather([write(index) for index in range(group.rank, count, group.size)])
        if everyone is None:
            return None
        return finish([figures for part in everyone for figures in part])


@contextlib.contextmanager
def _driving(out: Path, resume: bool, overwrite: bool) -> Iterator[None]:
    """Own the manifest while its shards are written: one process drives an output, whoever writes."""
    with owned(manifest_name(out)):
        check_output(manifest_name(out), overwrite or resume)
        yield


def _withdraw(out: Path, overwrite: bool) -> None:
    """Remove a manifest whose shards are about to be replaced: it is true again when all are there."""
    if overwrite:
        manifest_name(out).unlink(missing_ok=True)
