"""Generation: a model and a plan in, a feature store of generated rows out."""

from __future__ import annotations

import dataclasses
import re
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np

from ldmlr.config import config_hash
from ldmlr.device import Machine
from ldmlr.errors import InputError, LdmlrError, UsageError, opt
from ldmlr.files import check_output, existing_folder
from ldmlr.generation.config import GenerateConfig, PlanConfig
from ldmlr.generation.gate import Gate, make_gate
from ldmlr.generation.latent import LatentDiffusion
from ldmlr.generation.parts import Parts, parts_folder, parts_size
from ldmlr.generation.plan import Counts, plan_from_config
from ldmlr.groups import GROUPS
from ldmlr.store import FeatureStore, StoreWriter, manifest_name, shard_name, write_manifest
from ldmlr.store.layout import gigabytes
from ldmlr.store.shards import MAX_SHARDS


@dataclasses.dataclass(frozen=True)
class Generation:
    """What is to be generated: everything the rows of the output depend on.

    Attributes
    ----------
    model
        The trained model.
    config
        Plan, solver and type, with no value left open.
    seed
        Seed of the noise.
    counts, plan
        Training rows and rows to generate per class ``[C]``.
    gate
        What rows have to pass, or None.
    """

    model: LatentDiffusion
    config: GenerateConfig
    seed: int
    counts: Counts
    plan: Counts
    gate: Gate | None = None

    @property
    def rows(self) -> int:
        """Rows to generate."""
        return int(self.plan.sum())

    @property
    def key(self) -> str:
        """Hash of all that determines the output."""
        judge = [] if self.gate is None else [self.gate.fingerprint]
        return config_hash(self.model.fingerprint(), self.config, self.seed, self.plan, *judge)

    def settings(self) -> dict[str, Any]:
        """Return what is saved with the rows."""
        return {**self.config.to_dict(), "seed": self.seed}


def prepare(
    model: LatentDiffusion,
    config: GenerateConfig,
    *,
    seed: int = 0,
    store: FeatureStore | None = None,
    judge: FeatureStore | None = None,
) -> Generation:
    """Return the generation of a model: its plan made, its configuration resolved.

    Parameters
    ----------
    model
        The trained model; it knows the training rows per class and the class names.
    config
        Plan, solver and type.
    seed
        Seed of the noise.
    store
        Take the training rows per class from this store instead.
    judge
        The store whose head is the judge of ``gate="head"``; by default `store`.

    Raises
    ------
    InputError
        The store does not fit the model.
    UsageError
        The plan asks for something impossible.
    """
    counts = model.counts if store is None else store.split("train").encoded_counts
    if store is not None and (store.dim, store.num_classes) != (model.dim, model.num_classes):
        raise InputError(
            f"{store.path}: has {store.num_classes} classes of {store.dim}-d rows, but the model was trained "
            f"on {model.num_classes} of {model.dim}-d rows; give the store that belongs to the model"
        )
    chosen = config.resolved(model.config.transform, unconditional=model.config.label_dropout > 0)
    plan = plan_from_config(counts, chosen, model.class_names)
    return Generation(model, chosen, seed, counts, plan, make_gate(model, chosen, judge or store))


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


def finished(path: Path, key: str, overwrite: bool = False) -> bool:
    """Tell whether `path` is the complete output of the settings behind `key`.

    Raises
    ------
    UsageError
        It is that of other settings, and they are not to be overwritten.
    """
    if not path.is_file():
        return False
    config = FeatureStore.open(path).config
    if config.get("key") != key:
        if overwrite:
            return False
        raise UsageError(
            f"{path}: holds the rows of other settings; pass {opt('overwrite', True)} or another {opt('out')}"
        )
    return True


