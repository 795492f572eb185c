"""What a reading process is made to do in tests; it imports these by their names."""

from __future__ import annotations

import ctypes
import os

import numpy as np

from ldmlr.config import UnknownKey
from ldmlr.errors import UsageError


def loop():
    while True:
        pass


def allocate():
    return len(np.ones(1 << 28))


def crash():
    ctypes.string_at(0)


def leave():
    os._exit(0)


def surprise():
    raise KeyError("no such thing")


def wrong():
    raise UsageError("file.h5: say it another way")


def unknown():
    raise UnknownKey("file.h5: say it another way")


def answer(number, folder):
    return {"number": number + 1, "folder": os.path.samefile(folder, os.getcwd())}
