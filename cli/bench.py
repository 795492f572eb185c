"""``ldmlr bench``: what this machine reaches, and of what."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ldmlr.bench.parts import ALL, PARTS

from .config_file import config_option
from .location import Location
from .nearest import Word
from .options import device_option, emit, json_option, threads_option


@click.command(name="bench")
@click.argument("what", type=Word([*PARTS, ALL]), default="sample")
@click.option(
    "--repeats", type=click.IntRange(min=1), default=7, show_default=True,
    help="Runs per figure (pairs, where two are compared); medians are reported.",
)  # fmt: skip
@click.option(
    "--compile/--no-compile", "compiled", default=True, show_default=True,
    help="Compare with torch.compile too; compiling takes a minute and needs a C++ compiler.",
)  # fmt: skip
@click.option("--quick", is_flag=True, help="The most important figures alone, in under half a minute.")
@click.option(
    "--against", type=Location(), default=None, metavar="RESULT.json",
    help="Print the ratio of every figure to that of an earlier run; fail where one lost too much.",
)  # fmt: skip
@click.option(
    "--max-loss", type=click.FloatRange(0, 1), default=0.1, show_default=True,
    help="Share of its earlier speed that a figure may lose.",
)  # fmt: skip
@click.option("--out", type=Location(), default=None, help="Folder for result.json.")
@device_option
@threads_option
@json_option
@config_option
def command(
    what: str,
    repeats: int,
    compiled: bool,
    quick: bool,
    against: Path | None,
    max_loss: float,
    out: Path | None,
    device: str,
    threads: int | None,
    as_json: bool,
) -> None:
    """Throughput of this machine beside its ceilings and its peers.

    sample: the native sampler on random models of the recipe's shape and larger: its share of a large
    matrix product through torch and of the processor's multiply-add peak, how many times it is faster than
    the same network in PyTorch, what the threads gain, and the time of a call for one row. What is
    compared runs turn by turn. Errors are the largest deviation from the float64 reference, in standard
    deviations of the rows. Takes some minutes; wants a machine that does nothing else. On a CUDA device it
    measures the kernels chosen for each size instead, beside a large bfloat16 product and PyTorch on that
    device.

    train: steps of stage 2's fused trainer: their share of the multiply-add peak (the fewest operations
    counted), and how many times faster they are than the steps of PyTorch, eager and as one compiled graph.

    store: a feature store written, read, verified and iterated, beside a copy of its file or its bytes read.

    augment: stores of 1,000 rows augmented from end to end, in turn and side by side, and by SMOTE.

    \b
    Examples:
      ldmlr bench sample
      ldmlr bench sample --no-compile --threads 1 --json
      ldmlr bench train --threads 2
      ldmlr bench all --quick --out before
      ldmlr bench all --quick --against before/result.json
    """
    from ldmlr import progress, results
    from ldmlr.bench import against as comparison
    from ldmlr.bench import parts
    from ldmlr.cuda_device import usable
    from ldmlr.device import set_threads
    from ldmlr.files import make_folder
    from ldmlr.sampler.cpu import sampler as native

    if out is not None:
        results.check_result(out, "bench")
    earlier = None if against is None else comparison.read_rows(against)
    on = usable(device)
    settings = parts.Settings(set_threads(threads), repeats, compiled, quick, device)
    measurements = [job for part in parts.chosen(what) for job in parts.jobs(part, settings)]
    rows = [job() for job in progress.track(measurements, "bench", unit="figure")]
    build = native.build_info()
    resolved: dict[str, Any] = {
        "what": what, "device": str(on or "cpu"), "threads": settings.threads, "repeats": repeats,
        "compile": compiled, "quick": quick, "against": against, "max_loss": max_loss,
    }  # fmt: skip
    figures: dict[str, Any] = {"rows": rows, "extension": build}
    if earlier is not None:
        figures["against"] = comparison.compare(earlier, rows)
    result = results.document("bench", resolved, **figures)
    if out is not None:
        make_folder(out)
        results.write_result(out, result)
    chosen = f"Instruction set {build['chosen']} (available: {build['available']})"
    if on is not None:
        chosen = f"CUDA kernels for {build['cuda']}"
    tables = [parts.text(rows), chosen]
    if earlier is not None:
        tables.append(comparison.text(figures["against"]))
    emit(result, as_json, "\n\n".join(tables))
    if against is not None:
        comparison.refuse_losses(figures["against"], max_loss, against)
