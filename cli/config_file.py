"""``--config FILE.toml``: every option of a command is a key, and the command line wins."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from ldmlr.config import Config, read_toml
from ldmlr.diffusion.config import DiffusionConfig
from ldmlr.errors import UsageError, nearest
from ldmlr.generation.config import GenerateConfig
from ldmlr.run.config import RunConfig

from .fields import TableOption
from .location import Location
from .origin import note_file

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
        "--config", type=Location(), is_eager=True, callback=load_config, expose_value=False,
        metavar="FILE.toml", help="Read options from a TOML file; the command line wins.",
    )(function)  # fmt: skip


# Beside `load_config`, the command reads the tables of the stages from the file.
stages_file_option = click.option(
    "--config", "file", type=Location(), is_eager=True, callback=load_config,
    metavar="FILE.toml", help="Read options from a TOML file, a table per stage; the command line wins.",
)  # fmt: skip
