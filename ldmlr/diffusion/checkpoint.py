"""What checkpoints of a training have in common, whatever trains: safetensors, and a key of whose it is.

Imports no torch.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from ldmlr.errors import InputError, UsageError
from ldmlr.tensorfile import TensorFile, open_tensors

# The format of each trainer's checkpoints.
NATIVE, REFERENCE = "ldmlr-fused-checkpoint", "ldmlr-diffusion-checkpoint"


def header(form: str, key: str, done: int, losses: Sequence[float]) -> dict[str, str]:
    """Return the texts of a checkpoint.

    Parameters
    ----------
    form
        `NATIVE` or `REFERENCE`.
    key
        Says of which configuration and data it is.
    done, losses
        Iterations done, and the mean loss of each report.
    """
    return {"format": form, "key": key, "done": str(done), "losses": json.dumps(losses)}


def progress(texts: Mapping[str, str]) -> tuple[int, list[float]]:
    """Return the iterations done and the losses that a header tells of."""
    return int(texts["done"]), list(json.loads(texts["losses"]))


@contextmanager
def opened(path: Path, form: str, key: str, framework: str) -> Iterator[tuple[TensorFile, dict[str, str]]]:
    """Open a checkpoint for a block: its tensors and its header. What goes wrong in the block is damage.

    Parameters
    ----------
    path
        The file.
    form, key
        As of `header`.
    framework
        As of `ldmlr.tensorfile.open_tensors`.

    Raises
    ------
    InputError
        The file is damaged or no checkpoint.
    UsageError
        It belongs to another configuration, other data or the other trainer.
    """
    try:
        with open_tensors(path, framework) as file:
            texts = file.metadata() or {}
            if texts.get("format") not in (NATIVE, REFERENCE):
                raise InputError(f"{path}: not a checkpoint of a diffusion model; delete it to start afresh")
            if (texts["format"], texts["key"]) != (form, key):
                raise UsageError(
                    f"{path}: the checkpoint belongs to other settings or data; "
                    "use those, or delete it to start afresh"
                )
            yield file, texts
    except (SafetensorError, KeyError, RuntimeError, ValueError, TypeError, OSError) as error:
        raise InputError(f"{path}: damaged checkpoint ({error}); delete it to start afresh") from None


def resumed(path: Path, keys: list[str]) -> int:
    """Return which of some keys a checkpoint has; 0 if there is none, or it has another."""
    if not path.exists():
        return 0
    try:
        with open_tensors(path, "np") as file:
            key = (file.metadata() or {}).get("key")
    except (SafetensorError, OSError):
        return 0  # `opened` says what is wrong
    return keys.index(key) if key in keys else 0
