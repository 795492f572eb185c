"""Options that several commands share, and options made from a stage's configuration."""

from __future__ import annotations

import dataclasses
import json
import tempfile
import textwrap
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ldmlr import progress
from ldmlr.config import Config, plain, read_toml
from ldmlr.diffusion.config import DiffusionConfig
from ldmlr.errors import UsageError, nearest, opt
from ldmlr.generation.config import GenerateConfig
from ldmlr.generation.generators.catalogue import GENERATORS
from ldmlr.run.config import MAX_SEEDS, RunConfig
from ldmlr.store.convert.config import SourceConfig
from ldmlr.store.heldout import REPEATS

from .nearest import Word
from .origin import note_file

if TYPE_CHECKING:
    from ldmlr.store.convert.ready import Ready

F = TypeVar("F", bound=Callable[..., Any])

# Flags of ``ldmlr run`` that are no part of its configuration.
RUN_FILE_FLAGS = ("json", "dry_run", "quiet")
# Keys at the top of a file that describes a whole run, besides the options of ``ldmlr run``.
RUN_FILE_KEYS = ("source", "out", "device", "threads", "backend", *RUN_FILE_FLAGS)

# Commands that do the work of several stages read their tables too; the command's own comes last.
BORROWED: dict[str, dict[str, type[Config]]] = {
    "augment": {"diffuse": DiffusionConfig, "generate": GenerateConfig}
}
# What such a table may say to the command of its own name alone.
OF_A_COMMAND = (
    "out", "store", "seed", "backend", "device", "threads", "shard", "resume", "overwrite", *RUN_FILE_FLAGS
)  # fmt: skip

# Tables of a TOML file that describe a whole run; a command reads its own and ignores the rest.
STAGES = (
    "baseline",
    "encode",
    "diffuse",
    "generate",
    "augment",
    "finetune",
    "evaluate",
    "predict",
    "export",
    "select",
    "run",
    "compare",
    "ablate",
    "report",
    "bench",
)


def config_options(config: type[Config], *, exclude: tuple[str, ...] = ()) -> Callable[[F], F]:
    """Add one command-line option per field of a configuration, in the order of its fields."""
    hints = typing.get_type_hints(config)

    def decorate(function: F) -> F:
        for field in reversed(dataclasses.fields(config)):
            if field.name not in exclude:
                function = _field_option(field, hints[field.name])(function)
        return function

    return decorate


def pick(config: type[Config], values: Mapping[str, Any], **fixed: Any) -> Any:
    """Build a configuration from a command's keyword arguments (those that are its fields)."""
    chosen = {name: values[name] for name in config.names() if name in values}
    return config.from_mapping({**chosen, **fixed})


class ListOption(click.Option):
    """An option that may be repeated; several values may also stand in one, between commas."""

    def type_cast_value(self, ctx: click.Context, value: Any) -> Any:
        """Return the values as a tuple."""
        return super().type_cast_value(ctx, [part for item in value or () for part in self.parts(item)])

    @staticmethod
    def parts(item: Any) -> list[Any]:
        """Return the values that stand in one; nothing between two commas is refused where values are."""
        if not isinstance(item, str) or "," not in item:
            return [item]
        return [part.strip() for part in item.split(",")]


class RenamedOption(click.Option):
    """An option with a name that it had before, which works and is not shown."""

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """Return the line of the help text, with the name of today alone."""
        names, self.opts = self.opts, self.opts[:1]
        try:
            return super().get_help_record(ctx)
        finally:
            self.opts = names


class TableOption(ListOption):
    """An option whose values are ``CLASS=VALUE`` texts; a file may hold a table instead, kept as it is."""

    def type_cast_value(self, ctx: click.Context, value: Any) -> Any:
        """Return a table as it is, and texts as a tuple."""
        return value if isinstance(value, Mapping) else super().type_cast_value(ctx, value)

    @staticmethod
    def parts(item: Any) -> list[Any]:
        """Return the texts that stand in one; a comma may also be part of a class's name."""
        found = ListOption.parts(item)
        return found if all("=" in str(part) for part in found) else [item]


def _field_option(field: dataclasses.Field[Any], hint: Any) -> Callable[[F], F]:
    flag = f"--{field.name.replace('_', '-')}"
    if typing.get_origin(hint) is Mapping:
        return click.option(
            flag, cls=TableOption, multiple=True, help=field.metadata["help"],
            metavar=field.metadata["metavar"],
        )  # fmt: skip
    multiple = typing.get_origin(hint) is tuple
    if multiple:
        hint = typing.get_args(hint)[0]
    elif typing.get_origin(hint) in (typing.Union, types.UnionType):
        arms = [arm for arm in typing.get_args(hint) if arm is not type(None)]
        hint = arms[0] if len(arms) == 1 else str
    settings: dict[str, Any] = {"help": field.metadata["help"], "default": field.default}
    settings["show_default"] = field.default is not None
    if hint is bool:
        off = field.metadata["off"] or f"no-{flag[2:]}"
        return click.option(f"{flag}/--{off}", **settings)
    if field.metadata["choices"]:
        settings["type"] = kind = Word(field.metadata["choices"])
        settings["help"] = kind.listed(settings["help"])
    else:
        settings["type"] = click.Path(path_type=Path) if hint is Path else hint
        settings["metavar"] = field.metadata["metavar"]
    if (old := field.metadata["formerly"]) is not None:
        return click.option(flag, f"--{old.replace('_', '-')}", field.name, cls=RenamedOption, **settings)
    if multiple:
        return click.option(flag, cls=ListOption, multiple=True, **settings)
    return click.option(flag, **settings)


