"""Held-out rows for a contest, and rows that are generated without having seen them.

Where a store has validation rows, they are held out: the encoder has not seen them either. Otherwise they
are inner folds of the training rows (`ldmlr.heads.folds`), or their strong views where the encoder has seen
them. Generators are fitted to the rows of each fold alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from ldmlr.errors import counted
from ldmlr.generation.config import GenerateConfig
from ldmlr.generation.generators.base import Generator
from ldmlr.generation.plan import Counts, plan, plan_from_config
from ldmlr.generation.train_rows import TrainRows
from ldmlr.heads.folds import Fold, inner_folds
from ldmlr.heads.training_rows import TrainingRows

Labels = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
# From rows to a generator fitted to them.
Fit = Callable[[TrainRows], Generator]


@dataclasses.dataclass(frozen=True)
class Held:
    """What is held out.

    Parameters
    ----------
    rows
        All training rows.
    folds
        Folds without generated rows.
    how
        What is held out, in words.
    """

    rows: TrainRows
    folds: tuple[Fold, ...]
    how: str

    @classmethod
    def of(
        cls,
        rows: TrainRows,
        *,
        val: tuple[Floats, Labels] | None = None,
        use_views: bool = False,
        used: int | None = None,
        seed: int = 0,
    ) -> Held:
        """Return what is held out of training rows.

        Parameters
        ----------
        rows
            The training rows.
        val
            Validation rows and their classes, which are held out in place of training rows.
        use_views
            Hold out views of rows in place of the rows: the encoder has seen these.
        used
            How many of five folds are made.
        seed
            Of the folds.
        """
        training = rows.training_rows()
        if val is not None:
            fold = Fold.of(training, np.asarray(val[0], np.float32), np.asarray(val[1], np.int64))
            return cls(rows, (fold,), f"{counted(len(val[1]), 'validation row')}")
        shown = use_views and bool(rows.views)
        views, kinds = (rows.views, rows.kinds) if shown else ((), ())
        folds = tuple(inner_folds(training, views=views, kinds=kinds, used=used, seed=seed))
        word = "augmented views of held-out training rows" if shown else "held-out training rows"
        count = len(folds)
        return cls(rows, folds, f"{word} ({count} inner fold{'s' if count != 1 else ''})")

    def kept(self, fold: Fold) -> Labels:
        """Return the numbers of the rows that a fold trains on."""
        return np.flatnonzero(fold.weights[: len(self.rows.labels)] > 0)

    def with_views(self) -> tuple[Fold, ...]:
        """Return the folds with the views of their rows among what is trained on."""
        features, labels = self.rows.with_views()
        training = TrainingRows(features, labels, len(labels), self.rows.num_classes, self.rows.name)
        blocks = 1 + len(self.rows.views)
        return tuple(
            dataclasses.replace(fold, rows=training, weights=np.tile(fold.weights, blocks))
            for fold in self.folds
        )


def fill_plan(counts: Counts, share: float | None, drawing: GenerateConfig) -> Counts:
    """Return the rows to generate per class ``[C]``: up to a share of the largest, or as `drawing` has it."""
    if share is None:
        return plan_from_config(counts, drawing)
    return plan(counts, "balance", target=max(1, round(share * int(counts.max()))))


class Filling:
    """A generator fitted to all rows and to those of each fold, and rows drawn of it.

    Parameters
    ----------
    held
        What is held out.
    fit
        From rows to a generator; called for each fold when its rows are first drawn.
    drawing
        Has the plan, where classes are not filled up to a share of the largest.
    seed
        Of the rows.
    """

    def __init__(self, held: Held, fit: Fit, drawing: GenerateConfig, seed: int = 0) -> None:
        self.held, self.seed, self.fit, self.drawing = held, seed, fit, drawing
        self._fitted: dict[int, Generator] = {}

    def folds(self, share: float | None, folds: Sequence[int]) -> list[Fold]:
        """Return some folds, with classes filled up to a share of the largest."""
        return [self._fold(number, share) for number in folds]

    def all(self, share: float | None, seed: int | None = None) -> TrainingRows:
        """Return all rows, with classes filled up to a share of the largest."""
        return self._filled(-1, self.held.rows, share, seed)

    def drawing_as(self, drawing: GenerateConfig) -> Filling:
        """Return it with rows drawn otherwise from the same fitted generators."""
        return _Redrawn(self, drawing)

    def generator(self, number: int = -1) -> Generator:
        """Return the generator of a fold, or that of all rows (-1)."""
        rows = self.held.rows
        kept = np.arange(len(rows.labels)) if number < 0 else self.held.kept(self.held.folds[number])
        # Where validation rows are held out, a fold has all training rows.
        number = -1 if len(kept) == len(rows.labels) else number
        if number not in self._fitted:
            self._fitted[number] = self.fit(rows if number < 0 else rows.take(kept))
        return self._fitted[number]

    def _fold(self, number: int, share: float | None) -> Fold:
        fold = self.held.folds[number]
        rows = self._filled(number, self.held.rows.take(self.held.kept(fold)), share)
        return dataclasses.replace(fold, rows=rows, weights=np.ones(len(rows.labels)))

    def _filled(
        self, number: int, rows: TrainRows, share: float | None, seed: int | None = None
    ) -> TrainingRows:
        wanted = fill_plan(rows.counts, share, self.drawing)
        labels = np.repeat(np.arange(rows.num_classes), wanted)
        drawn = self.generator(number).draw(labels, self.seed if seed is None else seed)
        return TrainingRows(
            np.concatenate([rows.features, drawn]), np.concatenate([rows.labels, labels]),
            len(rows.labels), rows.num_classes, rows.name,
        )  # fmt: skip


class _Redrawn(Filling):
    """A filling that shares the fitted generators of another."""

    def __init__(self, other: Filling, drawing: GenerateConfig) -> None:
        super().__init__(other.held, other.fit, drawing, other.seed)
        self._other = other

    def generator(self, number: int = -1) -> Generator:
        return self._other.generator(number).drawing_as(self.drawing)
