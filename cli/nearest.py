"""What a wrong word on the command line is answered with: the nearest right one."""

from __future__ import annotations

from typing import Any

import click

from ldmlr.errors import nearest


class Group(click.Group):
    """A group that names the nearest command when an unknown one is asked for."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that the first word names."""
        if args and args[0] not in self.list_commands(ctx) and not args[0].startswith("-"):
            ctx.fail(f"no such command {args[0]!r}; {nearest(args[0], self.list_commands(ctx))}")
        return super().resolve_command(ctx, args)


class UnknownWord(click.UsageError):
    """A value of an option that is none of its words."""

    def __init__(self, message: str, ctx: click.Context | None, param: click.Parameter) -> None:
        super().__init__(message, ctx)
        self.param = param


# The words of an option stand beside its name where they fit; longer lists stand in its help.
WIDEST = 60


class Word(click.Choice[str]):
    """One of some words; another one is refused with the nearest of them."""

    def get_metavar(self, param: click.Parameter, *rest: Any, **named: Any) -> str | None:
        """Return what stands for the words beside the name of an option."""
        if isinstance(param, click.Option) and self.is_long:
            return "NAME"
        return super().get_metavar(param, *rest, **named)

    @property
    def is_long(self) -> bool:
        """Whether the words are too many to stand beside a name."""
        return len("|".join(self.choices)) > WIDEST

    def listed(self, help: str) -> str:
        """Return a help text, with the words in it where they are many."""
        if not self.is_long:
            return help
        text, mark, default = help.partition("  [default")
        return f"{text} One of {', '.join(self.choices)}.{mark}{default}"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the word."""
        if value in self.choices or param is None:
            return super().convert(value, param, ctx)
        flags = [flag for flag in param.opts if flag.startswith("--")]
        name = flags[0] if flags else str(param.name).upper()
        message = f"{name}: unknown value {value!r}; {nearest(str(value), self.choices)}"
        raise UnknownWord(message, ctx, param)


def in_style(error: click.ClickException) -> str:
    """Return one of click's own messages as this command line has them."""
    if isinstance(error, click.NoSuchOption):
        hint = f"; {nearest(error.option_name, error.possibilities)}" if error.possibilities else ""
        return f"no such option {error.option_name!r}{hint}"
    # Click lists the words of a missing choice on lines of their own.
    message = " ".join(error.format_message().split()).rstrip(".").replace("'. Choose from: ", "', one of ")
    if message.startswith("Got unexpected extra argument"):
        message += "; a name with spaces needs quotes around it"
    # Missing, Invalid, Got: no name begins a message of click's.
    return message[:1].lower() + message[1:] if message[1:2].islower() else message