def load_config(ctx: click.Context, param: click.Parameter, value: Path | None) -> Path | None:
    """Make the keys of a TOML file the defaults of the command (the command line still wins)."""
    if value is None:
        return None
    document = read_toml(value)
    note_file(ctx, value)
    known = _option_keys(ctx.command)
    defaults: dict[str, Any] = {}
    own = ctx.command.name or ""
    sections = {}
    for name in (*BORROWED.get(own, ()), *([own] if own not in known else [])):
        sections[name] = document.get(name, {})
        if not isinstance(sections[name], dict):
            raise UsageError(f"{value}: {name}: expected a table, not {sections[name]!r}")
    tables = {key for key, entry in document.items() if isinstance(entry, dict)}
    stages = {*STAGES, *([own] if own not in known else [])}
    for name in tables - stages:
        if name.replace("-", "_") not in known:
            raise UsageError(f"{value}: unknown table [{name}]; {nearest(name, STAGES)}")
    shared = {key: entry for key, entry in document.items() if key not in stages}
    # A file that describes a whole run has keys for other commands at its top level.
    lenient = {*RunConfig.names(), *RUN_FILE_KEYS}
    for table, entries in (("", shared), *sections.items()):
        where = f" [{table}]" if table else ""
        borrowed = BORROWED.get(own, {}).get(table)
        passed = OF_A_COMMAND if borrowed else () if table else lenient
        for key, entry in entries.items():
            name = key.replace("-", "_")
            if name in known and (borrowed is None or name in borrowed.names()):
                option = known[name]
                defaults[option.name or name] = _file_value(f"{value}:{where} {key}", option, entry)
            elif name not in passed:
                options = known if borrowed is None else borrowed.names()
                raise UsageError(f"{value}:{where} unknown key {key!r}; {nearest(name, options)}")
    ctx.default_map = {**(ctx.default_map or {}), **defaults}
    return value


def _option_keys(command: click.Command) -> dict[str, click.Option]:
    """Return the options of a command by their keys in a file: their flags, with underscores."""
    return {
        flag[2:].replace("-", "_"): option
        for option in command.params
        if isinstance(option, click.Option)
        for flag in option.opts
        if flag.startswith("--") and flag != "--config"
    }


# What a file must hold for an option of a type, and how that is called. Click would turn 5.9 into 5 and
# true into 1.
_FILE_KINDS: tuple[tuple[type[click.ParamType[Any]], tuple[type, ...], str], ...] = (
    (click.types.BoolParamType, (bool,), "true or false"),
    (click.types.IntParamType, (int,), "a whole number"),
    (click.types.FloatParamType, (int, float), "a number"),
    (click.Path, (str,), "a text"),
    (click.Choice, (str,), "a text"),
    (click.types.StringParamType, (str, int, float), "a text or a number"),
)


def _file_value(where: str, option: click.Option, entry: Any) -> Any:
    """Return the value of a key, refusing what is of another type than the option."""
    if isinstance(option, TableOption) and isinstance(entry, dict):
        return entry
    # A list of NAME=VALUE may be written as a table, a list of one without brackets.
    if option.multiple and isinstance(entry, dict):
        entry = [f"{item}={value}" for item, value in entry.items()]
    if option.multiple and not isinstance(entry, list):
        entry = [entry]
    for item in entry if option.multiple else [entry]:
        for kind, types_of, words in _FILE_KINDS:
            if isinstance(option.type, kind):
                whole = int in types_of and isinstance(item, float) and item.is_integer()
                fits = isinstance(item, types_of) and (bool in types_of or not isinstance(item, bool))
                if not (fits or whole):
                    raise UsageError(f"{where}: expected {words}, not {item!r}")
                break
    return entry


def config_option(function: F) -> F:
    """Add ``--config FILE.toml``."""
    return click.option(
        "--config", type=click.Path(path_type=Path), is_eager=True, callback=load_config, expose_value=False,
        metavar="FILE.toml", help="Read options from a TOML file; the command line wins.",
    )(function)  # fmt: skip


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
    "--csv", "csv_file", type=click.Path(path_type=Path), default=None, metavar="FILE",
    help="Write the table as CSV too.",
)  # fmt: skip
# Beside `load_config`, the command reads the tables of the stages from the file.
stages_file_option = click.option(
    "--config", "file", type=click.Path(path_type=Path), is_eager=True, callback=load_config,
    metavar="FILE.toml", help="Read options from a TOML file, a table per stage; the command line wins.",
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
    return click.option("--out", type=click.Path(path_type=Path), required=required, help=help)


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
    """Print a message for people on standard error."""
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
