"""Whether an output is there already: whole, and of the same settings."""

from __future__ import annotations

from pathlib import Path

from ldmlr.errors import UsageError, opt
from ldmlr.store.store import FeatureStore


def finished(path: Path, key: str, overwrite: bool = False) -> bool:
    """Tell whether `path` is the complete output of the settings behind `key`.

    Parameters
    ----------
    path
        A store, or where one is to be.
    key
        What the configuration of such a store has under ``key``: a hash of all that determines its rows.
    overwrite
        Whether a store of other settings may be replaced.

    Raises
    ------
    UsageError
        It is that of other settings, and they are not to be overwritten.
    """
    if not path.is_file():
        return False
    if FeatureStore.open(path).config.get("key") != key:
        if overwrite:
            return False
        raise UsageError(
            f"{path}: holds the rows of other settings; pass {opt('overwrite', True)} or another {opt('out')}"
        )
    return True
