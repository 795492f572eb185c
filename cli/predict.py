"""``ldmlr predict``: labels and probabilities for new rows or images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .config_file import config_option
from .location import Location
from .nearest import Word
from .options import (
    device_option,
    emit,
    json_option,
    out_option,
    overwrite_option,
    say,
    source_options,
    threads_option,
)


@click.command(name="predict")
@click.argument("run", type=Location(), metavar="RUN|HEAD")
@click.argument("source", type=Location(), metavar="INPUT")
@out_option("The table to write: .csv or .parquet.")
@click.option(
    "--adjustment", type=Word(("none", "label-shift")), default=None,
    help="The head as it is, or with label shift.  [default: the best row of the run; none for a head file]",
)  # fmt: skip
@click.option(
    "--split", type=Word(("train", "test", "val")), default=None,
    help="Which rows, where INPUT has several splits.  [default: test]",
)  # fmt: skip
@source_options
@device_option
@threads_option
@overwrite_option
@json_option
@config_option
def command(
    run: Path,
    source: Path,
    out: Path,
    adjustment: str | None,
    split: str | None,
    device: str,
    threads: int | None,
    overwrite: bool,
    as_json: bool,
    **values: Any,
) -> None:
    """Class names and probabilities for new features or images.

    RUN is the folder of ldmlr run or ldmlr finetune, HEAD a head file. INPUT holds features in any form,
    labels or not; after a run that started from images, it may be a folder of images or one image. The table
    has a line per row: its number or image, the predicted class, its probability, and that of every class.

    \b
    Examples:
      ldmlr predict runs/emb new.npz --out predictions.csv
      ldmlr predict runs/photos holiday/ --out predictions.parquet
      ldmlr predict head.safetensors features.h5 --split val --out val.csv
    """
    from ldmlr import results
    from ldmlr.device import resolve_device, set_threads
    from ldmlr.errors import counted
    from ldmlr.inference.chosen import choose
    from ldmlr.inference.predict import predict

    place, used = str(resolve_device(device)), set_threads(threads)
    chosen = choose(run, adjustment)
    say(chosen.words())
    figures = predict(
        chosen, source, out, split=split, device=place, overwrite=overwrite,
        features_key=values["features_key"], labels_key=values["labels_key"],
    )  # fmt: skip
    config = {
        "run": run, "source": source, "out": out, "split": split, **values, "device": place, "threads": used
    }  # fmt: skip
    result = results.document(
        "predict", config, **figures, head=str(chosen.path), method=chosen.method,
        adjustment=chosen.adjustment, output=str(out),
    )  # fmt: skip
    results.write_result(out, result)
    common = sorted(figures["counts"].items(), key=lambda item: -item[1])[:5]
    most = ", ".join(f"{name} ({number:,})" for name, number in common)
    emit(result, as_json, f"{out}: {counted(figures['rows'], 'row')}; most often {most}")