def generate(
    generation: Generation,
    out: Path,
    *,
    backend: str = "auto",
    device: str = "auto",
    threads: int | None = None,
    shard: tuple[int, int] | None = None,
    resume: bool = False,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Draw the rows of a generation into a store.

    Parameters
    ----------
    generation
        From `prepare`.
    out
        The store; with `shard`, the name the shards and their manifest share.
    backend, device, threads
        How and where to draw.
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
    a CUDA device had nothing to compute, None on the CPU), ``finished_before``,
    ``manifest`` (None until all shards are there), ``other_shards`` (those of other settings, which keep it
    from being written).
    """
    path = output_path(out, shard)
    start, stop = shard_range(generation.rows, shard)
    figures: dict[str, Any] = {"output": path, "rows": stop - start, "per_class": generation.plan}
    if resume and finished(path, generation.key, overwrite):
        before = FeatureStore.open(path).config
        figures |= {
            "gate": None, "backend": before["backend"], "kernels": before["kernels"],
            "seconds": 0.0, "draw_seconds": 0.0, "rows_per_s": None, "device_wait": None,
            "finished_before": True,
        }  # fmt: skip
        return {**figures, **_manifest(generation, out, shard)}
    check_output(path, overwrite)
    check_space(path, stop - start, generation)
    began = time.perf_counter()
    machine = Machine(device=device, threads=threads, backend=backend)
    sampler = generation.model.sampler(generation.config, generation.seed, machine)
    with parts_folder(path, f"{generation.key} {sampler.kernels}", resume, overwrite) as folder:
        parts = Parts(folder, sampler, generation.plan, start, stop, generation.gate)
        drawn = parts.draw()
        draw_seconds = time.perf_counter() - began
        with StoreWriter(
            path, dim=generation.model.dim, num_classes=generation.model.num_classes,
            dtype=generation.config.dtype,
            encoder=str(generation.model.provenance.get("encoder", "")),
            class_names=generation.model.class_names, overwrite=overwrite,
            config={
                "command": "generate", "key": generation.key, "backend": sampler.backend,
                "kernels": sampler.kernels,
                "generate": generation.settings(), "diffuse": generation.model.config.to_dict(),
                "source": generation.model.provenance,
            },
        ) as writer:  # fmt: skip
            train = writer.split("train", stop - start, source=True, ids="int")
            for first, features, labels in parts:
                numbers = np.arange(first, first + len(labels))
                train.write(first - start, features, labels, source=1, ids=numbers)
    figures |= {
        "gate": parts.gate_figures(), "backend": sampler.backend, "kernels": sampler.kernels,
        "seconds": time.perf_counter() - began, "draw_seconds": draw_seconds,
        "rows_per_s": drawn / draw_seconds, "device_wait": parts.device_wait, "finished_before": False,
    }  # fmt: skip
    return {**figures, **_manifest(generation, out, shard)}


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
        f"{opt('strategy')} ratio"
    )


def check_space(path: Path, rows: int, generation: Generation) -> None:
    """Refuse a generation whose parts and store do not both fit on the disk."""
    width = 4 if generation.config.dtype == "float32" else 2
    needed = rows * (generation.model.dim * (4 + width) + 17)
    # The parts of an interrupted run are taken up or removed: either way their space counts as free.
    free = shutil.disk_usage(existing_folder(path)).free + parts_size(path)
    if needed > free:
        raise LdmlrError(
            f"{path}: needs {gigabytes(needed)} while it is made, but {gigabytes(free)} are free; "
            "free some space or choose another folder"
        )


def _manifest(generation: Generation, out: Path, shard: tuple[int, int] | None) -> dict[str, Any]:
    """Write the manifest if all shards are there; return its path, and the shards of other settings."""
    nothing: dict[str, Any] = {"manifest": None, "other_shards": []}
    if shard is None:
        return nothing
    shards = [shard_name(out, index, shard[1]) for index in range(shard[1])]
    there = [path for path in shards if path.exists()]
    others = [path for path in there if FeatureStore.open(path).config.get("key") != generation.key]
    if others:
        # They will be replaced; what a manifest said is no longer true.
        manifest_name(out).unlink(missing_ok=True)
        return {**nothing, "other_shards": others}
    if len(there) < len(shards):
        return nothing
    return {**nothing, "manifest": write_manifest(out, shards, overwrite=True)}
