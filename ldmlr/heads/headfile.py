"""A fine-tuned head, and its file (`ldmlr.modelfile`).

head.weight, head.bias, ...          the fine-tuned head (see `ldmlr.heads.modules.to_stored`)
baseline.weight, baseline.bias, ...  the head it started from
counts [C] int64                     encoded training rows per class
shift [C] float64                    what the label-shift row subtracts, if the head was fitted anew
header                               kinds, origin, configuration, seed, history, rows, selection
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from ldmlr import modelfile
from ldmlr.errors import InputError, counted
from ldmlr.heads.classifier import Classifier, temperature_of
from ldmlr.heads.config import HEADS, TUNED_HEADS, FinetuneConfig
from ldmlr.heads.logits import head_logits
from ldmlr.heads.losses import log_prior
from ldmlr.heads.modules import Head, LinearHead, from_stored, linear_head, to_stored
from ldmlr.remote import as_path
from ldmlr.store import StoredHead

LAST_EPOCH = "last epoch"
BEST_ON_TEST = "best epoch on the test set: only to compare with published code that does so"


# Where a baseline came from.
STORED, FITTED = "stored", "fitted"

# What the header of a head file holds.
HEADER = {
    "kinds": modelfile.fields(head=modelfile.choice(*TUNED_HEADS), baseline=modelfile.choice(*HEADS)),
    "origin": modelfile.choice(STORED, FITTED),
    "config": modelfile.ANY,
    "seed": modelfile.SEED,
    "history": modelfile.many(
        modelfile.fields(epoch=modelfile.whole(1), loss=modelfile.FIGURE, lr=modelfile.FIGURE)
    ),
    "generated": modelfile.whole(),
    "selection": modelfile.TEXT,
}
# What it may hold since heads are fitted anew.
OPTIONAL = {
    "chosen": modelfile.ANY,
    "class_names": modelfile.many(modelfile.TEXT),
    "temperature": modelfile.number(0.0),
    "shift_temperature": modelfile.number(0.0),
}


class ShiftedHead(nn.Module):
    """Weighted average of two heads' logits minus an offset, for heads that are not both linear.

    Heads trained with a cross-entropy give log-probabilities up to a constant per row, so averaging the
    logits of different kinds of heads is their geometric mean of probabilities.
    """

    kind = "average"

    def __init__(self, baseline: Head, head: Head, average: float, offset: torch.Tensor) -> None:
        super().__init__()
        self.baseline, self.head, self.average = baseline, head, average
        self.dim, self.num_classes = head.dim, head.num_classes
        self.register_buffer("offset", offset)
        self.offset: torch.Tensor

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return ``average * baseline(x) + (1 - average) * head(x) - offset``, ``[n, C]``."""
        mixed: torch.Tensor = self.average * self.baseline(features) + (1 - self.average) * self.head(
            features
        )
        return mixed - self.offset


AnyHead = Head | ShiftedHead


def shifted(baseline: Head, head: Head, share: float, subtracted: npt.NDArray[np.float64]) -> AnyHead:
    """Return ``share * baseline + (1 - share) * head - subtracted``: one linear head if both are linear."""
    offset = torch.from_numpy(subtracted).float()
    if not (isinstance(head, LinearHead) and isinstance(baseline, LinearHead)):
        return ShiftedHead(baseline, head, share, offset)
    with torch.no_grad():
        weight, bias = share * baseline.weight + (1 - share) * head.weight, -offset
        for part, one in ((share, baseline), (1 - share, head)):
            if one.bias is not None:
                bias = bias.add(one.bias, alpha=part)
    return linear_head(weight, bias)


