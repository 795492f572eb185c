"""``ldmlr augment``: stores in, balanced stores out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ldmlr.diffusion.config import DiffusionConfig
from ldmlr.engines.config import EngineConfig
from ldmlr.errors import LdmlrError, counted
from ldmlr.generation.config import EncoderConfig, GenerateConfig

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
    overwrite_option,
    ready,
    resume_option,
    say,
    seed_option,
    source_options,
    threads_option,
)

if TYPE_CHECKING:
    from ldmlr.generation.augment import Job

Item = TypeVar("Item", Path, "Job")
Found = TypeVar("Found")


@click.command(name="augment")
@click.argument("stores", type=Location(), nargs=-1, required=True, metavar="STORE...")
@click.option(
    "--out-dir", type=Location(), required=True,
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
@config_options(EngineConfig, exclude=("shards",))
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
    STORE. Small stores are done side by side, one thread each, large ones in turn on all threads; on a Ray
    cluster a store is a task. What is written does not depend on it. A store that fails is named, and the
    others are finished.

    \b
    Examples:
      ldmlr augment features.h5 --out-dir balanced
      ldmlr augment a.h5 b.h5 c.h5 --out-dir balanced --resume
      ldmlr augment features.h5 --strategy few --target 100 --out-dir balanced
      ldmlr augment features.h5 --generator adasyn --out-dir balanced
      ldmlr augment stores/*.h5 --engine ray --out-dir balanced
    """
    from ldmlr import results
    from ldmlr.device import device_name
    from ldmlr.engines.stores import augment_all
    from ldmlr.generation.augment import jobs
    from ldmlr.generation.generators.catalogue import check_read
    from ldmlr.generation.plan import plan_table

    diffusion = pick(DiffusionConfig, values)
    config = pick(GenerateConfig, values)
    check_read(generator, diffusion, config, backend=backend, device=device)
    engine: EngineConfig = pick(EngineConfig, values)
    on_ray = engine.engine == "ray"
    # Workers of a cluster may have devices that this machine has not.
    place, planned = (device, ("auto", "auto")) if on_ray else (device_name(device), (backend, device))
    failed: dict[Path, LdmlrError] = {}
    places = _each(stores, failed, lambda store: ready(store, None if dry_run else out_dir, values).place)
    todo = jobs(list(places), out_dir, generator, places)
    plans = _each(todo, failed, lambda job: _plan(job, config, diffusion, *planned))
    todo = [job for job in todo if job in plans]
    settings = {
        "stores": list(stores), "out_dir": out_dir, "generator": generator,
        "generate": config.to_dict(), "diffuse": diffusion.to_dict(), "seed": seed,
        "encoder_trained_on_rows": encoder_trained_on_rows,
        "device": place, "threads": threads, "engine": engine.engine, "address": engine.address,
    }  # fmt: skip
    if dry_run:
        named = {str(job.store): plan for job, plan in plans.items()}
        text = "\n\n".join(f"{name}\n{plan_table(plan)}" for name, plan in named.items())
        emit({"command": "augment", "dry_run": True, "plans": named, "config": settings}, as_json, text)
        _refuse(failed, len(stores))
        return
    if not resume:
        for job in todo:
            job.check_fresh(overwrite)
    results.check_result(out_dir, "augment", overwrite)
    earlier = _earlier(out_dir) if resume else {}
    done: dict[Job, dict[str, Any]] = {}
    for job, found in augment_all(
        todo, diffusion, config, engine=engine, seed=seed, trained_on_rows=encoder_trained_on_rows,
        backend=backend, device=place, threads=threads, resume=resume,
        overwrite=overwrite,
    ):  # fmt: skip
        if isinstance(found, LdmlrError):
            failed[job.store] = found
        else:
            done[job] = {**_told(job, found, earlier), "plan": plans[job]}
        if not done:
            continue
        # After every store, so that an interrupt loses no figures; in the order they were given in.
        outcomes = [done[job] for job in todo if job in done]
        result = results.document("augment", settings, stores=outcomes, **_failures(failed))
        results.write_result(out_dir, result)
    if not done:
        _refuse(failed, len(stores))
    lines = []
    for figures in outcomes:
        lines.append(
            f"{figures['output']}: {figures['rows']:,} encoded + "
            f"{counted(figures['generated'], 'generated row')} "
            f"(trained {figures['train_seconds']:.1f} s, generated {figures['generate_seconds']:.1f} s, "
            f"{figures['backend']})"
        )
        if figures["learned"]:
            lines.append(f"{counted(figures['axes'], 'axis')}; {figures['learned']}")
    emit(result, as_json, "\n".join(lines))
    _refuse(failed, len(stores))


def _each(
    items: Iterable[Item], failed: dict[Path, LdmlrError], work: Callable[[Item], Found]
) -> dict[Item, Found]:
    """Return what `work` finds for each store (or job); those it fails on are noted and left out."""
    found = {}
    for item in items:
        try:
            found[item] = work(item)
        except LdmlrError as error:
            failed[item if isinstance(item, Path) else item.store] = error
    return found


def _plan(
    job: Job, config: GenerateConfig, diffusion: DiffusionConfig, backend: str, device: str
) -> list[dict[str, Any]]:
    """Return the plan of a store, once all that would be refused later was refused."""
    from ldmlr.generation.ahead import Material, check_ahead
    from ldmlr.generation.plan import describe

    material = Material.of(job.open())
    plan = check_ahead(material, job.generator, config, diffusion, backend=backend, device=device)
    return describe(plan, material.counts, config.groups, material.class_names)


def _failures(failed: Mapping[Path, LdmlrError]) -> dict[str, Any]:
    """Return what the result says of the stores that failed; nothing where none did."""
    entries = [{"store": store, "error": error.on_command_line()} for store, error in failed.items()]
    return {"failed": entries} if entries else {}


def _refuse(failed: Mapping[Path, LdmlrError], stores: int) -> None:
    """Raise what stores failed on: the one error there is, or, after a line for each, their number."""
    if not failed:
        return
    first = next(iter(failed.values()))
    if len(failed) == 1 and stores == 1:
        raise first
    for store, error in failed.items():
        line = error.on_command_line()
        say(line if str(store) in line else f"{store}: {line}")
    others = "none is finished" if len(failed) == stores else "the others are finished"
    raise type(first)(f"{len(failed)} of {counted(stores, 'store')} failed, {others}")


def _told(job: Job, figures: dict[str, Any], earlier: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """Say what is worth knowing of a store; of one that was finished, return the figures of that time."""
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
