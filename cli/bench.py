"""``ldmlr bench``: what this machine reaches, and of what."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .nearest import Word
from .options import config_option, device_option, emit, json_option, threads_option


@click.command(name="bench")
@click.argument("what", type=Word(["sample"]), default="sample")
@click.option(
    "--repeats", type=click.IntRange(min=1), default=7, show_default=True,
    help="Runs per figure (pairs, where two are compared); medians are reported.",
)  # fmt: skip
@click.option(
    "--compile/--no-compile", "compiled", default=True, show_default=True,
    help="Compare with torch.compile too; compiling takes a minute and needs a C++ compiler.",
)  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path), default=None, help="Folder for result.json.")
@device_option
@threads_option
@json_option
@config_option
def command(
    what: str,
    repeats: int,
    compiled: bool,
    out: Path | None,
    device: str,
    threads: int | None,
    as_json: bool,
) -> None:
    """Throughput of this machine beside its ceilings and the PyTorch baselines.

    Measures the native sampler on random models of the recipe's shape and larger: its share of a large
    matrix product through torch and of the processor's multiply-add peak, how many times it is faster than
    the same network in PyTorch, what the threads gain, and the time of a call for one row. What is
    compared runs turn by turn. Errors are the largest deviation from the float64 reference, in standard
    deviations of the rows. Takes some minutes; wants a machine that does nothing else.

    On a CUDA device it measures the kernels chosen for each size instead, beside a large bfloat16 product
    and PyTorch on that device.

    \b
    Examples:
      ldmlr bench sample
      ldmlr bench sample --no-compile --threads 1 --json
      ldmlr bench sample --device cpu
    """
    from ldmlr import progress, results
    from ldmlr.bench import cpu
    from ldmlr.device import set_threads
    from ldmlr.files import make_folder
    from ldmlr.sampler.cpu import sampler as native
    from ldmlr.sampler.cuda.device import usable

    if out is not None:
        results.check_result(out, "bench")
    used = set_threads(threads)
    on = usable(device)
    if on is None:
        measurements = cpu.jobs(used, repeats, compiled)
    else:
        from ldmlr.bench import cuda

        measurements = cuda.jobs(on, repeats, compiled)
    rows = [job() for job in progress.track(measurements, "bench", unit="figure")]
    build = native.build_info()
    resolved: dict[str, Any] = {
        "what": what, "device": str(on or "cpu"), "threads": used, "repeats": repeats, "compile": compiled,
    }  # fmt: skip
    result = results.document("bench", resolved, rows=rows, extension=build)
    if out is not None:
        make_folder(out)
        results.write_result(out, result)
    chosen = f"Instruction set {build['chosen']} (available: {build['available']})"
    if on is not None:
        chosen = f"CUDA kernels for {build['cuda']}"
    emit(result, as_json, f"{cpu.text(rows)}\n\n{chosen}")
