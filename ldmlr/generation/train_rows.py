"""The rows that generators and baselines see."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ldmlr.diffusion.rows import check_features, choose_views, store_rows
from ldmlr.diffusion.statistics import Block
from ldmlr.generation.plan import Counts
from ldmlr.heads.training_rows import TrainingRows, check_counts

if TYPE_CHECKING:
    from ldmlr.store import FeatureStore

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]


@dataclasses.dataclass(frozen=True)
class TrainRows:
    """Encoded training rows with their augmented views.

    Parameters
    ----------
    features, labels
        Clean rows ``[N, D]`` float32 and their classes ``[N]``.
    views
        The same rows under augmentation, each ``[N, D]``: those that stage 2 trains on.
    kinds
        Kind of each view, such as ``weak`` or ``strong``.
    num_classes
        Classes C.
    name
        The file, for messages.
    class_names
        Names of the classes, if they have any.
    """

    features: Floats
    labels: Labels
    views: tuple[Floats, ...]
    kinds: tuple[str, ...]
    num_classes: int
    name: str
    class_names: tuple[str, ...] | None = None

    @property
    def counts(self) -> Counts:
        """Clean rows per class ``[C]``."""
        return np.bincount(self.labels, minlength=self.num_classes)

    @property
    def blocks(self) -> list[Block]:
        """The clean rows and each view of them as (features, labels) pairs."""
        return [(part, self.labels) for part in (self.features, *self.views)]

    def with_views(self) -> tuple[Floats, Labels]:
        """Return the clean rows and, after them, every view: ``[(1 + K) N, D]`` and ``[(1 + K) N]``."""
        return np.concatenate([self.features, *self.views]), np.tile(self.labels, 1 + len(self.views))

    def take(self, index: Labels) -> TrainRows:
        """Return some of the rows, with their views."""
        return dataclasses.replace(
            self, features=self.features[index], labels=self.labels[index],
            views=tuple(view[index] for view in self.views),
        )  # fmt: skip

    def training_rows(self, views: bool = False) -> TrainingRows:
        """Return the rows as stage 3 takes them, all of them encoded."""
        features, labels = self.with_views() if views else (self.features, self.labels)
        return TrainingRows(features, labels, len(labels), self.num_classes, self.name)


def train_rows(store: FeatureStore, weak: int, strong: int, *, copy: bool = True) -> TrainRows:
    """Return the encoded training rows of a store; generated rows in it are left out.

    Parameters
    ----------
    store
        An open store with a training split.
    weak, strong
        Views of each kind to take, as stage 2 does.
    copy
        Whether the rows are copied into memory; else they stay memory-mapped where the file allows it.

    Raises
    ------
    InputError
        A value that is not finite, or a class without a row.
    """
    clean, labels, views = store_rows(store, weak, strong)
    split = store.split("train")
    kinds: Sequence[str] = split.view_kinds or ("weak",) * len(split.views if split.views is not None else ())
    check_counts(np.bincount(labels, minlength=store.num_classes), str(store.path))
    chosen = choose_views(kinds, weak, strong)
    names = ["features", *(f"views[{number}]" for number in chosen)]
    # Copied because memory maps are read-only, which torch does not like.
    take = np.array if copy else np.asarray
    blocks = [
        take(check_features(block, f"{store.path}: /train/{name}"), np.float32)
        for block, name in zip((clean, *views), names, strict=True)
    ]
    return TrainRows(
        blocks[0], np.array(labels, np.int64), tuple(blocks[1:]), tuple(kinds[i] for i in chosen),
        store.num_classes, str(store.path), store.class_names,
    )  # fmt: skip
