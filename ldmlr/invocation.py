"""The command line that runs, so that a result can say what computes it again."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

# What changes how a command goes about its work or what it prints, and nothing in its result.
_NOT_REPEATED = ("--json", "--quiet", "--resume", "--overwrite")

_words: tuple[str, ...] | None = None


def note_invocation(words: Sequence[str] | None) -> None:
    """Note the words after ``ldmlr``, or None at the end of a command."""
    global _words
    _words = None if words is None else tuple(map(str, words))


def command_line() -> str | None:
    """Return the command that reproduces what runs, quoted for a shell; None in a Python program."""
    if _words is None:
        return None
    return shlex.join(["ldmlr", *(word for word in _words if word not in _NOT_REPEATED)])
