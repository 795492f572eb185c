"""``ldmlr diffuse``: train the latent diffusion model on a store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ldmlr.diffusion.config import DiffusionConfig
from ldmlr.errors import counted
from ldmlr.generation.config import EncoderConfig

from .config_file import config_option
from .fields import config_options, pick
from .location import Location
from .options import (
    device_option,
    dry_run_option,
    emit,
    json_option,
    out_option,
    overwrite_option,
    ready,
    resume_option,
    say,
    seed_option,
    source_options,
    threads_option,
)


@click.command(name="diffuse")
@click.argument("store", type=Location())
@out_option("Model file to write, such as model.safetensors.")
@config_options(DiffusionConfig)
@config_options(EncoderConfig)
@source_options
@seed_option
@click.option("--card", is_flag=True, help="Write the model's card beside it, OUT with the ending .md.")
@click.option("--license", metavar="ID", help="Licence on the card, such as mit.  [default: not stated]")
@device_option
@threads_option
@resume_option
@overwrite_option
@dry_run_option
@json_option
@config_option
def command(
    store: Path,
    out: Path,
    encoder_trained_on_rows: bool | None,
    seed: int,
    card: bool,
    license: str | None,
    device: str,
    threads: int | None,
    resume: bool,
    overwrite: bool,
    dry_run: bool,
    as_json: bool,
    **values: Any,
) -> None:
    """Stage 2: train the class-conditional latent diffusion model on a store.

    Trains on the encoded training rows of STORE and on its augmented views. A checkpoint is kept
    while it runs: after an interrupt, run the same command with --resume.

    \b
    Examples:
      ldmlr diffuse features.h5 --out model.safetensors
      ldmlr diffuse features.h5 --hidden 256 --out wide.safetensors
      ldmlr diffuse features.h5 --transform standardised --out paper.safetensors
      ldmlr diffuse features.h5 --out model.safetensors --card --license mit
    """
    from ldmlr import results
    from ldmlr import text as tables
    from ldmlr.device import device_name
    from ldmlr.errors import UsageError, opt
    from ldmlr.files import check_output, write_text
    from ldmlr.generation.diffuse import diffuse, follow, preview, settled
    from ldmlr.ranks import PATIENCE, ranks

    beside = out.with_suffix(".md")
    if license is not None and not card:
        raise UsageError(f"{opt('license')}: stands on the card; pass {opt('card', True)} too")
    if card and not resume:
        check_output(beside, overwrite)  # before a training that would be in vain
    config = pick(DiffusionConfig, values)
    place = device_name(device)
    ctx = click.get_current_context()
    group = ctx.with_resource(ranks(place, PATIENCE))
    with group.in_turn():
        rows_of = ready(store, None if dry_run else out.parent, values).open()
    config = settled(config, rows_of)
    settings = {
        "store": store, **config.to_dict(), "encoder_trained_on_rows": encoder_trained_on_rows, "seed": seed,
        "device": place,
    }  # fmt: skip
    if not group.first:
        if not dry_run:
            follow(rows_of, config, group, seed=seed, device=place, threads=threads)
        return
    if dry_run:
        summary = preview(rows_of, config)
        text = tables.table(["diffuse", ""], [[name, str(value)] for name, value in summary.items()])
        emit({"command": "diffuse", "dry_run": True, **summary, "config": settings}, as_json, text)
        return
    model, figures = diffuse(
        rows_of, out, config, seed=seed, trained_on_rows=encoder_trained_on_rows, device=place,
        threads=threads, resume=resume, overwrite=overwrite, ranks=group,
    )  # fmt: skip
    result = results.document("diffuse", settings, **figures)
    if figures["finished_before"]:
        results.restore_result(out, result)
        say(f"{out}: this model is finished; nothing to do")
    else:
        results.write_result(out, result)
    if card:
        write_text(beside, model.card(out.stem, license=license), overwrite or resume)
    text = (
        f"{out}: {counted(figures['rows'], 'row')} and {counted(figures['views'], 'view')} of them, "
        f"{counted(config.steps, 'step')} in {figures['seconds']:.1f} s, loss {figures['loss']:.4f}"
    )
    if trained := figures["trained"]:
        text += f" ({trained['trainer']}, {trained['precision']})"
    if figures["learned"]:
        text += f"\n{figures['axes']:,} of {counted(rows_of.dim, 'axis')}; {figures['learned']}"
    emit(result, as_json, text)
