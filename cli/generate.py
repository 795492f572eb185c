"""``ldmlr generate``: draw pseudo-features from a model into a store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ldmlr.generation.config import GenerateConfig

from .options import (
    backend_option,
    config_option,
    config_options,
    device_option,
    dry_run_option,
    emit,
    json_option,
    out_option,
    overwrite_option,
    pick,
    resume_option,
    say,
    seed_option,
    shard_option,
    threads_option,
)


@click.command(name="generate")
@click.argument("model", type=click.Path(path_type=Path))
@out_option("Store to write, such as pseudo.h5.", required=False)
@click.option(
    "--store", type=click.Path(path_type=Path), default=None,
    help="Plan for the training rows of this store; its head is the judge of --gate head.  "
         "[default: the rows the model was trained on]",
)  # fmt: skip
@config_options(GenerateConfig)
@seed_option
@backend_option
@device_option
@threads_option
@shard_option
@resume_option
@overwrite_option
@dry_run_option
@json_option
@config_option
def command(
    model: Path,
    out: Path | None,
    store: Path | None,
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
    """Stage 2: draw pseudo-features from a model into a store.

    By default every class is filled up to the largest. Row i is a function of the model, the plan, the
    solver and the seed alone: shards, interrupts and threads do not change it.

    \b
    Examples:
      ldmlr generate model.safetensors --dry-run
      ldmlr generate model.safetensors --out pseudo.h5
      ldmlr generate model.safetensors --strategy ratio --ratio 0.2 --only few --out pseudo.h5
      ldmlr generate model.safetensors --count horse=500 --count 8=200 --out pseudo.h5
      ldmlr generate model.safetensors --shard 0/8 --out pseudo.h5
    """
    if out is None and not dry_run:
        raise click.UsageError("Missing option '--out'.")
    from ldmlr import results
    from ldmlr.device import resolve_device
    from ldmlr.generation.generate import check_not_empty, generate, output_path, parse_shard, prepare
    from ldmlr.generation.latent import LatentDiffusion
    from ldmlr.generation.plan import describe, plan_table
    from ldmlr.store import FeatureStore

    config = pick(GenerateConfig, values)
    part = parse_shard(shard) if shard is not None else None
    place = str(resolve_device(device))
    trained = LatentDiffusion.load(model)
    generation = prepare(
        trained, config, seed=seed, store=None if store is None else FeatureStore.open(store)
    )
    plan = describe(generation.plan, generation.counts, config.groups, trained.class_names)
    settings = {
        "model": model, "store": store, **generation.settings(), "shard": shard,
        "device": place, "threads": threads,
    }  # fmt: skip
    if dry_run:
        emit(
            {"command": "generate", "dry_run": True, "plan": plan, "config": settings},
            as_json,
            plan_table(plan),
        )
        return
    assert out is not None
    check_not_empty(generation.plan, generation.config)
    figures = generate(
        generation, out, backend=backend, device=place, threads=threads, shard=part, resume=resume,
        overwrite=overwrite,
    )  # fmt: skip
    result = results.document("generate", settings, plan=plan, **figures)
    path = output_path(out, part)
    if figures["finished_before"]:
        say(f"{path}: these rows are finished; nothing to do")
        emit(result, as_json, f"{path}: {figures['rows']:,} rows")
        return
    results.write_result(path, result)
    if figures["other_shards"]:
        say(
            f"{path}: written; no manifest, because {figures['other_shards'][0]} is of other settings: "
            "write it again with --overwrite"
        )
    elif part is not None and figures["manifest"] is None:
        say(f"{path}: written; the manifest follows when all {part[1]} shards are there")
    if figures["gate"] is not None:
        gate = figures["gate"]
        say(
            f"gate {gate['kind']}: {gate['refused']:,} of {gate['rows']:,} rows were drawn again; "
            f"{gate['failed']:,} never passed, and their best attempt was kept"
        )
    wait = figures["device_wait"]
    waited = "" if wait is None else f", the GPU idle {wait:.0%} of that time"
    emit(
        result, as_json,
        f"{path}: {figures['rows']:,} rows in {figures['seconds']:.1f} s "
        f"({figures['backend']}, {figures['kernels']}, drawn at {figures['rows_per_s']:,.0f} rows/s{waited})",
    )  # fmt: skip
