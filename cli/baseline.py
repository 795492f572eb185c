"""``ldmlr baseline``: train a baseline network on a long-tailed image set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ldmlr.encoders.config import BaselineConfig
from ldmlr.encoders.recipes import PRESETS, baseline_config, default_preset
from ldmlr.errors import counted

from .config_file import config_option
from .fields import config_options
from .image_options import NAMES, image_options, open_images
from .nearest import Word
from .options import (
    device_option,
    dry_run_option,
    emit,
    groups_option,
    json_option,
    out_option,
    overwrite_option,
    resume_option,
    say,
    seed_option,
    threads_option,
)

PRESET = Word(sorted(PRESETS))


@click.command(name="baseline")
@click.argument("source")
@out_option("Folder for model.safetensors, train.jsonl and result.json.", required=False)
@click.option(
    "--preset", type=PRESET, default=None,
    help=PRESET.listed(
        "Recipe that sets the defaults below.  [default: digits up to 16 pixels, cifar-ce-mixup up to "
        "64, imagenet-ce above]"
    ),
)  # fmt: skip
@image_options
@config_options(BaselineConfig)
@groups_option
@seed_option
@device_option
@threads_option
@resume_option
@overwrite_option
@dry_run_option
@json_option
@config_option
def command(
    source: str,
    out: Path | None,
    preset: str | None,
    groups: str,
    seed: int,
    device: str,
    threads: int | None,
    resume: bool,
    overwrite: bool,
    dry_run: bool,
    as_json: bool,
    **values: Any,
) -> None:
    """Stage 1: train a baseline network on a long-tailed image set.

    SOURCE is a built-in set (digits-lt), an HDF5 file, a folder per class, an image list or a CIFAR
    archive. A checkpoint is written after every epoch: after an interrupt, run the same command with
    --resume. The options of the recipe default to those of the preset.

    \b
    A folder of images has a folder per class (SRC/CLASS/*.jpg, or with splits):
      SRC/train/CLASS/*.jpg
      SRC/test/CLASS/*.jpg
      SRC/val/CLASS/*.jpg       if there are any; without test the test set

    \b
    Examples:
      ldmlr baseline digits-lt --out runs/digits
      ldmlr baseline cifar-10-binary.tar.gz --imbalance-factor 100 --out runs/c10
      ldmlr baseline images.h5 --preset cifar-wcdas --epochs 300 --out runs/wcdas
    """
    if out is None and not dry_run:
        raise click.UsageError("Missing option '--out'.")
    from ldmlr import device as devices
    from ldmlr import results
    from ldmlr import text as tables
    from ldmlr.encoders.baseline import follow, train_baseline
    from ldmlr.encoders.pixels import image_shape
    from ldmlr.encoders.summary import describe, estimated_seconds, finished
    from ldmlr.groups import parse_groups
    from ldmlr.ranks import PATIENCE, ranks

    shot_groups = parse_groups(groups)
    devices.set_threads(threads)
    target = devices.resolve_device(device)
    group = click.get_current_context().with_resource(ranks(str(target), PATIENCE))
    chosen = {name: values.pop(name) for name in NAMES}
    with group.in_turn():
        images = open_images(source, chosen, seed, check=dry_run)
    preset = preset or default_preset(max(image_shape(images.train)[:2]))
    config = baseline_config(preset, values)
    if not group.first:
        if not dry_run:
            follow(images, config, group, seed=seed, device=target, threads=threads)
        return
    settings = {"source": source, "preset": preset, **config.to_dict(), "seed": seed, "groups": groups}
    if dry_run:
        summary = describe(images, config, target, seed=seed)
        seconds = estimated_seconds(images, config, target, seed=seed, threads=threads)
        summary["estimated_seconds"] = float(f"{seconds:.2g}")
        document = {
            "command": "baseline", "dry_run": True, **summary, "notes": list(images.notes),
            "config": {**settings, **chosen},
        }  # fmt: skip
        emit(document, as_json, _text(summary))
        return
    assert out is not None
    results.check_result(out, "baseline", overwrite)
    done = finished(out, settings, images) if resume else None
    if done is not None:
        group.tell(False)
        say(f"{out}: this baseline is finished; nothing to do")
        emit(done, as_json, tables.accuracy_table(done["rows"]))
        return
    figures = train_baseline(
        images,
        config,
        out,
        seed=seed,
        device=target,
        threads=threads,
        resume=resume,
        overwrite=overwrite,
        groups=shot_groups,
        ranks=group,
    )
    result = results.document("baseline", {**settings, **chosen}, **figures, notes=list(images.notes))
    results.write_result(out, result)
    say(f"{figures['model']}: {counted(config.epochs, 'epoch')} in {figures['training_seconds']:.0f} s")
    emit(result, as_json, tables.accuracy_table(figures["rows"]))


def _text(summary: dict[str, Any]) -> str:
    return "\n".join(f"{key.replace('_', ' '):<16} {value}" for key, value in summary.items())


# The defaults of the recipe belong to the preset: an option that is not given is None here.
for _option in command.params:
    if _option.name in BaselineConfig.names() and isinstance(_option, click.Option):
        _option.default = () if _option.multiple else None
        # No preset names a model, and one default is said in words.
        silent = ("init", "teacher", "head_weight_decay")
        _option.show_default = False if _option.name in silent else "preset"
