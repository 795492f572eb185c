"""Options that several commands share, and what commands print."""

from __future__ import annotations

import json
import tempfile
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ldmlr import progress
from ldmlr.config import plain
from ldmlr.errors import UsageError, opt
from ldmlr.generation.generators.catalogue import GENERATORS
from ldmlr.ranks import world
from ldmlr.run.config import MAX_SEEDS
from ldmlr.store.convert.config import SourceConfig
from ldmlr.store.heldout import REPEATS

from .fields import config_options, pick
from .location import Location
from .nearest import Word

if TYPE_CHECKING:
    from ldmlr.store.convert.ready import Ready

F = TypeVar("F", bound=Callable[..., Any])


def _silence(ctx: click.Context, param: click.Parameter, value: bool) -> bool:
    progress.silence(value)
    return value


def _quiet(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    progress.quiet(value)


_json_flag = click.option(
    "--json", "as_json", is_flag=True, is_eager=True, callback=_silence,
    help="Print the result document as JSON on standard output.",
)  # fmt: skip
_quiet_flag = click.option(
    "--quiet", is_flag=True, expose_value=False, callback=_quiet,
    help="No progress on standard error.",
)  # fmt: skip


def json_option(function: F) -> F:
    """Add ``--json`` and ``--quiet``: what is printed where."""
    return _json_flag(_quiet_flag(function))


def _check_seed(ctx: click.Context, param: click.Parameter, value: int | None) -> int | None:
    """Refuse a seed of more than 64 bits; IntRange would show the limit in every help text."""
    from ldmlr.arguments import check_seed

    return None if value is None else check_seed(value)


def seeds_of(seed: int | None, seeds: int | None) -> int | tuple[int] | None:
    """Return the seeds of a command that has ``--seed`` and ``--seeds``: the command line over a file.

    Raises
    ------
    UsageError
        Both are given in one place.
    """
    if seed is None:
        return seeds
    ctx = click.get_current_context()
    places = [ctx.get_parameter_source(name) for name in ("seed", "seeds")]
    if places[0] is places[1]:
        raise UsageError(f"{opt('seed')}, {opt('seeds')}: one seed or several; leave one out")
    # --seeds of the command line over the seed of a file.
    return seeds if places[1] is click.core.ParameterSource.COMMANDLINE else (seed,)


seed_option = click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, callback=_check_seed,
    help="Random seed.",
)  # fmt: skip
seeds_option = click.option(
    "--seeds", type=click.IntRange(1, MAX_SEEDS), default=5, show_default=True,
    help="Run seeds 0 .. K-1 and report mean and standard deviation.", metavar="K",
)  # fmt: skip
repeats_option = click.option(
    "--seeds", type=click.IntRange(1, MAX_SEEDS), default=None, metavar="K",
    help="Run seeds 0 .. K-1 and report mean and standard deviation.  "
    f"[default: 5; {REPEATS} by folds]",
)  # fmt: skip
one_seed_option = click.option(
    "--seed", type=click.IntRange(min=0), default=None, metavar="N", callback=_check_seed,
    help="Run this one seed instead.",
)  # fmt: skip
device_option = click.option(
    "--device", default="auto", show_default=True, metavar="auto|cpu|cuda[:N]", help="Where to compute."
)
threads_option = click.option(
    "--threads", type=click.IntRange(min=1), default=None, help="CPU threads.  [default: all usable cores]"
)
groups_option = click.option(
    "--groups", default="100,20", show_default=True, metavar="MANY,FEW|paper",
    help="Shot groups: many above, few below so many training rows; paper: fixed class ranges (CIFAR-LT).",
)  # fmt: skip
backend_option = click.option(
    "--backend", type=Word(["auto", "reference", "native", "cuda"]), default="auto",
    show_default=True, help="What draws the rows.",
)  # fmt: skip
_GENERATOR = Word(list(GENERATORS))
generator_option = click.option(
    "--generator", type=_GENERATOR, default="diffusion", show_default=True,
    help=_GENERATOR.listed("What generates."),
)  # fmt: skip
csv_option = click.option(
    "--csv", "csv_file", type=Location(), default=None, metavar="FILE",
    help="Write the table as CSV too.",
)  # fmt: skip
shard_option = click.option(
    "--shard", default=None, metavar="I/N", help="Do only part I (from 0) of N equal parts."
)
overwrite_option = click.option("--overwrite", is_flag=True, help="Replace an output that exists.")
resume_option = click.option("--resume", is_flag=True, help="Go on where an interrupted run stopped.")
dry_run_option = click.option("--dry-run", is_flag=True, help="Print what would be done, and do nothing.")


