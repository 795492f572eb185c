"""``ldmlr encode``: images to a feature store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ldmlr.encoders.config import EncodeConfig

from .image_options import image_options
from .options import (
    config_option,
    config_options,
    device_option,
    dry_run_option,
    emit,
    groups_option,
    json_option,
    out_option,
    overwrite_option,
    pick,
    say,
    seed_option,
    threads_option,
)


@click.command(name="encode")
@click.argument("model")
@click.argument("source")
@out_option("The feature store to write (.h5).", required=False)
@image_options
@config_options(EncodeConfig)
@groups_option
@seed_option
@device_option
@threads_option
@overwrite_option
@dry_run_option
@json_option
@config_option
def command(
    model: str,
    source: str,
    out: Path | None,
    imbalance_factor: float | None,
    image_root: Path | None,
    image_size: int | None,
    groups: str,
    seed: int,
    device: str,
    threads: int | None,
    overwrite: bool,
    dry_run: bool,
    as_json: bool,
    **values: Any,
) -> None:
    """Stage 1: encode images into a feature store, with the baseline's head.

    MODEL is the folder or file that ldmlr baseline wrote, a pretrained network as
    package.module:factory or FILE.py:factory, or a program of torch.export (.pt2); the last two are
    code that is run. SOURCE is the image set; with
    --imbalance-factor, --seed draws the same images as in the training; it also seeds the views, and
    the weights that a factory draws.

    \b
    Examples:
      ldmlr encode runs/c10 images.h5 --out features.h5
      ldmlr encode runs/c10 images.h5 --views 4 --mirror --out features.h5
      ldmlr encode mynets:backbone photos/ --image-size 224 --out features.h5
    """
    if out is None and not dry_run:
        raise click.UsageError("Missing option '--out'.")
    config: EncodeConfig = pick(EncodeConfig, values)
    from ldmlr import device as devices
    from ldmlr import results
    from ldmlr import text as tables
    from ldmlr.data.open import open_image_set
    from ldmlr.encoders.encode import encode_images, splits_to_encode
    from ldmlr.encoders.encoder import open_encoder
    from ldmlr.files import check_output
    from ldmlr.groups import parse_groups

    if out is not None and not dry_run:
        check_output(out, overwrite)
    shot_groups = parse_groups(groups)
    devices.set_threads(threads)
    target = devices.resolve_device(device)
    images = open_image_set(
        source, imbalance_factor=imbalance_factor, seed=seed, image_root=image_root, image_size=image_size
    )
    encoder = open_encoder(model, images, config, seed=seed)
    if (
        encoder.baseline is not None
        and encoder.baseline.provenance.get("fingerprint") != images.fingerprint()
    ):
        say(f"note: {source} is not the image set, or not the draw (--seed), that {model} was trained on")
    settings = {"model": model, "source": source, **config.to_dict(), "seed": seed, "groups": groups}
    if dry_run:
        rows = {name: len(split) for name, split in splits_to_encode(encoder, images)[0].items()}
        plan = {
            "encoder": encoder.name, "dim": encoder.dim, "rows": rows, "views": list(config.kinds()),
            "mirror": encoder.mirror,
        }  # fmt: skip
        text = "\n".join(f"{key:<8} {value}" for key, value in plan.items())
        emit({"command": "encode", "dry_run": True, **plan, "config": settings}, as_json, text)
        return
    assert out is not None
    figures = encode_images(
        encoder,
        images,
        out,
        config,
        seed=seed,
        device=target,
        threads=threads,
        overwrite=overwrite,
        groups=shot_groups,
    )
    result = results.document("encode", settings, **figures)
    results.write_result(out, result)
    sizes = ", ".join(f"{count:,} {name}" for name, count in figures["splits"].items())
    say(f"{out}: {sizes} rows of {figures['dim']} dimensions in {figures['seconds']:.1f} s")
    emit(result, as_json, tables.accuracy_table(figures["rows"]) if figures["rows"] else str(out))
