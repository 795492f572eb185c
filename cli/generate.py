"""``ldmlr generate``: draw pseudo-features from a model, or from the rows of a store, into a store."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from ldmlr.diffusion.config import DiffusionConfig
from ldmlr.engines.config import EngineConfig
from ldmlr.errors import counted
from ldmlr.generation.config import EncoderConfig, GenerateConfig
from ldmlr.generation.generators.catalogue import VIEWS
from ldmlr.remote import as_path

from .config_file import config_option
from .fields import config_options, pick
from .location import Location
from .options import (
    backend_option,
    device_option,
    dry_run_option,
    emit,
    generator_option,
    json_option,
    out_option,
    overwrite_option,
    resume_option,
    say,
    seed_option,
    shard_option,
    threads_option,
)


@click.command(name="generate")
@click.argument("source", type=Location())
@generator_option
@out_option("Store to write, such as pseudo.h5.", required=False)
@click.option(
    "--store", type=Location(), default=None,
    help="Plan for the training rows of this store; its head is the judge of --gate head.  "
         "[default: the rows the model was trained on]",
)  # fmt: skip
@config_options(GenerateConfig)
@config_options(EncoderConfig)
@config_options(DiffusionConfig, exclude=tuple(name for name in DiffusionConfig.names() if name not in VIEWS))
@seed_option
@backend_option
@device_option
@threads_option
@shard_option
@config_options(EngineConfig)
@resume_option
@overwrite_option
@dry_run_option
@json_option
@config_option
def command(
    source: Path,
    generator: str,
    out: Path | None,
    store: Path | None,
    encoder_trained_on_rows: bool | None,
    seed: int,
    backend: str,
    device: str,
    threads: int | None,
    shard: str | None,
    resume: bool,
    overwrite: bool,
    dry_run: bool,
    as_json: bool,
    **values: Any,
) -> None:
    """Stage 2: draw pseudo-features into a store.

    SOURCE is a model of ldmlr diffuse; for other generators than diffusion a feature store, whose training
    rows they are fitted to at once. By default every class is filled up to the largest. Row i is a function
    of the generator, the plan, the settings and the seed alone: shards, interrupts and threads do not change
    it.

    \b
    Examples:
      ldmlr generate model.safetensors --dry-run
      ldmlr generate model.safetensors --out pseudo.h5
      ldmlr generate model.safetensors --strategy ratio --only few --out few.h5
      ldmlr generate model.safetensors --count horse=500,8=200 --out some.h5
      ldmlr generate model.safetensors --shard 0/8 --out pseudo.h5
      ldmlr generate model.safetensors --engine ray --shards 64 --out pseudo.h5
      ldmlr generate model.safetensors --device cuda:0,cuda:1 --out pseudo.h5
      ldmlr generate features.h5 --generator smote --out pseudo.h5
    """
    if out is None and not dry_run:
        raise click.UsageError("Missing option '--out'.")
    from ldmlr import results
    from ldmlr.device import Machine, device_names
    from ldmlr.engines.shards import draw_rows
    from ldmlr.errors import UsageError, opt
    from ldmlr.generation.generate import check_not_empty, parse_shard
    from ldmlr.generation.generators.catalogue import check_read
    from ldmlr.generation.plan import describe, plan_table
    from ldmlr.generation.prepare import Work

    config: GenerateConfig = pick(GenerateConfig, values)
    views: DiffusionConfig = pick(DiffusionConfig, values)
    check_read(generator, config, views, backend=backend, device=device)
    engine = pick(EngineConfig, values)
    part = parse_shard(shard) if shard is not None else None
    on_ray = engine.engine == "ray"
    if on_ray and "," in device:
        raise UsageError(f"{opt('device')}: a worker of Ray draws on one device; leave the list out")
    # Workers of a cluster may have devices that this machine has not.
    places = (device,) if on_ray else device_names(device)
    work = Work(
        source, generator, store, config, views, encoder_trained_on_rows, seed,
        Machine(places[0], threads, backend, places[1:]),
    )  # fmt: skip
    planned = dataclasses.replace(work, machine=Machine("auto", threads)) if on_ray else work
    generation = planned.prepared()
    plan = describe(generation.plan, generation.counts, config.groups, generation.class_names)
    settings = {
        "generator": generator, **_inputs(generator, source, store),
        **generation.settings(), "shard": shard, **engine.to_dict(), "device": ",".join(places),
        "threads": threads,
    }  # fmt: skip
    if dry_run:
        document = {"command": "generate", "dry_run": True, "plan": plan, "config": settings}
        emit(document, as_json, plan_table(plan))
        return
    assert out is not None
    check_not_empty(generation.plan, generation.config)
    figures = draw_rows(work, generation, out, engine, shard=part, resume=resume, overwrite=overwrite)
    if figures is None:  # rank 0 has those of all
        return
    result = results.document("generate", settings, plan=plan, **figures)
    path = as_path(figures["output"])
    if figures["finished_before"]:
        results.restore_result(path, result)
        say(f"{path}: these rows are finished; nothing to do")
        emit(result, as_json, f"{path}: {counted(figures['rows'], 'row')}")
        return
    results.write_result(path, result)
    _remark(path, part, figures)
    # A backend that has no kernels of its own is named once.
    means = ", ".join(dict.fromkeys((figures["backend"], figures["kernels"])))
    wait = figures["device_wait"]
    waited = "" if wait is None else f", the GPU idle {wait:.0%} of that time"
    emit(
        result, as_json,
        f"{path}: {counted(figures['rows'], 'row')} in {figures['seconds']:.1f} s "
        f"({means}, drawn at {figures['rows_per_s']:,.0f} rows/s{waited})",
    )  # fmt: skip


def _inputs(generator: str, source: Path, store: Path | None) -> dict[str, Path | None]:
    """Return the files that are read, by what they are."""
    return {"model": source, "store": store} if generator == "diffusion" else {"store": source}


def _remark(path: Path, part: tuple[int, int] | None, figures: Mapping[str, Any]) -> None:
    """Say what is worth knowing of the rows and of the shards."""
    if figures["other_shards"]:
        say(
            f"{path}: written; no manifest, because {figures['other_shards'][0]} is of other settings: "
            "write it again with --overwrite"
        )
    elif part is not None and figures["manifest"] is None:
        say(f"{path}: written; the manifest follows when all {counted(part[1], 'shard')} are there")
    elif part is not None:
        say(
            f"{figures['manifest']}: names all {counted(part[1], 'shard')}; give it where a store is expected"
        )
    for note in figures["notes"]:
        say(note)
    if figures["gate"] is not None:
        gate = figures["gate"]
        say(
            f"gate {gate['kind']}: {gate['refused']:,} of {counted(gate['rows'], 'row')} were drawn again; "
            f"{gate['failed']:,} never passed, and their best attempt was kept"
        )
