"""README and documentation as tests see them: code blocks, commands, links."""

from __future__ import annotations

import dataclasses
import re
import shlex
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parents[2]
PAGES = ["README.md", "CONTRIBUTING.md", "benchmarks/README.md"]
PAGES += sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md"))

_BLOCK = re.compile(
    r"^(?:<!-- not run: (?P<why>[^\n]+) -->\n)?```(?P<language>\w+)\n(?P<text>.*?)^```$", re.M | re.S
)


@dataclasses.dataclass(frozen=True)
class Code:
    """A block of code of a page.

    Attributes
    ----------
    language
        The word after the fence.
    text
        What stands between the fences.
    runs
        False where the page says ``<!-- not run: REASON -->`` in the line above.
    """

    language: str
    text: str
    runs: bool


def read(name: str) -> str:
    """Return a page."""
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(name: str, language: str | None = None) -> list[Code]:
    """Return the blocks of code of a page, of one language or of all."""
    found = [Code(hit["language"], hit["text"], hit["why"] is None) for hit in _BLOCK.finditer(read(name))]
    return [code for code in found if language in (None, code.language)]


def commands(name: str) -> list[tuple[str, bool]]:
    """Return the ``ldmlr`` commands of a page in their order, and whether they can run anywhere."""
    return [
        (line.split("&& ")[-1], code.runs)
        for code in blocks(name, "sh")
        for line in code.text.splitlines()
        if line.split("&& ")[-1].startswith("ldmlr ")
    ]


def links(name: str) -> list[str]:
    """Return the targets of links and pictures of a page that are no addresses."""
    targets = re.findall(r"\]\(([^)\s]+)\)", re.sub(r"^```.*?^```$", "", read(name), flags=re.M | re.S))
    return [target for target in targets if not re.match(r"[a-z]+:", target)]


def anchors(text: str) -> set[str]:
    """Return the anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S), re.M)
    plain = (re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading) for heading in headings)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in plain}


def parse(line: str) -> click.Command:
    """Return the command of a line after checking that it has the options given, with allowed words.

    Raises
    ------
    click.ClickException
        There is no such command or option, or a word is none of the choices.
    """
    from ldmlr_cli.main import cli

    command: click.Command = cli
    words = shlex.split(line)
    assert words[0] == "ldmlr", line
    words = words[1:]
    context = click.Context(command, info_name="ldmlr")
    while isinstance(command, click.Group):
        name, found, words = command.resolve_command(context, words)
        assert found is not None, line
        command, context = found, click.Context(found, info_name=name, parent=context)
    values, _, _ = command.make_parser(context).parse_args(list(words))
    for parameter in command.params:
        given = values.get(parameter.name)
        kind = parameter.type
        for value in given if isinstance(given, list | tuple) else [given]:
            if isinstance(kind, click.Choice) and isinstance(value, str):
                kind.convert(value, parameter, context)
    return command
