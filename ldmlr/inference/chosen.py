"""What ``RUN|HEAD`` stands for: the head of a run or a file, as it is to be used, and the encoder before it.

Of a run that is the row of its table that the result calls best: the fine-tuned head or its baseline, as it
is or with label shift. A head file has no table, and is used as it is unless label shift is asked for.
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
from ldmlr.errors import InputError, UsageError, nearest, opt
from ldmlr.files import parse_json
from ldmlr.heads.headfile import AnyHead, FinetunedHead, ShiftedHead
from ldmlr.heads.logits import head_logits
from ldmlr.heads.losses import log_prior
from ldmlr.heads.modules import LinearHead, linear_head
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
        return f"{self.path}: the head of {self.method}{shift}, {len(self.class_names)} classes"


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
    path = Path(path)
    if adjustment is not None and adjustment not in ADJUSTMENTS:
        wrong = f"unknown value {adjustment!r}; {nearest(adjustment, ADJUSTMENTS)}"
        raise UsageError(f"{opt('adjustment')}: {wrong}")
    if not path.exists():
        raise InputError(f"{path}: no such run or head; check the path")
    document: Mapping[str, Any] = {}
    file = path
    if path.is_dir():
        document = _document(path)
        file = _head_file(path, document)
    tuned = FinetunedHead.load(file)
    best = document.get("best") if isinstance(document.get("best"), Mapping) else None
    row = best.get("method") if best is not None else None
    of_baseline = row == "baseline"
    if adjustment is None:
        adjustment = "label-shift" if best is not None and best.get("adjustment") == "label-shift" else "none"
    names = tuned.class_names or _names_of_run(path, document)
    calibrated = not of_baseline and adjustment == "none"
    encoder = _output(path, document, "baseline", "model.safetensors")
    config = document.get("config")
    return Chosen(
        file, _module(tuned, of_baseline, adjustment), names or tuple(map(str, range(tuned.num_classes))),
        names is not None, row if isinstance(row, str) else tuned.method, adjustment,
        tuned.temperature if calibrated else 1.0, encoder,
        config.get("encode", {}) if isinstance(config, Mapping) else {},
    )  # fmt: skip


def _module(tuned: FinetunedHead, of_baseline: bool, adjustment: str) -> AnyHead:
    """Return the module of a row of the table."""
    if not of_baseline:
        return tuned.head if adjustment == "none" else tuned.label_shifted()
    baseline = tuned.baseline
    if adjustment == "none":
        return baseline
    offset = torch.from_numpy(log_prior(tuned.counts)).float()
    if not isinstance(baseline, LinearHead):
        return ShiftedHead(baseline, baseline, 1.0, offset)
    with torch.no_grad():
        bias = -offset if baseline.bias is None else baseline.bias - offset
        return linear_head(baseline.weight, bias)


def _document(folder: Path) -> Mapping[str, Any]:
    path = folder / "result.json"
    try:
        found = parse_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{folder}: has no result.json; name the folder of a run, or a head file") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); run it again") from None
    if not isinstance(found, dict) or found.get("command") not in ("run", "finetune"):
        raise InputError(f"{path}: is not the result of ldmlr run or ldmlr finetune; name one of those")
    return found


def _head_file(folder: Path, document: Mapping[str, Any]) -> Path:
    """Return the head of a run, also where its folder has been moved."""
    if document["command"] == "finetune":
        found = sorted(folder.glob("head-seed*.safetensors"))
        if found:
            return found[0]
    named = document.get("head")
    if isinstance(named, str):
        for path in (folder.joinpath(*Path(named).parts[-3:]), Path(named)):
            if path.is_file():
                return path
    raise InputError(f"{folder}: its head is gone; run it again, or name a head file")


def _output(folder: Path, document: Mapping[str, Any], stage: str, name: str) -> Path | None:
    """Return a file of a stage of the first seed, or None where there is none."""
    for step in document.get("steps") or ():
        if isinstance(step, Mapping) and step.get("stage") == stage:
            path = folder / f"seed-{step.get('seed')}" / f"{stage}-{str(step.get('key'))[:8]}" / name
            return path if path.is_file() else None
    return None


def _names_of_run(folder: Path, document: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Return the class names of the store that a run started from, if it is there and has any."""
    config = document.get("config")
    given = (
        [config.get(key) for key in ("converted", "source", "store")] if isinstance(config, Mapping) else []
    )
    paths = [Path(name) for name in given if isinstance(name, str)]
    encoded = _output(folder, document, "encode", "features.h5")
    for path in [*([encoded] if encoded else []), *(folder / "converted" / p.name for p in paths), *paths]:
        if path.is_file():
            try:
                return FeatureStore.open(path).class_names
            except InputError:
                continue
    return None
