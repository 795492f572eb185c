"""Errors that end a command in one clear line.

Everything a user can cause (a bad file, a wrong option, a full disk) is raised as an
`LdmlrError`. The command line prints its message after ``Error:`` and exits with
`exit_status`; library callers catch it like any exception.

A message names an option by `opt`, not by the spelling of the one or the other caller: the command line
writes ``--first-row``, Python ``first_row``.
"""

from __future__ import annotations

import difflib
import operator
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Self, SupportsIndex

# Around an option in a message that is not yet spelled: code points that no text has.
_OPEN, _VALUE, _CLOSE = _MARKS = "\ue000", "\ue001", "\ue002"

# (name of an option, its value as text or None) -> how it is written
Spelling = Callable[[str, str | None], str]


def opt(name: str, value: Any = None) -> str:
    """Name an option in the message of an error.

    Parameters
    ----------
    name
        As in Python, with underscores.
    value
        What to set it to, where the message says so.

    Examples
    --------
    >>> error = UsageError(f"{opt('gate_confidence')}: needs {opt('gate', 'head')}; or {opt('force', True)}")
    >>> str(error)
    "gate_confidence: needs gate='head'; or force=True"
    >>> error.on_command_line()
    '--gate-confidence: needs --gate head; or --force'
    """
    text = "" if value is None else f"{_VALUE}{value!r}"
    return f"{_OPEN}{name}{text}{_CLOSE}"


def in_python(name: str, value: str | None) -> str:
    """Spell an option as a parameter."""
    return name if value is None else f"{name}={value}"


def with_dashes(name: str, value: str | None) -> str:
    """Spell an option as the command line does."""
    dashed = name.replace("_", "-")
    if value == "False":
        return f"--no-{dashed}"
    flag = f"--{dashed}"
    return flag if value in (None, "True") else f"{flag} {str(value).strip(chr(39))}"


def in_toml(name: str, value: str | None) -> str:
    """Spell an option as a TOML file does."""
    if value is None:
        return name
    words = {"True": "true", "False": "false"}
    return f"{name} = {words.get(value, value.replace(chr(39), chr(34)))}"


class LdmlrError(Exception):
    """Something failed: the message says what, where, and what to do.

    Parameters
    ----------
    message
        One line; options in it are named by `opt`.
    """

    exit_status = 1

    def __init__(self, message: str = "") -> None:
        # What a file holds may be part of it: a line stays a line, and a terminal is told nothing.
        self.message = _one_line(message)
        super().__init__(self.message)

    def __str__(self) -> str:
        return self.spelled(in_python)

    def __format__(self, spec: str) -> str:
        # A message that is made part of another one keeps its options.
        return format(self.message, spec)

    @property
    def option(self) -> str | None:
        """The option that is wrong, if the message starts with one."""
        pieces = _pieces(self.message)
        return pieces[1][0] if not pieces[0] and len(pieces) > 1 else None

    def spelled(self, spelling: Spelling) -> str:
        """Return the message with its options written in one way."""
        return "".join(
            piece if isinstance(piece, str) else spelling(*piece) for piece in _pieces(self.message)
        )

    def on_command_line(self) -> str:
        """Return the message as the command line prints it."""
        return self.spelled(with_dashes)

    def renamed(self, names: Mapping[str, str]) -> Self:
        """Return the error for a caller whose parameters have other names: old name -> new one."""
        return type(self)(self.spelled(lambda name, value: _marked(names.get(name, name), value)))


class InputError(LdmlrError):
    """A file or an array does not hold what was expected."""


class UsageError(LdmlrError):
    """An option, a key or an argument is wrong."""

    exit_status = 2


def with_article(thing: str) -> str:
    """Return a thing with its article.

    Examples
    --------
    >>> with_article("model file"), with_article("image set")
    ('a model file', 'an image set')
    """
    return f"{'an' if thing[:1] in tuple('aeiou') else 'a'} {thing}"


def nearest(word: str, choices: Iterable[str]) -> str:
    """Return a hint naming the choice most like `word`, or all choices if none is like it."""
    options = sorted(choices)
    close = difflib.get_close_matches(word, options, n=1, cutoff=0.5)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"choose from {', '.join(options)}" if options else "there is none to choose from"


def alike(word: str, choices: Iterable[str]) -> str:
    """Return the question whether the choice most like `word` was meant, with a space before, or nothing."""
    close = difflib.get_close_matches(word, list(choices), n=1, cutoff=0.6)
    return f" (did you mean {close[0]!r}?)" if close else ""


# Words whose plural has no rule.
_PLURALS = {"axis": "axes"}


def counted(number: SupportsIndex, thing: str) -> str:
    """Return a number with what it counts, as every message writes it.

    Parameters
    ----------
    number
        How many.
    thing
        One of them; of several words the last one takes the plural.

    Examples
    --------
    >>> counted(1, "row"), counted(1200, "generated row"), counted(0, "class")
    ('1 row', '1,200 generated rows', '0 classes')
    """
    many = operator.index(number)
    if many == 1:
        return f"1 {thing}"
    *before, word = thing.split(" ")
    ending = "es" if word.endswith(("s", "x", "sh", "ch")) else "s"
    return " ".join([f"{many:,}", *before, _PLURALS.get(word, word + ending)])


def listed(names: Iterable[str], most: int = 8) -> str:
    """Return names as a message lists them: of more than `most`, the first, the last and their number.

    What somebody looks for in a wide table, such as the label, is mostly its first or its last column.
    """
    names = list(names)
    if len(names) <= most:
        return ", ".join(names)
    half = most // 2
    return f"{', '.join(names[:half])}, ..., {', '.join(names[-half:])} ({len(names):,} in all)"


def _one_line(message: str) -> str:
    """Return a message with everything escaped that cannot be printed, but for the marks of options."""
    if all(letter.isprintable() or letter in _MARKS for letter in message):
        return message
    return "".join(
        letter if letter.isprintable() or letter in _MARKS else _escaped(letter) for letter in message.strip()
    )


def _escaped(letter: str) -> str:
    return " " if letter in "\n\t" else letter.encode("unicode_escape").decode()


def _marked(name: str, value: str | None) -> str:
    return f"{_OPEN}{name}{'' if value is None else _VALUE + value}{_CLOSE}"


def _pieces(message: str) -> list[Any]:
    """Split a message into its text and, between two texts, the (name, value) of an option."""
    first, *others = message.split(_OPEN)
    pieces: list[Any] = [first]
    for other in others:
        inside, _, text = other.partition(_CLOSE)
        name, has_value, value = inside.partition(_VALUE)
        pieces += [(name, value if has_value else None), text]
    return pieces
