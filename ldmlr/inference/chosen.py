"""What ``RUN|HEAD`` stands for: the head of a run or a file, as it is to be used, and the encoder before it.

A run says it in its result: ``head`` is the file, ``best`` the row of the table that it is used as, the head
or its baseline, as it is or with label shift. What ``ldmlr finetune`` writes, folder or file, calls no row
best, and is used as it is unless label shift is asked for.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ldmlr.device import resolve_device
from ldmlr.errors import InputError, UsageError, counted, nearest, opt
from ldmlr.heads.headfile import AnyHead, FinetunedHead, shifted
from ldmlr.heads.logits import head_logits
from ldmlr.heads.losses import log_prior
from ldmlr.remote import as_path
from ldmlr.run.opened import OpenedRun, read_run
from ldmlr.store import FeatureStore

ADJUSTMENTS = ("none", "label-shift")


@dataclasses.dataclass(frozen=True)
class Chosen:
    """A head as it is used.

    Attributes
    ----------
    path
        Its file.
    head
        Module from features ``[n, D]`` to logits ``[n, C]``.
    class_names
        Names of the classes ``[C]``: their numbers where they have none.
    named
        Whether the classes have names.
    method, adjustment
        The row of the table that it is.
    temperature
        What logits are divided by before they become probabilities.
    encoder
        The baseline's file that made the features, where the run trained one.
    encoding
        How the run encoded with it: the options of ``ldmlr encode``.
    """

    path: Path
    head: AnyHead
    class_names: tuple[str, ...]
    named: bool
    method: str
    adjustment: str
    temperature: float = 1.0
    encoder: Path | None = None
    encoding: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def dim(self) -> int:
        """Feature dimensions D."""
        return int(self.head.dim)

    def to(self, device: str) -> Chosen:
        """Move the head to a device."""
        self.head.to(resolve_device(device)).eval()
        return self

    def probabilities(self, features: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return the probabilities ``[n, C]`` of features ``[n, D]``."""
        logits = torch.from_numpy(head_logits(self.head, features)).double() / self.temperature
        return logits.softmax(dim=1).float().numpy()

    def words(self) -> str:
        """Return it in words."""
        shift = ", with label shift" if self.adjustment == "label-shift" else ""
        return f"{self.path}: the head of {self.method}{shift}, {counted(len(self.class_names), 'class')}"


def choose(path: Path, adjustment: str | None = None) -> Chosen:
    """Return the head that a run or a head file stands for.

    Parameters
    ----------
    path
        The folder of ``ldmlr run`` or ``ldmlr finetune``, or a head file.
    adjustment
        ``none`` or ``label-shift``, instead of that of the run's best row.

    Raises
    ------
    InputError
        Nothing is there, it is damaged, or the head of the run is gone.
    UsageError
        An unknown adjustment.
    """
    path = as_path(path)
    if adjustment is not None and adjustment not in ADJUSTMENTS:
        wrong = f"unknown value {adjustment!r}; {nearest(adjustment, ADJUSTMENTS)}"
        raise UsageError(f"{opt('adjustment')}: {wrong}")
    if not path.exists():
        raise InputError(f"{path}: no such run or head; check the path")
    run = run_with_head(path) if path.is_dir() else OpenedRun({}, path)
    file = head_file(run) if path.is_dir() else path
    tuned = FinetunedHead.load(file)
    said = run.document.get("best")
    best: Mapping[str, Any] = said if isinstance(said, Mapping) else {}
    row = best.get("method")
    of_baseline = row == "baseline"
    if adjustment is None:
        adjustment = "label-shift" if best.get("adjustment") == "label-shift" else "none"
    names = tuned.class_names or _names_of_run(run)
    temperature = tuned.temperature if adjustment == "none" else tuned.shift_temperature
    encoder = run.first_output("baseline", "model.safetensors")
    return Chosen(
        file, _module(tuned, of_baseline, adjustment), names or tuple(map(str, range(tuned.num_classes))),
        names is not None, row if isinstance(row, str) else tuned.method, adjustment,
        1.0 if of_baseline else temperature, encoder,
        run.config.get("encode", {}),
    )  # fmt: skip


def _module(tuned: FinetunedHead, of_baseline: bool, adjustment: str) -> AnyHead:
    """Return the module of a row of the table."""
    if not of_baseline:
        return tuned.head if adjustment == "none" else tuned.label_shifted()
    baseline = tuned.baseline
    return baseline if adjustment == "none" else shifted(baseline, baseline, 1.0, log_prior(tuned.counts))


def run_with_head(folder: Path) -> OpenedRun:
    """Return what ``ldmlr run`` or ``ldmlr finetune`` left in a folder.

    Raises
    ------
    InputError
        It holds no result, or that of another command.
    """
    run = read_run(folder)
    if run.command not in ("run", "finetune"):
        raise InputError(f"{run.path}: is not the result of ldmlr run or ldmlr finetune; name one of those")
    return run


def head_file(run: OpenedRun) -> Path:
    """Return the head of a run, also where its folder has been moved.

    Raises
    ------
    InputError
        It is gone.
    """
    if run.command == "finetune":
        found = run.heads()
        if found:
            return found[0][1]
    named = run.document.get("head")
    if isinstance(named, str):
        for path in (run.folder.joinpath(*as_path(named).parts[-3:]), as_path(named)):
            if path.is_file():
                return path
    raise InputError(f"{run.folder}: its head is gone; run it again, or name a head file")


def _names_of_run(run: OpenedRun) -> tuple[str, ...] | None:
    """Return the class names of the rows that the first head learned from, if they are there and have any."""
    try:
        store = run.store_of(run.seeds[0]) if run.seeds else None
        return None if store is None else FeatureStore.open(store).class_names
    except InputError:
        return None