@dataclasses.dataclass(frozen=True)
class FinetunedHead(Classifier):
    """A fine-tuned head and what its label-shift row needs.

    Parameters
    ----------
    head
        The new head: the LDMLR row of the table.
    baseline
        The head it is compared with and averaged with.
    origin
        ``stored`` if the baseline came with the store, ``fitted`` if it was fitted to the encoded rows.
    counts
        Encoded training rows per class, ``[C]``.
    config, seed
        The resolved configuration and the seed.
    history
        One record per epoch: ``epoch``, ``loss``, ``lr``.
    generated
        Generated rows it was trained on, beside the encoded ones.
    selection
        Which epoch this is: the last one, unless it was chosen on the test set.
    chosen
        Of a head that was fitted anew: what was chosen and how (`ldmlr.heads.fit.FittedHead`).
    shift
        Of such a head: what its label-shift row subtracts from its logits, ``[C]``.
    class_names
        Names of the classes, if they have any.
    temperature
        What `predict_proba` divides the logits by (`calibrated`).
    shift_temperature
        The same of its label-shift row, whose logits are others.
    """

    head: Head
    baseline: Head
    origin: str
    counts: npt.NDArray[np.int64]
    config: FinetuneConfig
    seed: int
    history: list[dict[str, Any]]
    generated: int = 0
    selection: str = LAST_EPOCH
    chosen: dict[str, Any] | None = None
    shift: npt.NDArray[np.float64] | None = None
    class_names: tuple[str, ...] | None = None
    temperature: float = 1.0
    shift_temperature: float = 1.0

    def __repr__(self) -> str:
        """Show the kind, the size and what it was trained on."""
        return (
            f"FinetunedHead({self.config.head}, {counted(self.dim, 'dimension')} to "
            f"{counted(len(self.counts), 'class')}; "
            f"trained on {int(self.counts.sum()):,} encoded and {counted(self.generated, 'generated row')}, "
            f"seed {self.seed})"
        )

    @property
    def dim(self) -> int:
        """Feature dimensions D."""
        return self.head.dim

    @property
    def num_classes(self) -> int:
        """Classes C."""
        return self.head.num_classes

    @property
    def method(self) -> str:
        """Its name in tables: ``ldmlr``, or ``finetuned`` where no row was generated."""
        return "ldmlr" if self.generated else "finetuned"

    @property
    def tau_shift(self) -> float:
        """Strength of the label shift of its label-shift row: 1 where the shift is known."""
        return self.config.tau_shift if self.shift is None else 1.0

    def logits(self, features: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Return the new head's logits ``[N, C]`` of features ``[N, D]``."""
        return head_logits(self.head, features)

    def label_shifted(self) -> AnyHead:
        """Return the head of the label-shift row.

        ``average * baseline + (1 - average) * new - tau_shift * log prior``: one linear head where both are
        linear, else a module that computes both. Of a head that was fitted anew the shift is known: the
        whole log prior for the baseline, `shift` for the head itself.
        """
        share = self.config.average
        subtracted = self.config.tau_shift * log_prior(self.counts)
        if self.shift is not None:
            subtracted = share * log_prior(self.counts) + (1 - share) * self.shift
        return shifted(self.baseline, self.head, share, subtracted)

    def calibrated(self, X: npt.ArrayLike, y: npt.ArrayLike) -> Self:
        """Return the head with the temperatures that suit held-out rows: its own, and its label-shift row's.

        Parameters and errors as of `Classifier.calibrated`.
        """
        found = super().calibrated(X, y)
        logits = head_logits(self.label_shifted(), X)
        return dataclasses.replace(
            found, shift_temperature=temperature_of(logits, self._labels(y, len(logits)))
        )

    def save(self, path: str | Path, overwrite: bool = False) -> None:
        """Write both heads, the counts and the whole configuration, whole or not at all."""
        tensors: modelfile.Tensors = {"counts": np.asarray(self.counts, np.int64)}
        if self.shift is not None:
            tensors["shift"] = np.asarray(self.shift, np.float64)
        kinds = {}
        for name, head in (("head", self.head), ("baseline", self.baseline)):
            stored = to_stored(head)
            kinds[name] = stored.kind
            arrays = {"weight": stored.weight, "bias": stored.bias, **stored.extra}
            tensors |= {f"{name}.{key}": value for key, value in arrays.items() if value is not None}
        header = {
            "kinds": kinds, "origin": self.origin, "config": self.config.to_dict(), "seed": self.seed,
            "history": self.history, "generated": self.generated, "selection": self.selection,
            **({} if self.temperature == 1.0 else {"temperature": self.temperature}),
            **({} if self.shift_temperature == 1.0 else {"shift_temperature": self.shift_temperature}),
            **({} if self.chosen is None else {"chosen": self.chosen}),
            **({} if self.class_names is None else {"class_names": list(self.class_names)}),
        }  # fmt: skip
        modelfile.write(as_path(path), modelfile.HEAD, header, tensors, overwrite)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a head written by `save`.

        Raises
        ------
        InputError
            The file is missing, damaged, of another kind, or its tensors do not fit together.
        """
        path = as_path(path)
        header, arrays = modelfile.read(path, modelfile.HEAD, HEADER)
        with modelfile.damaged(path, modelfile.HEAD):
            counts = arrays["counts"]
            head, baseline = (_head(name, header["kinds"], arrays) for name in ("head", "baseline"))
            shape = (head.num_classes, head.dim)
            if (baseline.num_classes, baseline.dim) != shape or counts.shape != shape[:1]:
                raise ValueError("its heads and counts have different sizes")
            if counts.dtype != np.int64:
                raise ValueError(f"counts are {counts.dtype}, expected int64")
            shift = arrays.get("shift")
            if shift is not None and (shift.shape != counts.shape or shift.dtype != np.float64):
                raise ValueError(f"shift is {shift.dtype} {list(shift.shape)}, expected float64 {shape[:1]}")
            for name, rule in OPTIONAL.items():
                if name in header and not rule.holds(header[name]):
                    raise ValueError(f"{name} is not {rule.words}")
            names = header.get("class_names")
            if names is not None and len(names) != shape[0]:
                raise ValueError(f"it names {counted(len(names), 'class')}, but its head has {shape[0]}")
            config = modelfile.config_of(FinetuneConfig, header["config"])
            return cls(
                head, baseline, header["origin"], counts, config,
                header["seed"], header["history"], header["generated"], header["selection"],
                header.get("chosen"), shift, None if names is None else tuple(names),
                float(header.get("temperature", 1.0)), float(header.get("shift_temperature", 1.0)),
            )  # fmt: skip


def _head(name: str, kinds: Mapping[str, str], arrays: Mapping[str, npt.NDArray[Any]]) -> Head:
    parts = {key.partition(".")[2]: arrays[key] for key in arrays if key.startswith(f"{name}.")}
    weight, bias = parts.pop("weight"), parts.pop("bias", None)
    if weight.ndim != 2:
        raise ValueError(f"{name}.weight is {list(weight.shape)}, expected [C, D]")
    return from_stored(StoredHead(kind=kinds[name], weight=weight, bias=bias, extra=parts)).eval()


def check_head(head: AnyHead, dim: int, num_classes: int, head_name: str, store_name: str) -> None:
    """Refuse a head that does not belong to a store; the message names both and their numbers."""
    if head.dim != dim:
        raise InputError(
            f"{head_name} takes {counted(head.dim, 'dimension')}, but {store_name} has {dim}; "
            "give a head of the same encoder"
        )
    if head.num_classes != num_classes:
        raise InputError(
            f"{head_name} has {counted(head.num_classes, 'class')}, but {store_name} has {num_classes}; "
            "give a head of the same classes"
        )
