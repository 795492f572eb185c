"""``ldmlr augment``: stores in, balanced stores out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ldmlr.diffusion.config import DiffusionConfig
from ldmlr.generation.config import EncoderConfig, GenerateConfig

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
    ready,
    resume_option,
    say,
    seed_option,
    source_options,
    threads_option,
)

if TYPE_CHECKING:
    from ldmlr.generation.augment import Job


@click.command(name="augment")
@click.argument("stores", type=click.Path(path_type=Path), nargs=-1, required=True, metavar="STORE...")
@click.option(
    "--out-dir", type=click.Path(path_type=Path), required=True,
    help="Folder for the balanced stores (NAME.h5), their models (NAME.model.safetensors) and result.json.",
)  # fmt: skip
@generator_option
@config_options(GenerateConfig)
@config_options(EncoderConfig)
@config_options(DiffusionConfig)
@source_options
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
    encoder_trained_on_rows: bool | None,
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
    from ldmlr.device import device_name
    from ldmlr.generation.augment import jobs
    from ldmlr.generation.generators.catalogue import check_read
    from ldmlr.generation.plan import plan_table

    diffusion = pick(DiffusionConfig, values)
    config = pick(GenerateConfig, values)
    check_read(generator, diffusion, config, backend=backend, device=device)
    place = device_name(device)
    places = {store: ready(store, None if dry_run else out_dir, values).place for store in stores}
    todo = jobs(list(stores), out_dir, generator, places)
    plans = _plans(todo, config, diffusion, backend, place)
    settings = {
        "stores": list(stores), "out_dir": out_dir, "generator": generator,
        "generate": config.to_dict(), "diffuse": diffusion.to_dict(), "seed": seed,
        "encoder_trained_on_rows": encoder_trained_on_rows,
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
    outcomes: list[dict[str, Any]] = []
    for job in todo:
        figures = _augmented(
            job, diffusion, config, earlier, seed=seed, trained_on_rows=encoder_trained_on_rows,
            backend=backend, device=place, threads=threads, resume=resume, overwrite=overwrite,
        )  # fmt: skip
        outcomes.append({**figures, "plan": plans[str(job.store)]})
        # After every store, so that an interrupt loses no figures.
        result = results.document("augment", settings, stores=outcomes)
        results.write_result(out_dir, result)
    lines = []
    for figures in outcomes:
        lines.append(
            f"{figures['output']}: {figures['rows']:,} encoded + {figures['generated']:,} generated rows "
            f"(trained {figures['train_seconds']:.1f} s, generated {figures['generate_seconds']:.1f} s, "
            f"{figures['backend']})"
        )
        if figures["learned"]:
            lines.append(f"{figures['axes']:,} axes; {figures['learned']}")
    emit(result, as_json, "\n".join(lines))


def _plans(
    todo: list[Job], config: GenerateConfig, diffusion: DiffusionConfig, backend: str, device: str
) -> dict[str, Any]:
    """Return the plan of every store, once all that would be refused later was refused."""
    from ldmlr.generation.ahead import Material, check_ahead
    from ldmlr.generation.plan import describe

    plans = {}
    for job in todo:
        material = Material.of(job.open())
        plan = check_ahead(material, job.generator, config, diffusion, backend=backend, device=device)
        plans[str(job.store)] = describe(plan, material.counts, config.groups, material.class_names)
    return plans


def _augmented(
    job: Job,
    diffusion: DiffusionConfig,
    config: GenerateConfig,
    earlier: dict[str, dict[str, Any]],
    **options: Any,
) -> dict[str, Any]:
    """Do one store and return its figures; of one that is finished, those of the command that did it."""
    from ldmlr.generation.augment import augment

    figures = augment(job, diffusion, config, **options)
    if figures["finished_before"]:
        say(f"{job.out}: this store is finished; nothing to do")
        figures = {**figures, **earlier.get(str(job.out), {}), "finished_before": True}
    for note in figures["notes"]:
        say(f"{job.store}: {note}")
    return figures


def _earlier(out_dir: Path) -> dict[str, dict[str, Any]]:
    """Return the figures that an earlier command left for each output, where it is the same file."""
    from ldmlr.files import parse_json

    try:
        stores = parse_json((out_dir / "result.json").read_text(encoding="utf-8"))["stores"]
        return {str(entry["output"]): dict(entry) for entry in stores}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
