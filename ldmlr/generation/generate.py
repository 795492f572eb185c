"""Generation: a generator and a plan in, a feature store of generated rows out."""

from __future__ import annotations

import re
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np

from ldmlr.errors import LdmlrError, UsageError, opt
from ldmlr.files import check_output, existing_folder, room_for
from ldmlr.generation.config import PlanConfig
from ldmlr.generation.parts import Parts, parts_folder, parts_size, remove_parts
from ldmlr.generation.plan import Counts
from ldmlr.generation.prepare import Generation
from ldmlr.groups import GROUPS
from ldmlr.ownership import owned
from ldmlr.store import FeatureStore, StoreWriter, manifest_name, shard_name, write_manifest
from ldmlr.store.finished import finished
from ldmlr.store.layout import gigabytes
from ldmlr.store.shards import MAX_SHARDS


def parse_shard(text: str) -> tuple[int, int]:
    """Return (I, N) of ``I/N``, 0 <= I < N."""
    found = re.fullmatch(r"(\d{1,5})/(\d{1,5})", text)
    if not found or not int(found[1]) < int(found[2]):
        raise UsageError(
            f"{opt('shard')}: expected I/N with I from 0 to N - 1, N up to {MAX_SHARDS}, such as 0/8, "
            f"not {text!r}"
        )
    return int(found[1]), int(found[2])


def output_path(out: Path, shard: tuple[int, int] | None) -> Path:
    """Return the file that a command writes: `out`, or the shard of it."""
    return out if shard is None else shard_name(out, *shard)


def shard_range(rows: int, shard: tuple[int, int] | None) -> tuple[int, int]:
    """Return the global row numbers (start, stop) of a shard; without one, all rows."""
    if shard is None:
        return 0, rows
    index, count = shard
    return rows * index // count, rows * (index + 1) // count