def entry_lines(name: str, what: str, width: int) -> str:
    """Return an entry of a list below a help text: a name and what it is, in 80 columns."""
    return textwrap.fill(
        what, 78, initial_indent=f"  {name:<{width}}", subsequent_indent=" " * (width + 2),
        break_on_hyphens=False,
    )  # fmt: skip


def out_option(help: str, required: bool = True) -> Callable[[F], F]:
    """Return the ``--out`` option with its help line."""
    return click.option("--out", type=Location(), required=required, help=help)


def set_option(stages: Iterable[str]) -> Callable[[F], F]:
    """Return ``--set STAGE.KEY=VALUE`` for the stages a command has."""
    return click.option(
        "--set", "assignments", multiple=True, metavar="STAGE.KEY=VALUE",
        help=f"Set an option of a stage ({', '.join(stages)}); may be repeated.",
    )  # fmt: skip


def source_options(function: F) -> F:
    """Add ``--features-key`` and ``--labels-key``, for commands that take features in any form."""
    return config_options(SourceConfig)(function)


def source_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was said of how to read a SOURCE, as the configuration of a result says it."""
    return {name: values[name] for name in SourceConfig.names()}


def ready(source: Path, folder: Path | None, values: Mapping[str, Any]) -> Ready:
    """Return a SOURCE as a store, and say where a copy was made; with --json or not, on standard error.

    Parameters
    ----------
    source
        A store, features in another form, or a built-in set of features.
    folder
        That of the output, where a copy is kept; without one the copy goes when the command ends.
    values
        The command's keyword arguments.
    """
    from ldmlr.data.featuresets import ready_source

    keys, kept = pick(SourceConfig, values), folder is not None
    if folder is None:
        folder = Path(click.get_current_context().with_resource(tempfile.TemporaryDirectory(prefix="ldmlr-")))
    found = ready_source(source, folder, keys)
    if kept and found.place is not None:
        say(f"{source}: {'found' if found.before else 'kept'} as a feature store in {found.place}")
    for note in found.notes:
        say(f"Note: {note}")
    return found


def emit(result: Mapping[str, Any], as_json: bool, text: str) -> None:
    """Print the result: the document with ``--json``, else the text for people."""
    click.echo(json.dumps(plain(result), indent=2, allow_nan=False) if as_json else text)


def say(message: str) -> None:
    """Print a message for people on standard error; of several ranks the first speaks for all."""
    if world()[0] == 0:
        click.echo(message, err=True)


def say_unmeasured(store: object, figures: Mapping[str, Any]) -> None:
    """Say which classes no figure is of, where there are any."""
    if figures.get("unmeasured"):
        say(f"{store}: {unmeasured_in_words(figures['unmeasured'])}")


def unmeasured_in_words(classes: Sequence[str]) -> str:
    """Return which classes have no row to measure on, as a sentence."""
    more = f" and {len(classes) - 8:,} more" if len(classes) > 8 else ""
    return f"not measured, and in no mean, as no row of them is tested: {', '.join(classes[:8])}{more}"


def say_baseline(store: object, figures: Mapping[str, Any]) -> None:
    """Say where the baseline comes from, if the store has none."""
    if figures["baseline_head"] == "fitted":
        say(f"{store}: has no head; the baseline is a linear head fitted to the encoded rows")
