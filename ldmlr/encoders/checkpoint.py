"""Checkpoints of a training run: everything that the next epoch depends on.

All random draws of an epoch are a function of (seed, epoch), so no generator state is kept:
weights, optimiser, averages, loss scaler and the log so far make the rest of the run come
out bit for bit, on the same machine with the same number of threads.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import torch

from ldmlr.errors import InputError, LdmlrError, UsageError, opt
from ldmlr.files import write_bytes
from ldmlr.spool import local_copy

FILENAME = "checkpoint.pt"


def save_checkpoint(path: Path, run: dict[str, Any], state: dict[str, Any]) -> None:
    """Write a checkpoint, whole or not at all.

    Parameters
    ----------
    path
        The file; replaced if it exists.
    run
        Plain data that identifies the run (configuration, seed, image set, threads).
    state
        Tensors and nested dicts of them, and plain data.
    """
    # Through memory, as torch hides the reason (such as a full disk) when it cannot write a file.
    buffer = io.BytesIO()
    torch.save({"run": json.dumps(run, sort_keys=True), "state": state}, buffer)
    write_bytes(path, buffer.getbuffer())


def load_checkpoint(path: Path, run: dict[str, Any]) -> dict[str, Any]:
    """Return the state of a checkpoint of this same run, by whatever number of ranks.

    Raises
    ------
    InputError
        The file is damaged.
    UsageError
        It belongs to a run with other settings; the message names them.
    """
    try:
        with local_copy(path) as place:
            content = torch.load(place, map_location="cpu", weights_only=True)
        found, state = json.loads(content["run"]), content["state"]
    except LdmlrError:
        raise  # of an object store that fails
    except Exception as error:
        detail = type(error).__name__
        raise InputError(
            f"{path}: damaged checkpoint ({detail}); start again with {opt('overwrite', True)}"
        ) from None
    # With other ranks sums are rounded in another order anyway, as they are with other threads.
    beside = {"ranks", "threads"} if found.get("ranks", 1) != run.get("ranks", 1) else set()
    for key in sorted({*found, *run} - beside):
        if found.get(key) != run.get(key):
            raise UsageError(
                f"{path}: was made with {_name(key)} {found.get(key)!r}, not {run.get(key)!r}; "
                "go on with the same settings, or delete the file to start again"
            )
    result: dict[str, Any] = state
    return result


def _name(key: str) -> str:
    return "images" if key == "images" else opt(key)
