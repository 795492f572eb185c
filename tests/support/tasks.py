"""A task for other processes, which import it by name."""

from __future__ import annotations

import os
import signal
import time

from ldmlr.errors import InputError


def task(what: str, value: int) -> int:
    """Do what a task may do."""
    if what == "refuse":
        raise InputError(f"not {value}")
    if what == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "fail":
        raise ZeroDivisionError
    if what == "sleep":
        time.sleep(60)
    return value * value
