"""``ldmlr model``: what a model file says of itself, and the card of a diffusion model."""

from __future__ import annotations

from pathlib import Path

import click

from .config_file import config_option
from .location import Location
from .nearest import Group
from .options import emit, json_option, overwrite_option

path_type = Location()


@click.group("model", cls=Group)
def command() -> None:
    """Show what a model file holds, and write the card of a diffusion model.

    \b
    Example:
      ldmlr model show model.safetensors
    """


@command.command("show")
@click.argument("file", type=path_type)
@config_option
@json_option
def show_command(file: Path, as_json: bool) -> None:
    """Show kind, classes, rows, settings and provenance of a model file.

    FILE is a diffusion model, a head or a baseline, or the folder of a run: then it
    is the head of the run. The checksum is compared, and nothing in it is run.

    \b
    Examples:
      ldmlr model show model.safetensors
      ldmlr model show runs/digits-lt
      ldmlr model show runs/heads/head-seed0.safetensors --json
    """
    from ldmlr.inference.show import facts, text
    from ldmlr.results import document

    given = file
    others: tuple[Path, ...] = ()
    if file.is_dir():
        file, others = _of_run(file)
    found = facts(file)
    shown = "\n".join([text(file, found), *(f"also: ldmlr model show {other}" for other in others)])
    emit(document("model show", {"file": given}, model=found), as_json, shown)


def _of_run(folder: Path) -> tuple[Path, tuple[Path, ...]]:
    """Return the head of a run, and the other models of its first seed."""
    from ldmlr.inference.chosen import head_file, run_with_head

    run = run_with_head(folder)
    others = (run.first_output(stage, "model.safetensors") for stage in ("baseline", "diffuse"))
    return head_file(run), tuple(other for other in others if other is not None)


@command.command("card")
@click.argument("file", type=path_type)
@click.option("--out", type=path_type, help="The card to write.  [default: FILE with the ending .md]")
@click.option("--license", metavar="ID", help="Licence of the model, such as mit.  [default: not stated]")
@overwrite_option
@config_option
@json_option
def card_command(file: Path, out: Path | None, license: str | None, overwrite: bool, as_json: bool) -> None:
    """Write the card of a diffusion model: data, rows, settings, limits.

    It is Markdown with the fields of a Hugging Face model card on top.

    \b
    Examples:
      ldmlr model card model.safetensors --license mit
      ldmlr model card model.safetensors --out README.md
    """
    from ldmlr.files import write_text
    from ldmlr.generation.latent import LatentDiffusion
    from ldmlr.results import document

    model = LatentDiffusion.load(file)
    place = out or file.with_suffix(".md")
    write_text(place, model.card(file.stem, license=license), overwrite)
    config = {"file": file, "out": place, "license": license}
    emit(document("model card", config, card=str(place)), as_json, f"{place}: the card of {file}")
