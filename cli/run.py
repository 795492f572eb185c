"""``ldmlr run``: the three stages in a row."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ldmlr import progress
from ldmlr.errors import UsageError, counted, opt
from ldmlr.results import ALL, judged_by
from ldmlr.run.config import STAGES, RunConfig, StageTables
from ldmlr.store.heldout import Measuring

from .fields import config_options, pick
from .image_options import checked
from .location import Location
from .options import (
    device_option,
    dry_run_option,
    emit,
    json_option,
    out_option,
    say,
    say_baseline,
    set_option,
    threads_option,
    unmeasured_in_words,
)
from .run_file import RunFile, checked_tables, parse_set, read_run_file

if TYPE_CHECKING:
    from ldmlr.run.pipeline import Run


@click.command(name="run")
@click.argument("source", required=False)
@out_option("Folder of the run.  [default: runs/NAME of the source]", required=False)
@set_option(STAGES)
@click.option(
    "--config", "file", type=Location(), metavar="FILE.toml",
    help="Read options from a TOML file, a table per stage; the command line wins.",
)  # fmt: skip
@config_options(RunConfig)
@click.option("--backend", default="auto", show_default=True, metavar="auto|reference|native|cuda",
              help="What draws the rows.")  # fmt: skip
@device_option
@threads_option
@dry_run_option
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    /,
    source: str | None,
    out: Path | None,
    assignments: tuple[str, ...],
    file: Path | None,
    backend: str,
    device: str,
    threads: int | None,
    dry_run: bool,
    as_json: bool,
    **values: Any,
) -> None:
    """All three stages: what is missing is run, what is there is reused.

    SOURCE is a built-in set (digits-lt), features (a store, .npz, .npy, CSV, Parquet, HDF5), an image set, or
    a TOML file that says it all.
    Features are taken in any form; a copy as a store is kept in the folder of the run. Without a test split
    they are measured by stratified folds, drawn anew for every seed, and the head is trained on all rows.
    After an interrupt, the same command goes on where it stopped. Changed settings run what depends on
    them again, in folders of their own. Generated rows that a store holds already are left out. The last
    line says whether the best row with generation is ahead of the best row without it.

    \b
    A folder of images has a folder per class (SRC/CLASS/*.jpg, or with splits):
      SRC/train/CLASS/*.jpg
      SRC/test/CLASS/*.jpg
      SRC/val/CLASS/*.jpg       if there are any; without test the test set

    With --auto the first line says which method to use, chosen on held-out training or validation rows
    among all that ldmlr compare knows, never on the test split; its head is written. Where there are
    validation rows, settings of generation are chosen on them first: those given are kept unless the rows
    speak for others. With --refit generator and settings of stages 2 and 3 are taken over from such a run;
    those of stage 1 are given again.

    \b
    Examples:
      ldmlr run digits-lt
      ldmlr run features.h5 --seeds 5 --out runs/c10
      ldmlr run features.h5 --set diffuse.hidden=64 --set generate.guidance=2
      ldmlr run experiment.toml
      ldmlr run features.h5 --auto
      ldmlr run digits-lt --auto --set baseline.val_fraction=0.1 --out runs/chosen
      ldmlr run features.h5 --refit runs/chosen/result.json
    """
    given = {
        name for name in RunConfig.names()
        if ctx.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
    }  # fmt: skip
    document = read_run_file(file, source)
    source = document.source
    dry_run = dry_run or document.flags.get("dry_run", False)
    as_json = as_json or document.flags.get("json", False)
    progress.silence(as_json)
    if document.flags.get("quiet", False):
        progress.quiet()
    if source is None:
        if document.name:
            raise UsageError(f'{document.name}: has no key source; add one, such as source = "digits-lt"')
        raise click.UsageError("Missing argument 'SOURCE'.")
    config, tables = _configured(document, given, values, assignments)
    machine = document.machine(ctx, backend=backend, device=device, threads=threads)
    from ldmlr import results
    from ldmlr.device import Machine
    from ldmlr.experiments.verdict import best_row, chosen_row, run_verdict
    from ldmlr.run.opened import OpenedRun
    from ldmlr.run.pipeline import open_run
    from ldmlr.run.source import default_name
    from ldmlr.select.report import evidence_table, trials_table
    from ldmlr.text import accuracy_table, table

    root = out or document.out or Path("runs") / default_name(document.name or source)
    copies = ctx.with_resource(tempfile.TemporaryDirectory(prefix="ldmlr-")) if dry_run else root
    run = open_run(source, config, tables, root, Machine(**machine), Path(copies))
    store = run.plan.facts.store
    if store is not None and store.place is not None:
        kept = f"{'found' if store.before else 'kept'} as a feature store in {store.place}"
        # The copy of a dry run goes when it ends: nobody need know where it was.
        for note in store.notes if dry_run else (kept, *store.notes):
            say(f"{source}: {note}")
    left_out = run.plan.facts.own_generated
    if left_out:
        say(
            f"{source}: holds {counted(left_out, 'generated row')}, which are left out: a run draws its own "
            "and fine-tunes on these and the encoded rows"
        )
    for note in run.origin.notes:
        say(note)
    if dry_run:
        checked(run.origin.check_files)
        steps = run.overview()
        text = table(
            ["stage", "seed", "status", "output"],
            [[step["stage"], str(step["seed"]), step["status"], step["output"]] for step in steps],
        )
        emit(
            {"command": "run", "dry_run": True, "steps": steps, "config": run.plan.settings()}, as_json, text
        )
        return
    results.check_result(root, "run")
    before = results.source_of(root)
    if before not in (None, run.plan.settings()["source"]):
        say(f"{root}: had the result of a run of {before}, which is replaced; --out names another folder")
    figures = run.execute(say)
    config_said = {**run.plan.settings(figures.pop("iterations")), **machine}
    found = run_verdict(
        {"command": "run", "config": config_said, **figures}, figures["test_rows"], run.answers
    )
    verdict = None if found is None else found["headline"]
    auto, best = figures["auto"], best_row(figures["rows"])
    if auto is not None:
        best = chosen_row(figures["rows"], auto["method"], auto["adjustment"]) or {
            "method": auto["method"], "adjustment": auto["adjustment"],
            "all": results.spread([auto["row_accuracy"]]), "balanced": results.spread([auto["accuracy"]]),
            "measured_on": auto["held_out"],
        }  # fmt: skip
    result = results.document("run", config_said, **figures, verdict=verdict, best=best, comparison=found)
    done = OpenedRun(result, results.write_result(root, result))
    _remark(run, root, figures)
    use = f"head: {figures['head']}\nnext: {done.next_command}"
    # What --auto says is above; the verdict is on the rows of the table alone.
    told = verdict if auto is None or verdict is None else f"The rows of this table alone: {verdict}"
    said = [accuracy_table(figures["rows"]), _measured(run, figures), told, use]
    text = "\n\n".join(filter(None, said))
    if auto is not None:
        evidence = None if figures["choice"] is None else evidence_table(figures["choice"])
        text = "\n\n".join(filter(None, [auto["headline"], trials_table(auto), evidence, text]))
    emit(result, as_json, text)


def _configured(
    document: RunFile, given: set[str], values: dict[str, Any], assignments: tuple[str, ...]
) -> tuple[RunConfig, StageTables]:
    """Return the run and its stages: the command line over the file, and what --refit takes over."""
    for place, names in (("", given), (f"{document.name}: ", set(document.values))):
        if {"seed", "seeds"} <= names:
            raise UsageError(f"{place}{opt('seed')}, {opt('seeds')}: one seed or several; leave one out")
    config: RunConfig = pick(RunConfig, {**values, **document.drop(given)})
    assigned, choice = parse_set(assignments), None
    if config.refit is not None:
        from ldmlr.select.choice import Choice

        choice = Choice.load(config.refit)
        if "generator" in {*given, *document.values} and config.generator != choice.generator:
            raise UsageError(
                f"--generator {config.generator}: {config.refit} chose {choice.generator}; "
                "leave one of the two out"
            )
        config = config.replace(generator=choice.generator)
    return config, checked_tables(document.tables, assigned, config, document.name, choice)


def _measured(run: Run, figures: dict[str, Any]) -> str:
    """Say what the table was measured on, where that is no balanced test split of the source."""
    classes = figures["unmeasured"]
    balanced = judged_by(figures["rows"]) == ALL
    if run.plan.facts.measuring == Measuring() and balanced and not classes:
        return ""
    return f"{figures['measured']}{f'; {unmeasured_in_words(classes)}' if classes else ''}"


def _remark(run: Run, root: Path, figures: dict[str, Any]) -> None:
    """Say what is worth knowing of a run that is done."""
    from ldmlr.diffusion.learned import in_words

    source, seeds = run.plan.facts.source, ", ".join(map(str, figures["seeds"]))
    below = "" if _measured(run, figures) else f", {figures['measured']}"
    say(f"{root}: done in {figures['seconds']:.1f} s; seeds {seeds}; last epoch{below}")
    say(f"{source}: {run.origin.familiar.words()}")
    if run.origin.familiar.trained_on_rows and not run.plan.facts.measuring.whole:
        say(f"{source}: the encoder has seen the rows that are held out: all figures are too good")
    found = figures["held_out"]
    if found is not None and found["loss_over_gaussian"] is not None:
        say(f"{source}: diffusion along {counted(figures['axes'], 'axis')}; {in_words(found)}")
    notes = (note for step in figures["steps"] for note in step["figures"].get("notes", ()))
    for note in dict.fromkeys(notes):
        say(f"{source}: {note}")
    if run.from_store:
        say_baseline(source, figures)
        assert run.plan.facts.store is not None
        with run.plan.facts.store.open() as store:
            if store.split("train").views_on_disk is None:
                say(f"{source}: has no augmented views, which give much of the gain; encode or import some")
