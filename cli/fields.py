"""Options made from the fields of a configuration, and the configuration made from their values."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from ldmlr.config import Config

from .location import Location
from .nearest import Word

F = TypeVar("F", bound=Callable[..., Any])


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
        settings["type"] = Location() if hint is Path else hint
        settings["metavar"] = field.metadata["metavar"]
    if (old := field.metadata["formerly"]) is not None:
        return click.option(flag, f"--{old.replace('_', '-')}", field.name, cls=RenamedOption, **settings)
    if multiple:
        return click.option(flag, cls=ListOption, multiple=True, **settings)
    return click.option(flag, **settings)
