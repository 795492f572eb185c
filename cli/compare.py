"""``ldmlr compare``: LDMLR beside other methods on one feature store."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from ldmlr.experiments.catalogue import METHODS, CompareConfig

from .config_file import stages_file_option
from .fields import config_options, pick
from .location import Location
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

# The stages a comparison has, and so the tables of the TOML file and of --set that it reads.
TABLES = ("diffuse", "generate", "finetune")


METHOD_LIST = "\b\nMethods:\n" + "\n".join(
    entry_lines(name, entry.what, 24) for name, entry in METHODS.items()
)


@click.command(name="compare", epilog=METHOD_LIST)
@click.argument("store", type=Location())
@config_options(CompareConfig)
@source_options
@set_option(TABLES)
@repeats_option
@one_seed_option
@groups_option
@out_option("Folder for result.json.", required=False)
@csv_option
@backend_option
@device_option
@threads_option
@overwrite_option
@json_option
@stages_file_option
def command(
    store: Path,
    assignments: tuple[str, ...],
    seeds: int | None,
    seed: int | None,
    groups: str,
    out: Path | None,
    csv_file: Path | None,
    backend: str,
    device: str,
    threads: int | None,
    overwrite: bool,
    as_json: bool,
    file: Path | None,
    **values: Any,
) -> None:
    """LDMLR beside other methods: same protocol, several seeds, mean and standard deviation.

    STORE holds encoded rows, best a test split, the baseline's head and augmented views; without a test
    split the methods are measured by folds. Methods that
    generate rows follow the same plan (but for the paper's own) and the same stage 3, and the label-shift
    rows of all trained heads the same rule, which the output states. The verdict says whether the best row
    with generation is ahead of the best without it, what won, by how many standard deviations, and whether
    diffusion beat the best Gaussian and the best method without generation.

    \b
    Examples:
      ldmlr compare features.h5
      ldmlr compare features.h5 --out runs/compare --csv comparison.csv
      ldmlr compare features.h5 --methods baseline,smote,ldmlr --seeds 3
      ldmlr compare features.h5 --set finetune.mix=1 --set generate.guidance=2
    """
    config = pick(CompareConfig, values)
    of_file, assigned = stage_values(file, assignments, TABLES, "a comparison")
    from ldmlr import results
    from ldmlr.device import resolve_device, set_threads
    from ldmlr.experiments.compare import compare
    from ldmlr.experiments.text import comparison_csv, comparison_text
    from ldmlr.files import check_outputs, make_folder, write_text
    from ldmlr.groups import parse_groups
    from ldmlr.run.config import RunConfig

    numbers, shot_groups = seeds_of(seed, seeds), parse_groups(groups)
    tables = checked_tables(of_file, assigned, RunConfig(groups=groups), str(file) if file else "")
    check_outputs([out and out / "result.json", csv_file], overwrite)
    place = resolve_device(device)
    used = set_threads(threads)
    start = time.perf_counter()
    with ready(store, out, values).open() as opened:
        figures = compare(
            opened, config, tables, seeds=numbers, groups=shot_groups,
            device=str(place), threads=threads, backend=backend, report=say,
        )  # fmt: skip
    say_unmeasured(store, figures)
    resolved = {
        "store": store, **source_values(values), "methods": config.methods or "all", "head": config.head,
        "seeds": len(figures["seeds"]), "seed": seed,
        "folds": config.folds, "test_fraction": config.test_fraction, "groups": groups,
        "encoder_trained_on_rows": config.encoder_trained_on_rows,
        **{name: getattr(tables, name).to_dict() for name in TABLES},
        "backend": backend, "device": str(place), "threads": used,
    }  # fmt: skip
    resolved["finetune"]["head"] = figures["head"]["trained"]
    seconds = round(time.perf_counter() - start, 3)
    result = results.document("compare", resolved, **figures, seconds=seconds)
    if csv_file is not None:
        write_text(csv_file, comparison_csv(figures["rows"]), overwrite)
    if out is not None:
        make_folder(out)
        results.write_result(out, result)
    emit(result, as_json, comparison_text(figures))
