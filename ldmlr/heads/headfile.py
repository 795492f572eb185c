"""Head files: safetensors with the heads as tensors and everything else in one JSON header entry.

head.weight, head.bias, ...          the fine-tuned head (see `ldmlr.heads.modules.to_stored`)
baseline.weight, baseline.bias, ...  the head it started from
counts [C] int64                     encoded training rows per class
metadata["ldmlr"]                    JSON: format, version, kinds, configuration, seed, history, selection
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from torch import nn

from ldmlr.errors import InputError
from ldmlr.files import check_input, parse_json, write_bytes
from ldmlr.heads.config import FinetuneConfig
from ldmlr.heads.logits import head_logits
from ldmlr.heads.losses import log_prior
from ldmlr.heads.modules import Head, LinearHead, from_stored, linear_head, to_stored
from ldmlr.store import StoredHead

FORMAT = "ldmlr-head"
VERSION = 1
LAST_EPOCH = "last epoch"
BEST_ON_TEST = "best epoch on the test set: only to compare with published code that does so"


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


@dataclasses.dataclass(frozen=True)
class FinetunedHead:
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

    def logits(self, features: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Return the new head's logits ``[N, C]`` of features ``[N, D]``."""
        return head_logits(self.head, features)

    def label_shifted(self) -> AnyHead:
        """Return the head of the label-shift row.

        ``average * baseline + (1 - average) * new - tau_shift * log prior``: one linear head where both are
        linear, else a module that computes both.
        """
        share = self.config.average
        offset = torch.from_numpy(self.config.tau_shift * log_prior(self.counts)).float()
        if not (isinstance(self.head, LinearHead) and isinstance(self.baseline, LinearHead)):
            return ShiftedHead(self.baseline, self.head, share, offset)
        with torch.no_grad():
            weight, bias = share * self.baseline.weight + (1 - share) * self.head.weight, -offset
            for part, head in ((share, self.baseline), (1 - share, self.head)):
                if head.bias is not None:
                    bias = bias.add(head.bias, alpha=part)
        return linear_head(weight, bias)

    def save(self, path: str | Path, overwrite: bool = False) -> None:
        """Write both heads, the counts and the whole configuration as safetensors."""
        save_head(self, Path(path), overwrite)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a head written by `save`."""
        return cls(**load_head(Path(path)))


def save_head(tuned: FinetunedHead, path: Path, overwrite: bool = False) -> None:
    """Write a fine-tuned head, whole or not at all."""
    tensors: dict[str, npt.NDArray[Any]] = {"counts": np.asarray(tuned.counts, dtype=np.int64)}
    kinds = {}
    for name, head in (("head", tuned.head), ("baseline", tuned.baseline)):
        stored = to_stored(head)
        kinds[name] = stored.kind
        arrays = {"weight": stored.weight, "bias": stored.bias, **stored.extra}
        tensors |= {f"{name}.{key}": value for key, value in arrays.items() if value is not None}
    about = {
        "format": FORMAT,
        "version": VERSION,
        "kinds": kinds,
        "origin": tuned.origin,
        "config": tuned.config.to_dict(),
        "seed": tuned.seed,
        "history": tuned.history,
        "generated": tuned.generated,
        "selection": tuned.selection,
    }
    # One metadata entry: safetensors orders several at random, and equal heads should be equal files.
    write_bytes(path, save(tensors, metadata={"ldmlr": json.dumps(about, sort_keys=True)}), overwrite)


def load_head(path: Path) -> dict[str, Any]:
    """Return the fields of a `FinetunedHead` read from a file.

    Raises
    ------
    InputError
        The file is missing, is no safetensors file, or is not (a version of) a head file.
    """
    check_input(path, "head file")
    try:
        with safe_open(path, framework="numpy") as file:
            text = (file.metadata() or {}).get("ldmlr")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: not a readable safetensors file ({error}); give a head file") from None
    about = _about(path, text)
    try:
        counts = tensors["counts"].astype(np.int64)
        heads = {name: _head(name, about["kinds"][name], tensors) for name in ("head", "baseline")}
        fields = {
            "origin": str(about["origin"]),
            "config": FinetuneConfig.from_mapping(about["config"], str(path)),
            "seed": int(about["seed"]),
            "history": list(about["history"]),
            "generated": int(about["generated"]),
            "selection": str(about["selection"]),
        }
    except (KeyError, ValueError, TypeError) as error:
        raise InputError(f"{path}: damaged head file ({error!r}); write it again") from None
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    shapes = {(head.dim, head.num_classes) for head in heads.values()}
    if len(shapes) > 1 or counts.shape != (heads["head"].num_classes,):
        raise InputError(f"{path}: its heads and counts have different sizes; write it again")
    return {**heads, **fields, "counts": counts}


def _about(path: Path, text: str | None) -> dict[str, Any]:
    try:
        about = parse_json(text or "")
    except ValueError:
        about = None
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        raise InputError(f"{path}: is not a head file; give the output of ldmlr finetune")
    if about.get("version") != VERSION:
        raise InputError(
            f"{path}: head file of version {about.get('version')}, this program reads {VERSION}; upgrade it"
        )
    return about


def _head(name: str, kind: str, tensors: dict[str, npt.NDArray[Any]]) -> Head:
    arrays = {key.split(".", 1)[1]: tensors[key] for key in tensors if key.startswith(f"{name}.")}
    weight, bias = arrays.pop("weight"), arrays.pop("bias", None)
    if weight.ndim != 2:
        raise InputError(f"{name}.weight is {list(weight.shape)}, expected [C, D]")
    return from_stored(StoredHead(kind=kind, weight=weight, bias=bias, extra=arrays)).eval()


def check_head(head: AnyHead, dim: int, num_classes: int, head_name: str, store_name: str) -> None:
    """Refuse a head that does not belong to a store; the message names both and their numbers."""
    if head.dim != dim:
        raise InputError(
            f"{head_name} takes {head.dim} dimensions, but {store_name} has {dim}; "
            "give a head of the same encoder"
        )
    if head.num_classes != num_classes:
        raise InputError(
            f"{head_name} has {head.num_classes} classes, but {store_name} has {num_classes}; "
            "give a head of the same classes"
        )
