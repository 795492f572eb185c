"""What the files of a run are called in its folder, and the heads in a folder of fine-tuned ones."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ldmlr.remote import is_remote


def step_folder(stage: str, seed: object, key: str) -> str:
    """Return the name of the folder of a step, below that of the run."""
    return f"seed-{seed}/{stage}-{key[:8]}"


def tuned_head(seed: object) -> str:
    """Return what ``ldmlr finetune`` calls the head of a seed."""
    return f"head-seed{seed}.safetensors"


def of_stage(stage: str, name: str) -> str:
    """Return the pattern of a file of a stage, of whatever seed and settings, below the folder of a run."""
    return f"{step_folder(stage, '*', '*')}/{name}"


def kept_in_run(folder: Path, patterns: Iterable[str]) -> Path | None:
    """Return a file of a run on this machine, for whoever gave its folder where that file is meant.

    Parameters
    ----------
    folder
        What was given; nothing is found where it is no folder.
    patterns
        Of the file, first choice first.
    """
    if is_remote(folder) or not folder.is_dir():
        return None
    return next((path for pattern in patterns for path in sorted(folder.glob(pattern))), None)
