"""``ldmlr augment``: stores in, balanced stores out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ldmlr.diffusion.config import DiffusionConfig
from ldmlr.generation.config import GenerateConfig

from .options import (
    backend_option,
    config_option,
    config_options,
    device_option,
    dry_run_option,
    emit,
    generator_option,
    json_option,
    overwrite_option,
    pick,
    resume_option,
    say,
    seed_option,
    threads_option,
)


@click.command(name="augment")
@click.argument("stores", type=click.Path(path_type=Path), nargs=-1, required=True, metavar="STORE...")
@click.option(
    "--out-dir", type=click.Path(path_type=Path), required=True,
    help="Folder for the balanced stores (NAME.h5), their models (NAME.model.safetensors) and result.json.",
)  # fmt: skip
@generator_option
@config_options(GenerateConfig)
@config_options(DiffusionConfig)
@seed_option
@backend_option
@device_option
@threads_option
@resume_option
@overwrite_option
@dry_run_option
@json_option
@config_option
def command(
    stores: tuple[Path, ...],
    out_dir: Path,
    generator: str,
    seed: int,
    backend: str,
    device: str,
    threads: int | None,
    resume: bool,
    overwrite: bool,
    dry_run: bool,
    as_json: bool,
    **values: Any,
) -> None:
    """Stage 2 in one go: stores in, balanced stores out.

    For each STORE: train a model (or fit another generator), generate rows by the plan and write NAME.h5 with
    the encoded rows (source 0), the generated rows (source 1), and the other splits, head and class names of
    STORE.

    \b
    Examples:
      ldmlr augment features.h5 --out-dir balanced
      ldmlr augment a.h5 b.h5 c.h5 --out-dir balanced --resume
      ldmlr augment features.h5 --strategy few --target 100 --out-dir balanced
      ldmlr augment features.h5 --generator adasyn --out-dir balanced
    """
    from ldmlr import results
    from ldmlr.device import resolve_device
    from ldmlr.generation.ahead import Material, check_ahead
    from ldmlr.generation.augment import augment, jobs
    from ldmlr.generation.generators.catalogue import check_read
    from ldmlr.generation.plan import describe, plan_table
    from ldmlr.store import FeatureStore

    diffusion = pick(DiffusionConfig, values)
    config = pick(GenerateConfig, values)
    check_read(generator, diffusion, config, backend=backend, device=device)
    place = str(resolve_device(device))
    todo = jobs(list(stores), out_dir, generator)
    plans: dict[str, Any] = {}
    for job in todo:
        material = Material.of(FeatureStore.open(job.store))
        plan = check_ahead(material, generator, config, diffusion, backend=backend, device=place)
        plans[str(job.store)] = describe(plan, material.counts, config.groups, material.class_names)
    settings = {
        "stores": list(stores), "out_dir": out_dir, "generator": generator,
        "generate": config.to_dict(), "diffuse": diffusion.to_dict(), "seed": seed,
        "device": place, "threads": threads,
    }  # fmt: skip
    if dry_run:
        text = "\n\n".join(f"{name}\n{plan_table(plan)}" for name, plan in plans.items())
        emit({"command": "augment", "dry_run": True, "plans": plans, "config": settings}, as_json, text)
        return
    if not resume:
        for job in todo:
            job.check_fresh(overwrite)
    results.check_result(out_dir, "augment", overwrite)
    earlier = _earlier(out_dir) if resume else {}
    outcomes, lines = [], []
    for job in todo:
        figures = augment(
            job, diffusion, config, seed=seed, backend=backend, device=place, threads=threads,
            resume=resume, overwrite=overwrite,
        )  # fmt: skip
        if figures["finished_before"]:
            say(f"{job.out}: this store is finished; nothing to do")
            # What it took is in the result of the command that did it.
            figures = {**figures, **earlier.get(str(job.out), {}), "finished_before": True}
        for note in figures["notes"]:
            say(f"{job.store}: {note}")
        outcomes.append({**figures, "plan": plans[str(job.store)]})
        # After every store, so that an interrupt loses no figures.
        result = results.document("augment", settings, stores=outcomes)
        results.write_result(out_dir, result)
        lines.append(
            f"{job.out}: {figures['rows']:,} encoded + {figures['generated']:,} generated rows "
            f"(trained {figures['train_seconds']:.1f} s, generated {figures['generate_seconds']:.1f} s, "
            f"{figures['backend']})"
        )
    emit(result, as_json, "\n".join(lines))


def _earlier(out_dir: Path) -> dict[str, dict[str, Any]]:
    """Return the figures that an earlier command left for each output, where it is the same file."""
    from ldmlr.files import parse_json

    try:
        stores = parse_json((out_dir / "result.json").read_text(encoding="utf-8"))["stores"]
        return {str(entry["output"]): dict(entry) for entry in stores}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
