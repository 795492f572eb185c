"""Rows held out of a store that has no test split: stratified folds, or one fixed part.

What is measured on rows that are held out is measured on a `PartStore`: the same file with some of its
training rows as the training split, and others as the test split. Nothing is copied, the rows stay where they
are. A head that the store holds is left out, as it was trained on the rows that are held out; so are
generated rows, which may have been made from them.

In every repetition each class is dealt to the folds anew, so each of its rows is measured once: with K folds,
on what the other K - 1 were trained on. A class with fewer rows than folds is dealt row by row, which is
leave-one-out within it. The only row of a class is always trained on and never measured.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from ldmlr.config import Config, option
from ldmlr.errors import InputError, UsageError, opt
from ldmlr.results import BALANCED
from ldmlr.store.joined import Views
from ldmlr.store.layout import Array, Int64, array_sha256, contents_sha256
from ldmlr.store.rows import Rows
from ldmlr.store.split import Split
from ldmlr.store.store import FeatureStore

FOLDS = 5
# How often the folds are drawn anew, where nothing is said.
REPEATS = 2
# A drawn test split is the same for every seed.
_DRAW = 0


@dataclasses.dataclass(frozen=True)
class HeldOutConfig(Config):
    """What is measured on where a store has no test split."""

    folds: int | None = option(
        None, "Features without a test split: measure by so many stratified folds, anew for every seed.  "
        f"[default: {FOLDS}]", minimum=2, maximum=1000, metavar="K",
    )  # fmt: skip
    test_fraction: float | None = option(
        None, "Without a test split: draw this share of every class as one, the same for every seed.",
        above=0, maximum=0.9, metavar="F",
    )  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.folds is not None and self.test_fraction is not None:
            raise UsageError(f"{opt('folds')}, {opt('test_fraction')}: give one of the two")


@dataclasses.dataclass(frozen=True)
class Measuring:
    """What rows of a store are measured on.

    Attributes
    ----------
    folds
        K; 0 with a test split of the store's own or a drawn one.
    fraction
        Share of every class that is drawn as a test split; 0 where none is drawn.
    of_images
        Likewise, but drawn of the images before they were encoded: the store has it as its own.
    """

    folds: int = 0
    fraction: float = 0.0
    of_images: float = 0.0

    @classmethod
    def of(cls, store: FeatureStore, config: HeldOutConfig) -> Measuring:
        """Return what the options mean for a store.

        Raises
        ------
        UsageError
            The store has a test split of its own.
        InputError
            No class has two rows, so that none can be held out.
        """
        if store.test is not None and len(store.test):
            for name in ("folds", "test_fraction"):
                if getattr(config, name) is not None:
                    raise UsageError(f"{opt(name)}: {store.path} has a test split of its own; leave it out")
            return cls()
        if (store.split("train").encoded_counts < 2).all():
            raise InputError(
                f"{store.path}: has no test split, and no class of which a row could be held out; add rows"
            )
        if config.test_fraction is not None:
            return cls(fraction=config.test_fraction)
        return cls(folds=config.folds or FOLDS)

    @property
    def whole(self) -> bool:
        """Whether the store is measured as it is, on a test split of its own."""
        return not self.folds and not self.fraction

    @property
    def measured_on(self) -> str:
        """``folds`` or ``test``, as result documents say it."""
        return "folds" if self.folds else "test"

    @property
    def repeats(self) -> int:
        """Seeds, where nothing is said: a repetition of K folds is K trainings."""
        return REPEATS if self.folds else 5

    def words(self) -> str:
        """Return it in words."""
        if self.folds:
            return f"measured by {self.folds} stratified folds, drawn anew for every seed"
        if self.fraction:
            return f"measured on {self.fraction:.3g} of the rows of every class, drawn as a test split"
        if self.of_images:
            return f"measured on {self.of_images:.3g} of the images of every class, drawn as a test split"
        return "measured on the test split"

    def in_full(self, judged_by: str) -> str:
        """Return it in words, with what it means for the figures.

        Parameters
        ----------
        judged_by
            The column that the rows of the table are compared by.
        """
        if judged_by != BALANCED:
            return self.words()
        return (
            f'{self.words()}; "all" counts rows, so the frequent classes weigh most in it, and heads are '
            'compared by "balanced", the mean over classes'
        )

    def parts(self, store: FeatureStore, seed: int) -> Iterator[FeatureStore]:
        """Yield the stores that one seed is measured on: one, or one per fold."""
        if self.whole:
            yield store
            return
        for number in range(max(self.folds, 1)):
            yield self.part(store, seed, number)

    def part(self, store: FeatureStore, seed: int, number: int) -> FeatureStore:
        """Return one of the parts."""
        split = store.split("train")
        encoded = np.arange(len(split)) if split.source is None else np.flatnonzero(split.source == 0)
        labels = np.asarray(split.labels)[encoded]
        if self.folds:
            held = fold_numbers(labels, self.folds, seed) == number
        else:
            held = drawn_rows(labels, self.fraction)
        return PartStore(store, encoded[~held], encoded[held])

    @staticmethod
    def held(part: FeatureStore) -> Int64:
        """Return which training rows of the whole a part is tested on, in the order of its test split."""
        return part.held if isinstance(part, PartStore) else np.arange(len(part.split("test")))

    def measured_rows(self, store: FeatureStore) -> Int64:
        """Return the labels of all rows that one seed is measured on, in the order of the store."""
        if self.whole:
            test = store.split("test")
            kept = slice(None) if test.source is None else test.source == 0
            return np.array(np.asarray(test.labels)[kept], np.int64)
        index = np.sort(np.concatenate([self.held(part) for part in self.parts(store, 0)]))
        return np.array(np.asarray(store.split("train").labels)[index], np.int64)

    def unmeasured(self, store: FeatureStore) -> tuple[str, ...]:
        """Return the classes that no row is measured of, by name, or number.

        They have no test row, or, where rows are held out, their only row is trained on.
        """
        if self.whole:
            return untested(store)
        return _named(store, store.split("train").encoded_counts == 1)


def untested(store: FeatureStore, split: str = "test") -> tuple[str, ...]:
    """Return the classes without an encoded row in a split, by name, or number: no mean has them."""
    return _named(store, store.split(split).encoded_counts == 0)


def _named(store: FeatureStore, which: Array) -> tuple[str, ...]:
    names = store.class_names
    return tuple(names[label] if names else str(label) for label in np.flatnonzero(which).tolist())


def shuffled_classes(labels: Int64, random: np.random.Generator) -> Iterator[Int64]:
    """Yield the rows of each class in random order, but of one with a single row: it is never held out."""
    for label in np.unique(labels).tolist():
        own = random.permutation(np.flatnonzero(labels == label))
        if len(own) > 1:
            yield own


def fold_numbers(labels: Int64, folds: int, seed: int) -> Int64:
    """Return the fold of every row ``[N]``; -1 for the only row of a class.

    The classes are dealt one after the other, each from where the one before ended, so that folds have the
    same number of rows to within one.
    """
    random = np.random.default_rng([seed, folds])
    numbers = np.full(len(labels), -1, np.int64)
    start = 0
    for own in shuffled_classes(labels, random):
        numbers[own] = (start + np.arange(len(own))) % folds
        start += len(own)
    return numbers


def drawn_rows(labels: Int64, fraction: float) -> Array:
    """Return which rows ``[N]`` are drawn as a test split: of every class its share, but never all of it."""
    held = np.zeros(len(labels), np.bool_)
    for own in shuffled_classes(labels, np.random.default_rng(_DRAW)):
        held[own[: min(max(round(fraction * len(own)), 1), len(own) - 1)]] = True
    return held


class PickedRows(Rows):
    """Some rows of another array, in an order of their own.

    Parameters
    ----------
    base
        The rows ``[N, D]``.
    index
        Which of them, ``[n]``.
    """

    def __init__(self, base: Rows, index: Int64) -> None:
        self.base, self.index = base, index
        self.shape, self.storage = (len(index), base.shape[1]), base.storage

    def stored(self, start: int, stop: int) -> Array:
        """Return rows ``start .. stop`` as they are kept."""
        return self.base.gather(self.index[start:stop])

    def gather(self, index: Array) -> Array:
        """Return rows by number."""
        return self.base.gather(self.index[index])


class PartStore(FeatureStore):
    """A store of some of the training rows of another, tested on others of them.

    Parameters
    ----------
    base
        The whole store; its validation split stays.
    kept, held
        Which of its training rows are trained on, and which are the test split.
    """

    def __init__(self, base: FeatureStore, kept: Int64, held: Int64) -> None:
        splits = {
            "train": _picked(base.split("train"), "train", kept),
            "test": _picked(base.split("train"), "test", held),
        }
        if base.val is not None:
            splits["val"] = base.val
        super().__init__(base.path, splits, dataclasses.replace(base.parts, head=None))
        self.base, self.kept, self.held = base, kept, held

    def fingerprint(self) -> str:
        """Return a sha256 of the contents of the whole, and of which rows these are."""
        return contents_sha256(
            {
                "whole": self.base.fingerprint(),
                "train": array_sha256(self.kept),
                "test": array_sha256(self.held),
            }
        )

    def dataset_sha256(self, name: str) -> str:
        """Return a checksum of rows of the whole: of its dataset, and of which rows these are."""
        split = name.strip("/").split("/")[0]
        if split == "val":
            return self.base.dataset_sha256(name)
        index = self.kept if split == "train" else self.held
        whole = self.base.dataset_sha256(name.replace("/test/", "/train/"))
        return contents_sha256({"whole": whole, "rows": array_sha256(index)})

    def __reduce__(self) -> Any:
        """Pickle the whole by path, and which rows these are."""
        return type(self), (self.base, self.kept, self.held)


def _picked(split: Split, name: str, index: Int64) -> Split:
    """Return some rows of a split, with their views."""
    views = split.views_on_disk
    return Split(
        name, PickedRows(split.rows, index), np.asarray(split.labels)[index], split.num_classes,
        views=None if views is None else Views([PickedRows(part, index) for part in views.parts]),
        view_kinds=split.view_kinds,
    )  # fmt: skip
