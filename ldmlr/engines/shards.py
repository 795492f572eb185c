"""``ldmlr generate`` in shards that others draw: Ray's workers, or the ranks that torchrun started.

A shard is what ``ldmlr generate --shard I/N`` writes. The union of all shards equals the file of one process
to the bit, so workers, ranks and their number are no part of the result.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ldmlr import progress
from ldmlr.engines.config import EngineConfig
from ldmlr.engines.driving import check_engine, drive_ranks, drive_ray
from ldmlr.engines.ray import Outcome, task_outcomes
from ldmlr.errors import UsageError, counted, opt
from ldmlr.generation.generate import generate, output_path, settle_manifest, shard_range, write_rows
from ldmlr.generation.prepare import Generation, Work
from ldmlr.ranks import Ranks, ranks
from ldmlr.store import manifest_name
from ldmlr.store.shards import MAX_SHARDS

# Rows of a shard where nobody says how many shards there are: seconds of work, whatever the cluster.
SHARD_ROWS = 2**18


def shard_count(rows: int, wanted: int | None) -> int:
    """Return how many shards so many rows are drawn in.

    Raises
    ------
    UsageError
        More are wanted than can be named or than there are rows.
    """
    if wanted is None:
        return max(1, min(-(-rows // SHARD_ROWS), MAX_SHARDS))
    if not 1 <= wanted <= min(rows, MAX_SHARDS):
        raise UsageError(
            f"{opt('shards')}: must be from 1 to {min(rows, MAX_SHARDS):,} for "
            f"{counted(rows, 'row')}, not {wanted}"
        )
    return wanted


def draw_rows(
    work: Work,
    generation: Generation,
    out: Path,
    engine: EngineConfig,
    *,
    shard: tuple[int, int] | None = None,
    resume: bool = False,
    overwrite: bool = False,
) -> dict[str, Any] | None:
    """Draw the rows of a generation: here, on a Ray cluster, or shared with the ranks that torchrun started.

    Parameters
    ----------
    work, generation, out
        What is drawn (for workers, and prepared) and where it goes.
    engine
        Who draws.
    shard, resume, overwrite
        As for `ldmlr.generation.generate.generate`.

    Returns
    -------
    Figures as of `ldmlr.generation.generate.generate`; None where another rank has those of all.

    Raises
    ------
    UsageError
        A shard is asked for where shards are shared out anyway, or shards where nothing is shared.
    """
    with ranks() as group:
        if shard is not None and (not group.alone or engine.engine != "local"):
            raise UsageError(f"{opt('shard')}: the shards are shared out already; leave it out")
        options: dict[str, Any] = {"resume": resume, "overwrite": overwrite}
        if not check_engine(engine, group):
            return generate(generation, out, shard=shard, **options)
        options["shards"] = engine.shards
        if group.alone:
            return generate_on_ray(work, generation, out, address=engine.address, **options)
        return generate_on_ranks(work, generation, out, group, **options)


def generate_on_ray(
    work: Work,
    generation: Generation,
    out: Path,
    *,
    shards: int | None = None,
    address: str | None = None,
    resume: bool = False,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Draw all shards of a generation on a Ray cluster, and write the manifest when all are there.

    Parameters
    ----------
    work
        What is drawn, for the workers.
    generation
        The same, prepared here: bad settings end here, not on a worker.
    out
        The name that shards and manifest share; a folder that every machine sees.
    shards
        How many; None: by the number of rows alone.
    address
        The cluster; None: the one ``RAY_ADDRESS`` names, else one on this machine.
    resume
        Keep the shards that are finished.
    overwrite
        Replace shards of other settings.

    Returns
    -------
    Figures as of `ldmlr.generation.generate.generate`, summed over the shards drawn now, and ``shards``.
    """
    count = shard_count(generation.rows, shards)
    began = time.perf_counter()
    tasks = [(work, out.absolute(), index, count, resume, overwrite) for index in range(count)]
    machine = work.machine
    on_gpu = machine.backend in ("auto", "cuda") and machine.device != "cpu"

    def start(ray: Any) -> Iterator[Outcome]:
        return task_outcomes(ray, draw_shard, tasks, threads=machine.threads or 1, on_gpu=on_gpu)

    return drive_ray(
        out, count, start, lambda done: _whole(done, generation, out, count, began), address=address,
        label="generate", rows=generation.rows, resume=resume, overwrite=overwrite,
    )  # fmt: skip


def generate_on_ranks(
    work: Work,
    generation: Generation,
    out: Path,
    ranks: Ranks,
    *,
    shards: int | None = None,
    resume: bool = False,
    overwrite: bool = False,
) -> dict[str, Any] | None:
    """Draw the shards of this rank; rank 0 waits for the others and returns the figures of all.

    Parameters
    ----------
    work, generation, out, shards, resume, overwrite
        As for `generate_on_ray`; without `shards` there are as many for every rank.
    ranks
        The processes that share the work.
    """
    count = shard_count(generation.rows, shards)
    if shards is None:
        count = min(-(-count // ranks.size) * ranks.size, generation.rows)
    began = time.perf_counter()
    return drive_ranks(
        out, count, lambda index: draw_shard(work, out, index, count, resume, overwrite),
        lambda done: _whole(done, generation, out, count, began), ranks, resume=resume, overwrite=overwrite,
    )  # fmt: skip


def draw_shard(
    work: Work, out: Path, index: int, count: int, resume: bool, overwrite: bool
) -> dict[str, Any]:
    """Draw one shard, in a worker; the manifest is the driver's."""
    progress.silence()
    generation, shard = _prepared(work), (index, count)
    start, stop = shard_range(generation.rows, shard)
    return write_rows(generation, output_path(out, shard), start, stop, resume=resume, overwrite=overwrite)


# A worker draws many shards of the same work: the model is read once.
_last: tuple[Work, Generation] | None = None


def _prepared(work: Work) -> Generation:
    global _last
    if _last is None or _last[0] != work:
        # As many workers as cores: one thread each, if nobody says otherwise.
        machine = dataclasses.replace(work.machine, threads=work.machine.threads or 1)
        _last = (work, dataclasses.replace(work, machine=machine).prepared())
    return _last[1]


def _whole(
    done: Sequence[Mapping[str, Any]], generation: Generation, out: Path, count: int, began: float
) -> dict[str, Any]:
    """Write the manifest, and return the figures of all shards as those of one generation."""
    drawn = [figures for figures in done if not figures["finished_before"]]
    seconds = sum(figures["draw_seconds"] for figures in drawn)
    rows = sum(figures["rows"] for figures in drawn)
    gates = [figures["gate"] for figures in drawn if figures["gate"]]
    gate = None
    if gates:
        gate = {"kind": gates[0]["kind"]}
        gate |= {name: sum(entry[name] for entry in gates) for name in ("rows", "refused", "failed")}
    one = (drawn or done)[0]
    return {
        "output": manifest_name(out), "rows": generation.rows, "per_class": generation.plan, "gate": gate,
        "backend": one["backend"], "kernels": ", ".join(sorted({figures["kernels"] for figures in done})),
        "draw_seconds": seconds, "rows_per_s": rows / seconds if seconds else None, "device_wait": None,
        "notes": tuple(dict.fromkeys(note for figures in done for note in figures["notes"])),
        "finished_before": not drawn, "shards": len(done), **settle_manifest(generation, out, count),
        "seconds": time.perf_counter() - began,
    }  # fmt: skip
