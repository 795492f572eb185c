"""Help texts: they agree with the command list, and every example in them parses."""

from __future__ import annotations

import importlib
import re
import shlex

import click
import pytest
from ldmlr_cli.main import COMMANDS, cli


def commands() -> list[tuple[str, click.Command]]:
    found: list[tuple[str, click.Command]] = []
    for name in COMMANDS:
        command = importlib.import_module(f"ldmlr_cli.{name}").command
        found.append((name, command))
        if isinstance(command, click.Group):
            found += [(f"{name} {sub}", entry) for sub, entry in command.commands.items()]
    return found


def examples(command: click.Command) -> list[str]:
    return [line.strip() for line in (command.help or "").splitlines() if line.strip().startswith("ldmlr ")]


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_of_commands_says_what_the_command_says(name):
    command = importlib.import_module(f"ldmlr_cli.{name}").command
    assert (command.help or "").splitlines()[0] == COMMANDS[name]


@pytest.mark.parametrize(("name", "command"), commands(), ids=[name for name, _ in commands()])
def test_every_help_has_examples_on_lines_of_their_own_that_parse(name, command):
    text = command.get_help(click.Context(command, info_name=name))
    found = examples(command)
    assert found, f"ldmlr {name} --help has no example"
    for example in found:
        assert re.search(rf"^ +{re.escape(example)}$", text, re.M), "the example is not on a line of its own"
        words = shlex.split(example)[1:]
        sub = cli.get_command(click.Context(cli), words[0])
        assert sub is not None
        if isinstance(sub, click.Group):
            words, sub = words[1:], sub.commands[words[1]]
        context = sub.make_context(words[0], words[1:], resilient_parsing=False)
        assert context.params


@pytest.mark.parametrize(("name", "command"), commands(), ids=[name for name, _ in commands()])
def test_every_option_says_what_it_does(name, command):
    options = [entry for entry in command.params if isinstance(entry, click.Option)]
    assert [entry.name for entry in options if not entry.help] == []
