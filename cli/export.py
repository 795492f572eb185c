"""``ldmlr export``: a head, or encoder and head, for other programs."""

from __future__ import annotations

from pathlib import Path

import click

from .config_file import config_option
from .location import Location
from .nearest import Word
from .options import emit, json_option, out_option, overwrite_option, say


@click.command(name="export")
@click.argument("run", type=Location(), metavar="RUN|HEAD")
@click.option(
    "--format", "form", type=Word(("onnx", "torch", "sklearn", "npz")), required=True,
    help="For ONNX Runtime, torch.export.load, joblib.load or numpy.load.",
)  # fmt: skip
@out_option("The file to write.")
@click.option(
    "--with-encoder", is_flag=True, help="Images in: the encoder that the run trained before the head."
)
@click.option(
    "--adjustment", type=Word(("none", "label-shift")), default=None,
    help="The head as it is, or with label shift.  [default: the best row of the run; none for a head file]",
)  # fmt: skip
@overwrite_option
@json_option
@config_option
def command(
    run: Path,
    form: str,
    out: Path,
    with_encoder: bool,
    adjustment: str | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """A head, or encoder and head, in the form of another program.

    onnx and torch take features [n, D], or with --with-encoder images [n, 3, H, W] of float32 pixels from
    0 to 255, and give logits and probabilities. sklearn is a fitted LogisticRegression, for linear and cosine
    heads; its file is a pickle, which joblib.load runs: load it only from where you trust. npz has the
    arrays, the names of the classes and the formula.

    \b
    Examples:
      ldmlr export runs/emb --format onnx --out head.onnx
      ldmlr export runs/photos --format torch --with-encoder --out whole.pt2
      ldmlr export head.safetensors --format sklearn --out head.joblib
    """
    from ldmlr import results
    from ldmlr.errors import counted
    from ldmlr.inference.chosen import choose
    from ldmlr.inference.export import export

    chosen = choose(run, adjustment)
    say(chosen.words())
    export(chosen, form, out, with_encoder=with_encoder, overwrite=overwrite)
    config = {
        "run": run, "format": form, "out": out, "with_encoder": with_encoder, "adjustment": adjustment
    }  # fmt: skip
    result = results.document(
        "export", config, head=str(chosen.path), method=chosen.method, adjustment=chosen.adjustment,
        classes=list(chosen.class_names), dim=chosen.dim, output=str(out),
    )  # fmt: skip
    emit(
        result,
        as_json,
        f"{out}: {form}, {counted(chosen.dim, 'feature')}, {counted(len(chosen.class_names), 'class')}",
    )
