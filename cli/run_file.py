"""The TOML file of a run, and ``--set`` of its command line."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ldmlr.config import parse_toml, read_toml
from ldmlr.errors import UsageError, in_toml, nearest
from ldmlr.remote import as_path, below
from ldmlr.run.config import STAGES, RunConfig, StageTables, stage_tables

from .config_file import RUN_FILE_FLAGS, RUN_FILE_KEYS

if TYPE_CHECKING:
    from ldmlr.select.choice import Choice

MACHINE = ("backend", "device", "threads")

# Stage -> keys and values.
Tables = dict[str, dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class RunFile:
    """What a TOML file says (nothing, without a file)."""

    name: str
    source: str | None
    out: Path | None
    values: dict[str, Any]
    computing: dict[str, Any]
    tables: Tables
    flags: dict[str, bool]

    def drop(self, given: set[str]) -> dict[str, Any]:
        """Return the values of the run that the command line does not give."""
        # One seed, or several: whichever the command line says, the file's other word is none.
        given = given | ({"seed", "seeds"} if given & {"seed", "seeds"} else set())
        return {name: value for name, value in self.values.items() if name not in given}

    def machine(self, ctx: click.Context, **options: Any) -> dict[str, Any]:
        """Return backend, device and threads: the command line's, else the file's."""
        chosen = dict(options)
        for name, value in self.computing.items():
            if ctx.get_parameter_source(name) is not click.core.ParameterSource.COMMANDLINE:
                chosen[name] = value
        return chosen


def read_run_file(file: Path | None, source: str | None) -> RunFile:
    """Read the file that ``--config`` or a SOURCE ending in .toml names.

    Relative paths in the file start from the file's folder.

    Raises
    ------
    UsageError
        A key or table is unknown (the nearest is named), or two files are given.
    """
    if source is not None and source.endswith(".toml"):
        if file is not None:
            raise UsageError(f"--config: {source} is a TOML file already; give one of the two")
        file, source = as_path(source), None
    if file is None:
        return RunFile("", source, None, {}, {}, {}, {})
    document = {key.replace("-", "_"): value for key, value in read_toml(file).items()}
    tables = {name: value for name, value in document.items() if isinstance(value, dict)}
    keys = (*RunConfig.names(), *RUN_FILE_KEYS)
    for name in document:
        if name in tables and name not in STAGES:
            raise UsageError(f"{file}: unknown table [{name}]; {nearest(name, STAGES)}")
        if name not in tables and name not in keys:
            raise UsageError(f"{file}: unknown key {name!r}; {nearest(name, keys)}")
    for name in ("source", "out", "backend", "device"):
        if not isinstance(document.get(name, ""), str):
            raise UsageError(f"{file}: {name}: expected a text, not {document[name]!r}")
    flags = {name: document[name] for name in RUN_FILE_FLAGS if name in document}
    for name, value in flags.items():
        if not isinstance(value, bool):
            raise UsageError(f"{file}: {name}: expected true or false, not {value!r}")
    threads = document.get("threads", 1)
    if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
        raise UsageError(f"{file}: threads: expected a whole number of at least 1, not {threads!r}")
    values = {name: document[name] for name in RunConfig.names() if name in document}
    with _as_in_file():
        RunConfig.from_mapping(values, str(file))
    if "generator" in tables.get("generate", {}):
        raise UsageError(
            f"{file}: [generate]: generator belongs to the top level of the file, before the first table"
        )
    # Every path in the file: of the run itself, and of the models that stage 1 starts from.
    for table, names in (
        (values, ("image_root", "refit")),
        (tables.get("baseline", {}), ("init", "teacher")),
    ):
        table |= {name: _beside(file, table[name]) for name in names if isinstance(table.get(name), str)}
    if source is None and "source" in document:
        source = _beside(file, document["source"])
    out = below(file.parent, document["out"]) if "out" in document else None
    computing = {name: document[name] for name in MACHINE if name in document}
    return RunFile(str(file), source, out, values, computing, tables, flags)


def _beside(file: Path, name: str) -> str:
    """Return a path that starts from the file's folder, or as it stands where nothing is there."""
    beside = below(file.parent, name)
    try:
        found = beside.exists()
    except OSError:  # no file can have such a name
        found = False
    return str(beside) if found else name


def parse_set(assignments: tuple[str, ...]) -> Tables:
    """Return the tables of ``STAGE.KEY=VALUE`` assignments; values are TOML, or plain words."""
    tables: Tables = {}
    for text in assignments:
        name, equals, value = text.partition("=")
        stage, dot, key = name.strip().partition(".")
        if not (equals and dot and key):
            raise UsageError(f"--set: expected STAGE.KEY=VALUE such as diffuse.hidden=64, not {text!r}")
        if stage not in STAGES:
            raise UsageError(f"--set: unknown stage {stage!r} in {text!r}; {nearest(stage, STAGES)}")
        tables.setdefault(stage, {})[key.replace("-", "_")] = _value(value.strip())
    return tables


def stage_values(
    file: Path | None, assignments: tuple[str, ...], stages: tuple[str, ...], who: str
) -> tuple[Tables, Tables]:
    """Return the values for each of a command's stages: those of the file, and those of ``--set``.

    Parameters
    ----------
    file
        TOML file with a table per stage, or None.
    assignments
        ``STAGE.KEY=VALUE`` of the command line.
    stages
        The stages that the command has.
    who
        The command in words, for messages.

    Raises
    ------
    UsageError
        A stage that the command does not have, or a table that is none.
    """
    document = read_toml(file) if file is not None else {}
    assigned = parse_set(assignments)
    for stage in stages:
        if not isinstance(document.get(stage, {}), dict):
            raise UsageError(f"{file}: {stage}: expected a table [{stage}], not {document[stage]!r}")
    for stage in assigned:
        if stage not in stages:
            raise UsageError(f"--set: {who} has no stage {stage!r}; {nearest(stage, stages)}")
    return {stage: document.get(stage, {}) for stage in stages}, assigned


def checked_tables(
    of_file: Tables,
    assigned: Tables,
    run: RunConfig,
    file: str,
    choice: Choice | None = None,
) -> StageTables:
    """Return the checked configurations of the stages: the file's values, and over them those of ``--set``.

    Parameters
    ----------
    of_file, assigned
        The values of the file and those of ``--set``.
    run
        The run, as for `stage_tables`.
    file
        The file's name, or nothing without one.
    choice
        What ``--refit`` takes over.

    Raises
    ------
    UsageError
        A key or value is wrong; the message names ``--set`` where it comes from there, else the file.
    """
    stages = {*of_file, *assigned}
    both = {stage: {**of_file.get(stage, {}), **assigned.get(stage, {})} for stage in stages}

    def build(values: Tables, where: str) -> StageTables:
        tables = values if choice is None else choice.tables(values)
        with _as_in_file():
            return stage_tables(tables, run, where)

    try:
        return build(both, file)
    except UsageError as error:
        if assigned and error.message != _problem(lambda: build(of_file, file)):
            # Without --set the file is not wrong, or not in this.
            build(both, "--set")
        raise


@contextmanager
def _as_in_file() -> Iterator[None]:
    """Spell the options of an error as a file does: their stage stands before them, as in ``--set``."""
    try:
        yield
    except UsageError as error:
        raise UsageError(error.spelled(in_toml)) from None


def _problem(work: Callable[[], object]) -> str | None:
    """Return the message of the error that `work` ends with, if it does."""
    try:
        work()
    except UsageError as error:
        return error.message
    return None


def _value(text: str) -> Any:
    try:
        return parse_toml(f"value = {text}")["value"]
    except ValueError:
        return text