def generate(
    generation: Generation,
    out: Path,
    *,
    shard: tuple[int, int] | None = None,
    resume: bool = False,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Draw the rows of a generation into a store.

    Parameters
    ----------
    generation
        From `ldmlr.generation.prepare`.
    out
        The store; with `shard`, the name the shards and their manifest share.
    shard
        (I, N): draw only the I-th of N equal ranges of rows. Whatever N is, the rows are the same.
        The process that writes the last missing shard also writes the manifest.
    resume
        Keep what an interrupted run of the same settings has drawn; do nothing if it is finished.
    overwrite
        Replace an output that exists, and the rows of an interrupted run that are not taken up.

    Returns
    -------
    Figures: ``output``, ``rows``, ``per_class``, ``gate`` (what it did to the rows drawn
    now, None without one), ``backend``, ``kernels``, ``seconds`` (all), ``draw_seconds``,
    ``rows_per_s`` (drawn now, per second of drawing), ``device_wait`` (share of that time in which
    a CUDA device had nothing to compute, None on the CPU), ``notes`` (remarks of the generator),
    ``finished_before``, ``manifest`` (None until all shards are there), ``other_shards`` (those of other
    settings, which keep it from being written).
    """
    start, stop = shard_range(generation.rows, shard)
    figures = write_rows(generation, output_path(out, shard), start, stop, resume=resume, overwrite=overwrite)
    settled: dict[str, Any] = {"manifest": None, "other_shards": []}
    if shard is not None:
        settled = settle_manifest(generation, out, shard[1])
    return {**figures, **settled}


def write_rows(
    generation: Generation,
    path: Path,
    start: int,
    stop: int,
    *,
    resume: bool = False,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Draw the rows ``start .. stop - 1`` of a generation into a store, which is owned meanwhile.

    Parameters
    ----------
    generation, resume, overwrite
        As for `generate`.
    path
        The store.
    start, stop
        Range of global row numbers.

    Returns
    -------
    Figures as of `generate`, without those of a manifest.
    """
    figures: dict[str, Any] = {"output": path, "rows": stop - start, "per_class": generation.plan}
    with owned(path):
        if resume and finished(path, generation.key, overwrite):
            return {**figures, **_figures_before(path)}
        return {**figures, **_drawn(generation, path, start, stop, resume, overwrite)}


def _figures_before(path: Path) -> dict[str, Any]:
    """Return the figures of rows that were drawn before."""
    before = FeatureStore.open(path).config
    remove_parts(path)  # a kill may have come between the store and the end of its parts
    return {
        "gate": None, "backend": before["backend"], "kernels": before["kernels"],
        "seconds": 0.0, "draw_seconds": 0.0, "rows_per_s": None, "device_wait": None, "notes": (),
        "finished_before": True,
    }  # fmt: skip


def _drawn(
    generation: Generation, path: Path, start: int, stop: int, resume: bool, overwrite: bool
) -> dict[str, Any]:
    """Draw the rows that are missing, write all of them into a store, and return the figures."""
    check_output(path, overwrite)
    check_space(path, stop - start, generation)
    began = time.perf_counter()
    key = f"{generation.key} {generation.kernels}"
    with parts_folder(path, key, resume, overwrite) as folder:
        parts = Parts(folder, generation, start, stop, key)
        drawn = parts.draw()
        draw_seconds = time.perf_counter() - began
        _write(parts, path, overwrite)
    return {
        "gate": parts.gate_figures(), "backend": generation.generator.backend,
        "kernels": generation.kernels, "seconds": time.perf_counter() - began, "draw_seconds": draw_seconds,
        "rows_per_s": drawn / draw_seconds, "device_wait": parts.device_wait,
        "notes": generation.generator.notes, "finished_before": False,
    }  # fmt: skip


def _write(parts: Parts, path: Path, overwrite: bool) -> None:
    """Write the rows that were drawn into a store of their own."""
    generation = parts.generation
    with StoreWriter(
        path, dim=generation.generator.dim, num_classes=generation.generator.num_classes,
        dtype=generation.config.dtype, encoder=generation.encoder, class_names=generation.class_names,
        overwrite=overwrite, config={"command": "generate", "key": generation.key, **generation.facts()},
    ) as writer:  # fmt: skip
        train = writer.split("train", parts.rows, source=True, ids="int")
        for first, features, labels in parts:
            numbers = np.arange(first, first + len(labels))
            train.write(first - parts.start, features, labels, source=1, ids=numbers)


def check_not_empty(plan: Counts, config: PlanConfig) -> None:
    """Refuse a plan without rows: an empty store would only surprise later."""
    if plan.any():
        return
    if config.count:
        raise UsageError(f"the plan generates no rows: {opt('count')} asks for none; ask for at least one")
    if config.strategy == "ratio":
        raise UsageError(
            f"the plan generates no rows; raise {opt('ratio')} or {opt('minimum')}, or drop {opt('only')}"
        )
    if config.only or config.strategy in GROUPS:
        option, groups = (
            (opt("only"), config.only) if config.only else (opt("strategy"), (str(config.strategy),))
        )
        raise UsageError(
            f"the plan generates no rows: no class of {', '.join(groups)} has room; change {option} or "
            f"{opt('groups')}"
        )
    raise UsageError(
        f"the plan generates no rows: every class is full; raise {opt('target')}, or use "
        f"{opt('strategy', 'ratio')}"
    )


def check_space(path: Path, rows: int, generation: Generation) -> None:
    """Refuse a generation whose parts and store do not both fit on the disk."""
    width = 4 if generation.config.dtype == "float32" else 2
    needed = rows * (generation.generator.dim * (4 + width) + 17)
    # The parts of an interrupted run are taken up or removed: either way their space counts as free.
    free = shutil.disk_usage(existing_folder(path)).free + parts_size(path)
    if needed > free:
        raise LdmlrError(
            f"{path}: needs {gigabytes(needed)} while it is made, but {gigabytes(free)} are free; "
            f"{room_for(path)}"
        )


def settle_manifest(generation: Generation, out: Path, count: int) -> dict[str, Any]:
    """Write the manifest of `count` shards if all are there; one that is no longer true is removed.

    Returns
    -------
    ``manifest`` (its path; None until all shards are there) and ``other_shards`` (those of other settings,
    which keep it from being written).
    """
    shards = [shard_name(out, index, count) for index in range(count)]
    there = [path for path in shards if path.exists()]
    others = [path for path in there if FeatureStore.open(path).config.get("key") != generation.key]
    if others:
        # They will be replaced; what a manifest said is no longer true.
        manifest_name(out).unlink(missing_ok=True)
    whole = not others and len(there) == count
    return {
        "manifest": write_manifest(out, shards, overwrite=True) if whole else None, "other_shards": others,
    }  # fmt: skip
