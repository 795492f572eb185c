"""The shell: completion for bash, zsh and fish, no colours, help that fits 80 columns."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import click
import pytest
from click.shell_completion import BashComplete, FishComplete, ShellComplete, ZshComplete
from ldmlr_cli.main import COMMANDS, cli
from support.pages import read

SHELLS = {"bash": BashComplete, "zsh": ZshComplete, "fish": FishComplete}


def commands(command=cli, name="ldmlr", parent=None):
    """Yield the context of every command, with the width of a plain terminal."""
    context = click.Context(command, info_name=name, parent=parent, terminal_width=80, max_content_width=80)
    yield context
    if isinstance(command, click.Group):
        for each in command.list_commands(context):
            found = command.get_command(context, each)
            assert found is not None
            yield from commands(found, each, context)


CONTEXTS = list(commands())


@pytest.mark.parametrize("context", CONTEXTS, ids=lambda context: context.command_path)
def test_help_fits_80_columns_and_has_an_example(context):
    text = context.command.get_help(context)
    assert [line for line in text.splitlines() if len(line) > 80] == []
    assert re.search(r"^ +ldmlr \w", text, re.M)


@pytest.mark.parametrize("context", CONTEXTS, ids=lambda context: context.command_path)
def test_every_word_of_an_option_is_in_its_help(context):
    text = re.sub(r"\s+", "", context.command.get_help(context))  # a word may be broken at its hyphen
    for parameter in context.command.params:
        if isinstance(parameter, click.Option) and isinstance(parameter.type, click.Choice):
            assert [word for word in parameter.type.choices if str(word) not in text] == []


def completed(args, incomplete):
    found = ShellComplete(cli, {}, "ldmlr", "_LDMLR_COMPLETE").get_completions(args, incomplete)
    return [item.value for item in found]


def test_commands_options_and_words_are_completed():
    assert completed([], "") == list(COMMANDS)
    assert completed([], "ge") == ["generate"]
    assert completed(["store"], "ver") == ["verify"]
    assert "--generator" in completed(["run", "x"], "--gen")
    assert completed(["generate", "m", "--generator"], "smote") == ["smote", "smote-views"]
    # A file is left to the shell.
    found = ShellComplete(cli, {}, "ldmlr", "_LDMLR_COMPLETE").get_completions(["diffuse"], "feat")
    assert [item.type for item in found] == ["file"]


@pytest.mark.parametrize("shell", SHELLS)
def test_the_script_of_a_shell_is_documented_and_there(shell):
    assert f"_LDMLR_COMPLETE={shell}_source ldmlr" in read("docs/howto/stages.md")
    script = SHELLS[shell](cli, {}, "ldmlr", "_LDMLR_COMPLETE")
    text = script.source_template % script.source_vars()
    assert f"_LDMLR_COMPLETE={shell}_complete" in text
    assert "ldmlr" in text


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs a terminal")
@pytest.mark.parametrize("words", [["--help"], ["generate", "no-such-model"], ["info"]], ids=" ".join)
def test_no_colour_on_a_terminal(words):
    main, other = os.openpty()
    environment = {**os.environ, "NO_COLOR": "1"}
    command = [sys.executable, "-m", "ldmlr", *words]
    done = subprocess.Popen(command, stdout=other, stderr=other, env=environment)
    os.close(other)
    text = b""
    while True:
        try:
            part = os.read(main, 4096)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        text += part
    done.wait()
    os.close(main)
    assert text
    assert b"\x1b[" not in text
