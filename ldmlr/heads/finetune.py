"""Stage 3: fine-tune the classification head on encoded and generated rows."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from ldmlr.arguments import as_array, check_seed
from ldmlr.errors import InputError, UsageError
from ldmlr.heads.config import FinetuneConfig
from ldmlr.heads.losses import log_prior
from ldmlr.heads.modules import AngularHead, Head, LinearHead, from_stored, linear_head
from ldmlr.heads.rows import Rows, TrainingRows, gather_rows
from ldmlr.heads.training import EpochCallback, fit_baseline, fresh_head, train_head

if TYPE_CHECKING:
    from ldmlr.store import StoredHead

CHUNK = 16384
# Numbers in the logits that are held at once (64 MiB in float32): all rows of a store times thousands of
# classes would be gigabytes.
LOGITS = 1 << 24
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
        from ldmlr.heads.headfile import save_head

        save_head(self, Path(path), overwrite)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a head written by `save`."""
        from ldmlr.heads.headfile import load_head

        return cls(**load_head(Path(path)))


def head_logits(head: nn.Module, features: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """Return the logits ``[N, C]`` of features ``[N, D]``, computed in chunks on the head's device."""
    rows = as_array(features)
    dim = head.dim
    if rows.ndim != 2 or rows.shape[1] != dim:
        raise InputError(f"head: expects features [N, {dim}], not {list(rows.shape)}")
    device = next(head.parameters()).device
    parts = []
    with torch.no_grad():
        for start in range(0, max(len(rows), 1), CHUNK):
            block = np.array(rows[start : start + CHUNK], dtype=np.float32)
            parts.append(head(torch.from_numpy(block).to(device)).cpu().numpy())
    return np.concatenate(parts)


def block_rows(num_classes: int, most: int = CHUNK) -> int:
    """Return for how many rows at once logits ``[n, C]`` should be held: `most`, or fewer if C is large."""
    return max(1, min(most, LOGITS // num_classes))


def logit_blocks(head: Head, features: npt.NDArray[Any]) -> Iterator[tuple[slice, npt.NDArray[np.float32]]]:
    """Yield the logits of features ``[N, D]`` block by block, each with the slice of its rows."""
    size = block_rows(head.num_classes)
    for start in range(0, len(features), size):
        part = slice(start, start + size)
        yield part, head_logits(head, features[part])


def finetune(
    store: Rows | str | Path,
    pseudo: Rows | str | Path | None = None,
    *,
    config: FinetuneConfig | None = None,
    seed: int = 0,
    device: str | torch.device = "cpu",
    on_epoch: EpochCallback | None = None,
    own_generated: bool = True,
    **options: Any,
) -> FinetunedHead:
    """Fine-tune a classification head on encoded and generated rows.

    Parameters
    ----------
    store
        A `FeatureStore`, the path of one, or features ``[N, D]`` and labels ``[N]`` (arrays or tensors). A
        store may hold generated rows itself (``source`` 1), as those of ``ldmlr augment`` do.
    pseudo
        Generated rows, in any of these forms.
    config
        The configuration; otherwise it is built from `options`, the fields of `FinetuneConfig`:
        ``head`` (``auto``: the kind of the store's head), ``init``, ``loss``, ``tau``, ``epochs``, ``batch``,
        ``lr``, ``weight_decay``, ``mix``, ``average``, ``tau_shift``, ``norm_limit``.
    seed
        Everything random depends on it alone.
    device
        ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
    on_epoch
        Called with the epoch (from 1) and the head after each epoch.
    own_generated
        Whether generated rows that `store` holds itself are used too, beside those of `pseudo`.

    Returns
    -------
    FinetunedHead
        ``.logits(features)``, ``.label_shifted()``, ``.save(path)``, ``.history``.

    Raises
    ------
    InputError
        Rows or heads that do not fit together.
    UsageError
        An unknown option or value.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.random.default_rng(0).normal(size=(60, 4)).astype("float32")
    >>> y = np.repeat([0, 1], [50, 10])
    >>> head = finetune((X, y), (X[50:] + 0.1, y[50:]), epochs=2)
    >>> head.logits(X).shape
    (60, 2)
    """
    from ldmlr.device import resolve_device

    if config is not None and options:
        raise UsageError(f"finetune: give config or single options, not both ({', '.join(options)})")
    config = config or FinetuneConfig.from_mapping(options)
    seed, place = check_seed(seed), resolve_device(device)
    store, pseudo = opened(store), None if pseudo is None else opened(pseudo)
    rows = gather_rows(store, pseudo, own_generated=own_generated)
    stored = None if isinstance(store, tuple) else store.head
    baseline, origin = baseline_head(rows, stored, seed, place)
    config = config.settled(baseline.kind)
    head = start_head(config, baseline, rows, seed)
    history = train_head(head, rows, config, seed=seed, device=place, on_epoch=on_epoch)
    return FinetunedHead(head, baseline, origin, rows.counts, config, seed, history, rows.generated)


def opened(rows: Rows | str | Path) -> Rows:
    """Return a store for a path, and rows that are rows already as they are."""
    from ldmlr.store import FeatureStore

    if isinstance(rows, str | Path):
        return FeatureStore.open(rows)
    if isinstance(rows, tuple | FeatureStore):
        return rows
    raise UsageError(f"finetune: expected a store, its path or (features, labels), not {type(rows).__name__}")


def baseline_head(
    rows: TrainingRows, stored: StoredHead | None, seed: int = 0, device: torch.device | str = "cpu"
) -> tuple[Head, str]:
    """Return the store's head and ``stored``, or one fitted to the encoded rows and ``fitted``."""
    if stored is None:
        return fit_baseline(rows, seed, device), "fitted"
    head = from_stored(stored).eval()
    check_head(head, rows.dim, rows.num_classes, f"{rows.name}: its head", rows.name)
    return head, "stored"


def start_head(config: FinetuneConfig, baseline: Head, rows: TrainingRows, seed: int) -> Head:
    """Return the head that training starts from.

    With ``init="stored"`` it is the baseline's head. Where the kinds differ, it takes over the class weights,
    and a cosine or WCDAS head the spread of the baseline's logits on the encoded rows as well: twelve epochs
    are too short to grow a scale from one to the hundred or more that WCDAS needs. With ``init="fresh"`` the
    class weights are drawn from the seed; a cosine or WCDAS head keeps the scale that it has then. The kind
    of head is settled (`FinetuneConfig.settled`).
    """
    fresh = fresh_head(config.head, baseline.dim, baseline.num_classes, seed)
    if config.init == "fresh" and not isinstance(fresh, AngularHead):
        return fresh
    drawn = fresh.get_parameter("weight").detach().clone()
    head = copy.deepcopy(baseline) if config.head == baseline.kind else _converted(fresh, baseline, rows)
    if config.init == "fresh":
        with torch.no_grad():
            head.get_parameter("weight").copy_(drawn)
    return head


def _converted(head: Head, baseline: Head, rows: TrainingRows) -> Head:
    """Give a head of another kind the baseline's class weights, and the spread of its logits."""
    with torch.no_grad():
        head.get_parameter("weight").copy_(baseline.get_parameter("weight"))
        if isinstance(head, LinearHead) and head.bias is not None:
            head.bias.zero_()
    if isinstance(head, AngularHead):
        sample = rows.features[: rows.encoded][:: -(-rows.encoded // CHUNK)]
        wanted, found = (_spread(head_logits(which, sample)) for which in (baseline, head))
        if wanted > 0 and found > 0:
            head.rescale(wanted / found)
    return head


def _spread(logits: npt.NDArray[np.float32]) -> float:
    """Return the standard deviation of logits around the mean of their row."""
    return float((logits - logits.mean(axis=1, keepdims=True)).std(dtype=np.float64))


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
