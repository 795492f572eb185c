"""``ldmlr encode``: images to a feature store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ldmlr.encoders.config import EncodeConfig
from ldmlr.engines.config import EngineConfig
from ldmlr.errors import counted
from ldmlr.remote import as_path

from .config_file import config_option
from .fields import config_options, pick
from .image_options import NAMES, image_options, open_images
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
@config_options(EngineConfig)
@resume_option
@overwrite_option
@dry_run_option
@json_option
@config_option
def command(
    model: str,
    source: str,
    out: Path | None,
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
    """Stage 1: encode images into a feature store, with the baseline's head.

    MODEL is the folder or file that ldmlr baseline wrote (of one trained on other classes the head is left
    out), a pretrained network as timm:NAME or open_clip:NAME[/WEIGHTS], as package.module:factory or
    FILE.py:factory, or a program of torch.export (.pt2); the last three are code that is run. SOURCE is the
    image set; with --imbalance-factor, --seed draws the same images as in the training; it also seeds the
    views, and the weights that a factory draws. What a network says of itself (pretrained_cfg, default_cfg,
    mean and std) is used, and printed.

    \b
    A folder of images has a folder per class (SRC/CLASS/*.jpg, or with splits):
      SRC/train/CLASS/*.jpg
      SRC/test/CLASS/*.jpg
      SRC/val/CLASS/*.jpg       if there are any; without test the test set

    \b
    Examples:
      ldmlr encode runs/c10 images.h5 --out features.h5
      ldmlr encode runs/c10 images.h5 --views 4 --mirror --out features.h5
      ldmlr encode timm:resnet50.a1_in1k photos/ --out features.h5
      ldmlr encode mynets:backbone photos/ --image-size 224 --out features.h5
      ldmlr encode runs/c10 photos/ --engine ray --shards 64 --out features.h5
    """
    if out is None and not dry_run:
        raise click.UsageError("Missing option '--out'.")
    config: EncodeConfig = pick(EncodeConfig, values)
    engine: EngineConfig = pick(EngineConfig, values)
    from ldmlr import device as devices
    from ldmlr import results
    from ldmlr import text as tables
    from ldmlr.encoders.encode import splits_to_encode
    from ldmlr.encoders.encoder import foreign_network, open_encoder
    from ldmlr.encoders.wanted import wanted_size
    from ldmlr.engines.encoding import Encoding, encode_store
    from ldmlr.files import check_output
    from ldmlr.groups import parse_groups
    from ldmlr.ranks import ranks

    group = click.get_current_context().with_resource(ranks())
    alone = group.alone and engine.engine == "local"
    if out is not None and alone and not dry_run:
        check_output(out, overwrite or resume)
    shot_groups = parse_groups(groups)
    devices.set_threads(threads)
    # Workers of a cluster may have devices that this machine has not.
    target = device if engine.engine == "ray" else devices.device_name(device)
    chosen = {name: values[name] for name in NAMES}
    network = foreign_network(model, seed, config.weights)
    wanted = None if network is None or chosen["image_size"] is not None else wanted_size(network)
    if wanted is not None:
        chosen["image_size"] = wanted[0]
        chosen["image_crop"] = chosen["image_crop"] or wanted[1]
    with group.in_turn():
        images = open_images(source, chosen, seed, check=dry_run)
    encoder = open_encoder(model, images, config, seed=seed, network=network)
    if encoder.normalised is not None:
        say(f"{model}: {encoder.normalised}")
    if wanted is not None:
        say(
            f"{model}: images of {chosen['image_size']} pixels, as it wants them, from "
            f"{chosen['image_crop']:g} of the shorter side (--image-size and --image-crop change that)"
        )
    if encoder.baseline is not None and encoder.head is None:
        say(
            f"{model}: was trained on other classes ({len(encoder.baseline.class_names)}) than {source} has "
            f"({images.num_classes}): its head is left out"
        )
    elif (
        encoder.baseline is not None
        and encoder.baseline.provenance.get("fingerprint") != images.fingerprint()
    ):
        say(f"note: {source} is not the image set, or not the draw (--seed), that {model} was trained on")
    settings = {"model": model, "source": source, **config.to_dict(), "seed": seed, "groups": groups}
    settings |= engine.to_dict()
    if dry_run and not group.first:
        return
    if dry_run:
        rows = {name: len(split) for name, split in splits_to_encode(encoder, images)[0].items()}
        plan = {
            "encoder": encoder.name, "dim": encoder.dim, "rows": rows, "views": list(config.kinds()),
            "mirror": encoder.mirror, "image_size": chosen["image_size"],
            "normalisation": encoder.normalised or "the baseline's own",
        }  # fmt: skip
        text = "\n".join(f"{key:<14} {value}" for key, value in plan.items())
        document = {
            "command": "encode", "dry_run": True, **plan, "notes": list(images.notes),
            "config": {**settings, **chosen},
        }  # fmt: skip
        emit(document, as_json, text)
        return
    assert out is not None
    figures = encode_store(
        Encoding(model, source, chosen, config, seed, target, threads), encoder, images, out, engine, group,
        groups=shot_groups, resume=resume, overwrite=overwrite,
    )  # fmt: skip
    if figures is None:  # rank 0 has those of all
        return
    out = as_path(figures["store"])
    result = results.document("encode", {**settings, **chosen}, **figures, notes=list(images.notes))
    if figures["finished_before"]:
        results.restore_result(out, result)
        say(f"{out}: these images are encoded; nothing to do")
        emit(result, as_json, str(out))
        return
    results.write_result(out, result)
    sizes = ", ".join(f"{count:,} {name}" for name, count in figures["splits"].items())
    say(f"{out}: {sizes} rows of {counted(figures['dim'], 'dimension')} in {figures['seconds']:.1f} s")
    emit(result, as_json, tables.accuracy_table(figures["rows"]) if figures["rows"] else str(out))
