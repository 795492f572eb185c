"""Errors that end a command in one clear line.

Everything a user can cause (a bad file, a wrong option, a full disk) is raised as an
`LdmlrError`. The command line prints its message after ``Error:`` and exits with
`exit_status`; library callers catch it like any exception.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class LdmlrError(Exception):
    """Something failed: the message says what, where, and what to do."""

    exit_status = 1


class InputError(LdmlrError):
    """A file or an array does not hold what was expected."""


class UsageError(LdmlrError):
    """An option, a key or an argument is wrong."""

    exit_status = 2


def nearest(word: str, choices: Iterable[str]) -> str:
    """Return a hint naming the choice most like `word`, or all choices if none is like it."""
    options = sorted(choices)
    close = difflib.get_close_matches(word, options, n=1, cutoff=0.5)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"choose from {', '.join(options)}" if options else "there is none to choose from"
