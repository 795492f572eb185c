"""Heads of stage 3 that are fitted anew to their best, and the baseline of rows that come without a head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from ldmlr.arguments import strong_views
from ldmlr.heads.config import MIX, FinetuneConfig
from ldmlr.heads.fit import fit_head
from ldmlr.heads.headfile import FinetunedHead
from ldmlr.heads.modules import Head
from ldmlr.heads.spec import HeadSpec
from ldmlr.heads.training_rows import TrainingRows

if TYPE_CHECKING:
    from ldmlr.store import FeatureStore

Views = tuple[Sequence[npt.NDArray[np.float32]], Sequence[str]]
# Weight decay of a baseline where every class has a single row, so that none can be held out.
UNCHOSEN_DECAY = 0.01


def best_head(
    rows: TrainingRows,
    baseline: Head,
    origin: str,
    config: FinetuneConfig,
    seed: int = 0,
    *,
    counts: npt.NDArray[np.int64] | None = None,
    views: Views = ((), ()),
    device: str | torch.device = "cpu",
    label: str = "fit head",
) -> FinetunedHead:
    """Fit a head anew, with what the configuration leaves open chosen on held-out training rows.

    Parameters
    ----------
    rows
        Encoded and generated rows.
    baseline, origin
        The head it is averaged with in the label-shift row, and where that comes from.
    config
        Stage 3, settled.
    seed
        Everything random depends on it alone.
    counts
        Encoded rows per class ``[C]`` of the label shift, if they are not those of `rows`.
    views
        Augmented views of the encoded rows and their kinds (`held_views`).
    device, label
        As for `ldmlr.heads.fit.fit_head`.
    """
    spec = HeadSpec(
        config.head, config.loss, config.weight_decay, config.tau, config.width, config.dropout
    )  # fmt: skip
    blocks, kinds = views
    found = fit_head(
        mixed(rows, MIX if config.mix is None else config.mix, seed), spec,
        views=blocks, kinds=kinds, seed=seed, device=device, label=label,
    )  # fmt: skip
    chosen = config.replace(weight_decay=found.spec.weight_decay)
    if config.head == "mlp":
        chosen = chosen.replace(width=found.spec.width, dropout=found.spec.dropout)
    return FinetunedHead(
        found.head, baseline, origin, rows.counts if counts is None else counts, chosen, seed, [],
        rows.generated, chosen=found.chosen, shift=found.shift,
    )  # fmt: skip


def mixed(rows: TrainingRows, mix: float, seed: int = 0) -> TrainingRows:
    """Return rows in which each generated row keeps a share from `mix` to 1; the rest is an encoded row.

    The head-mix of the recipe, drawn once instead of in every pass.
    """
    if mix >= 1 or not rows.generated:
        return rows
    random = np.random.default_rng(seed)
    features = rows.features.copy()
    share = random.uniform(mix, 1, (rows.generated, 1)).astype(np.float32)
    partner = rows.features[random.integers(rows.encoded, size=rows.generated)]
    features[rows.encoded :] = share * rows.features[rows.encoded :] + (1 - share) * partner
    return TrainingRows(features, rows.labels, rows.encoded, rows.num_classes, rows.name)


def held_views(store: FeatureStore) -> Views:
    """Return the augmented views of a store's encoded rows that stand for held-out rows, and their kinds."""
    split = store.split("train")
    if split.views is None:
        return (), ()
    kinds = split.view_kinds or ("weak",) * len(split.views)
    taken = strong_views(range(len(kinds)), kinds)
    encoded = slice(None) if split.source is None else np.asarray(split.source) == 0
    return (
        [np.asarray(split.views[at], np.float32)[encoded] for at in taken],
        [kinds[at] for at in taken],
    )  # fmt: skip


def fit_baseline(rows: TrainingRows, seed: int = 0, device: torch.device | str = "cpu") -> Head:
    """Return a linear head fitted to the encoded rows alone, for a store that has no head.

    Plain cross-entropy, solved to convergence, with the weight decay that does best on held-out training rows
    after label shift. It stands for the encoder's own classifier, with its bias towards the frequent classes.
    """
    encoded = TrainingRows(
        rows.features[: rows.encoded], rows.labels[: rows.encoded], rows.encoded, rows.num_classes, rows.name
    )
    decay = None if rows.counts.max() > 1 else UNCHOSEN_DECAY
    spec = HeadSpec("linear", "cross-entropy", decay)
    return fit_head(encoded, spec, seed=seed, device=device, label="fit baseline head").head
