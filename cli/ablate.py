"""``ldmlr ablate``: one setting of generation varied, everything else kept."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from ldmlr.errors import UsageError
from ldmlr.experiments.settings import KINDS, AblateConfig, make_settings

from .config_file import stages_file_option
from .fields import config_options, pick
from .location import Location
from .nearest import Word
from .options import (
    backend_option,
    csv_option,
    device_option,
    emit,
    entry_lines,
    groups_option,
    json_option,
    one_seed_option,
    out_option,
    overwrite_option,
    ready,
    repeats_option,
    say,
    say_unmeasured,
    seeds_of,
    set_option,
    source_options,
    source_values,
    threads_option,
)
from .run_file import checked_tables, stage_values

# The stages an ablation has, and so the tables of the TOML file and of --set that it reads.
TABLES = ("diffuse", "generate", "finetune")

KIND_LIST = "\b\nWhat can be varied, and the default values:\n" + "\n".join(
    f"{entry_lines(name, kind.what, 14)}\n{entry_lines('', ', '.join(kind.values), 14)}"
    for name, kind in KINDS.items()
)


@click.command(name="ablate", epilog=KIND_LIST)
@click.argument("kind", type=Word(tuple(KINDS)), metavar="|".join(KINDS))
@click.argument("store", type=Location())
@config_options(AblateConfig)
@source_options
@set_option(TABLES)
@repeats_option
@one_seed_option
@groups_option
@out_option("Folder for result.json and plot.svg.", required=False)
@csv_option
@click.option(
    "--plot", "plot_file", type=Location(), default=None, metavar="FILE.svg|.pdf|.png",
    help="Draw the plot into this file.",
)  # fmt: skip
@backend_option
@device_option
@threads_option
@overwrite_option
@json_option
@stages_file_option
def command(
    kind: str,
    store: Path,
    assignments: tuple[str, ...],
    seeds: int | None,
    seed: int | None,
    groups: str,
    out: Path | None,
    csv_file: Path | None,
    plot_file: Path | None,
    backend: str,
    device: str,
    threads: int | None,
    overwrite: bool,
    as_json: bool,
    file: Path | None,
    **values: Any,
) -> None:
    """One setting of generation varied: ratio, groups, steps, guidance, axes and others.

    STORE holds encoded rows, best a test split, the baseline's head and augmented views; without a test
    split it is measured by folds. Everything else
    stays as the stages have it (or as --set puts it): stage 2, stage 3, the seeds and the test split. A
    diffusion model is trained once per seed and shared by all settings that only draw otherwise. The figures
    are test figures: they show what a setting does, they do not choose one.

    \b
    Examples:
      ldmlr ablate ratio features.h5
      ldmlr ablate groups features.h5 --out runs/groups
      ldmlr ablate steps features.h5 --values ddim:5,dpmpp2m:5,heun:5 --seeds 3
      ldmlr ablate guidance features.h5 --values 1,1.5 --plot guidance.svg
      ldmlr ablate groups features.h5 --set generate.strategy=ratio
    """
    config: AblateConfig = pick(AblateConfig, values)
    plot_kind = plot_file.suffix.lower()[1:] if plot_file is not None else ""
    if plot_file is not None and plot_kind not in ("svg", "pdf", "png"):
        raise UsageError(f"--plot {plot_file}: name a file that ends in .svg, .pdf or .png")
    of_file, assigned = stage_values(file, assignments, TABLES, "an ablation")
    for stage, keys in assigned.items():
        for key in keys:
            if f"{stage}.{key}" in KINDS[kind].sets:
                raise UsageError(f"--set: ablate {kind} varies {stage}.{key} itself; use --values")
    from ldmlr.run.config import RunConfig

    tables = checked_tables(of_file, assigned, RunConfig(groups=groups), str(file) if file else "")
    make_settings(kind, config.values, tables.diffuse, tables.generate)  # wrong values end here, before torch
    from ldmlr import results
    from ldmlr.device import resolve_device, set_threads
    from ldmlr.experiments.ablate import ablate
    from ldmlr.experiments.text import ablation_csv, ablation_text
    from ldmlr.files import check_outputs, make_folder, write_bytes, write_text
    from ldmlr.groups import parse_groups
    from ldmlr.report.ablation import ablation_plot
    from ldmlr.report.picture import INSTALL, missing, require

    numbers, shot_groups = seeds_of(seed, seeds), parse_groups(groups)
    check_outputs([out and out / "result.json", out and out / "plot.svg", csv_file, plot_file], overwrite)
    if plot_file is not None:
        require()
    place = resolve_device(device)
    used = set_threads(threads)
    start = time.perf_counter()
    with ready(store, out, values).open() as opened:
        figures = ablate(
            opened, kind, config, tables, seeds=numbers, groups=shot_groups,
            device=str(place), threads=threads, backend=backend, report=say,
        )  # fmt: skip
    say_unmeasured(store, figures)
    resolved = {
        "store": store, **source_values(values), "kind": kind, "values": figures["values"],
        "seeds": len(figures["seeds"]), "seed": seed,
        "folds": config.folds, "test_fraction": config.test_fraction, "groups": groups,
        "encoder_trained_on_rows": config.encoder_trained_on_rows,
        **{name: getattr(tables, name).to_dict() for name in TABLES},
        "backend": backend, "device": str(place), "threads": used,
    }  # fmt: skip
    resolved["finetune"]["head"] = figures["head"]["trained"]
    seconds = round(time.perf_counter() - start, 3)
    result = results.document("ablate", resolved, **figures, seconds=seconds)
    seeds = len(figures["seeds"])
    title = f"{kind}, {store.name}, {seeds} seed{'' if seeds == 1 else 's'}"
    if csv_file is not None:
        write_text(csv_file, ablation_csv(figures["rows"]), overwrite)
    if plot_file is not None:
        write_bytes(plot_file, ablation_plot(figures["rows"], title, plot_kind), overwrite)
    if out is not None:
        make_folder(out)
        if why := missing():
            say(f"{out / 'plot.svg'} is left out: {why}; run {INSTALL}")
        else:
            write_bytes(out / "plot.svg", ablation_plot(figures["rows"], title), overwrite)
        results.write_result(out, result)
    emit(result, as_json, ablation_text(figures))
