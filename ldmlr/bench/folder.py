"""A folder for files that are measured, which goes with the object that has it."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from pathlib import Path


def folder_of(owner: object) -> Path:
    """Return a new folder that is removed with its owner, or at the end of the process."""
    path = tempfile.mkdtemp(prefix="ldmlr-bench-")
    weakref.finalize(owner, shutil.rmtree, path, ignore_errors=True)
    return Path(path)
