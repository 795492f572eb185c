"""Which options a ``--config`` file has set, so that an error over a value of the file names the file."""

from __future__ import annotations

from pathlib import Path

import click

from ldmlr.errors import LdmlrError, UsageError, in_toml

from .nearest import in_style

_KEY = "ldmlr.config"
_FROM_FILE = click.core.ParameterSource.DEFAULT_MAP


def note_file(ctx: click.Context, path: Path) -> None:
    """Note that a file holds defaults of a command; all contexts of a command line share the note."""
    ctx.meta[_KEY] = (path, ctx)


def with_file(ctx: click.Context, error: LdmlrError | click.ClickException) -> Exception:
    """Return an error with the name of the file before it, if the option that is wrong has its value there.

    Parameters
    ----------
    ctx
        Any context of the command line.
    error
        What a command ended with.
    """
    path, command = ctx.meta.get(_KEY, (None, None))
    if path is None:
        return error
    name = (
        error.option
        if isinstance(error, LdmlrError)
        else getattr(getattr(error, "param", None), "name", None)
    )
    if name is None or command.get_parameter_source(name) is not _FROM_FILE:
        return error
    if isinstance(error, LdmlrError):
        return type(error)(f"{path}: {error.spelled(in_toml)}")
    return UsageError(f"{path}: {in_style(error)}")
