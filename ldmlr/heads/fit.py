"""A head at its best: what is left open is chosen on held-out rows, then it is fitted to all rows.

The same for every method: the same folds, the same rungs, the same rule. The ladders of a specification
are climbed one after the other. On each, a window of rungs is measured, then one rung more while the best is
at the edge of what was measured.

Fits that take long get fewer folds: five, three, or one, by a rule that knows sizes alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from ldmlr import progress
from ldmlr.errors import InputError
from ldmlr.heads.folds import FOLDS, Fold, HeldOut, inner_folds
from ldmlr.heads.linear import LinearPath, shift_offset
from ldmlr.heads.logits import logit_blocks
from ldmlr.heads.modules import Head
from ldmlr.heads.passes import TrainedPath
from ldmlr.heads.spec import HeadSpec, Ladder
from ldmlr.heads.statistical import ClassMeanPath, DiscriminantPath, NeighbourPath, NormalisedPath
from ldmlr.heads.training_rows import TrainingRows

Floats = npt.NDArray[np.float32]

# Multiply-adds of one look at all rows by a linear head, up to which five or three folds are made.
FIVE_FOLDS, THREE_FOLDS = 1e9, 1e10
# A head trained in batches takes as long as so many linear ones with as many weights, which start from one
# another.
MLP_SHARE = 10
GIVEN, NOTHING_OPEN = "given", "nothing to choose"


class Path(Protocol):
    """Heads of some rows, for one specification after the other."""

    def fit(self, spec: HeadSpec, *, fine: bool = True) -> Head:
        """Return the head of a specification in which everything is settled."""


@dataclasses.dataclass(frozen=True)
class FittedHead:
    """A head, what was chosen for it and how.

    Parameters
    ----------
    head
        The module, on features as they are.
    spec
        The specification, with everything settled.
    shift
        What is left to be subtracted from the logits for classes that count alike, ``[C]``: zeros for a head
        that has learned to be balanced.
    chosen
        ``chosen_by`` (in words), the values that were chosen, ``held_out`` (balanced accuracy in per cent and
        log-loss of the choice, number of held-out rows and of classes that have none) and ``tried``, a list
        of values with their figures.
    """

    head: Head
    spec: HeadSpec
    shift: npt.NDArray[np.float64]
    chosen: dict[str, Any]


def fit_head(
    rows: TrainingRows,
    spec: HeadSpec | None = None,
    *,
    folds: Sequence[Fold] | None = None,
    views: Sequence[Floats] = (),
    kinds: Sequence[str] = (),
    seed: int = 0,
    device: torch.device | str = "cpu",
    label: str = "fit head",
) -> FittedHead:
    """Fit a head to rows, with whatever its specification leaves open chosen on held-out training rows.

    Parameters
    ----------
    rows
        Encoded and generated rows.
    spec
        What the head is to be.
    folds
        Where the choice is made; by default `inner_folds` of the encoded rows. Whoever generates rows gives
        folds whose rows were drawn from those of the fold alone.
    views, kinds
        Augmented views of the encoded rows, each ``[n, D]``, and their kinds: held out in place of the rows.
    seed
        Of folds, first weights and batches.
    device
        Where heads that are trained in batches compute.
    label
        Of the progress bar.

    Raises
    ------
    InputError
        There is no row to hold out, as every class has a single one, and something to choose.
    """
    spec = spec or HeadSpec()
    chosen: dict[str, Any] = {"chosen_by": NOTHING_OPEN if not spec.trained else GIVEN}
    if spec.ladders():
        if folds is None:
            used = fold_count(rows, spec)
            folds = inner_folds(rows, views=views, kinds=kinds, used=used, seed=seed)
        spec, chosen = choose(spec, folds, seed=seed, device=device, label=label)
    ones = np.ones(len(rows.labels))
    head = make_path(spec, rows, ones, seed, device).fit(spec)
    return FittedHead(head, spec, shift_offset(spec, rows, ones), chosen)


def fold_count(rows: TrainingRows, spec: HeadSpec) -> int:
    """Return how many folds are made: fewer where fits are long."""
    width = rows.num_classes
    if spec.kind == "mlp":
        width = MLP_SHARE * (width + (spec.width or 256))
    elif spec.kind in ("cosine", "wcdas"):
        width *= MLP_SHARE
    work = float(rows.encoded) * rows.dim * width
    return FOLDS if work <= FIVE_FOLDS else 3 if work <= THREE_FOLDS else 1


def make_path(
    spec: HeadSpec,
    rows: TrainingRows,
    weights: npt.NDArray[np.float64],
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> Path:
    """Return what fits heads of a kind to weighted rows."""
    simple: dict[str, Callable[[TrainingRows, npt.NDArray[np.float64]], Path]] = {
        "linear": LinearPath, "discriminant": DiscriminantPath, "ncm": ClassMeanPath,
        "knn": NeighbourPath, "tau-norm": NormalisedPath,
    }  # fmt: skip
    if spec.kind in simple:
        return simple[spec.kind](rows, weights)
    return TrainedPath(rows, weights, seed, device)


def held_logits(
    path: Path, spec: HeadSpec, fold: Fold
) -> Iterator[tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]]:
    """Fit a head to a fold; yield its logits, shifted for classes that count alike, and labels held out.

    Parameters
    ----------
    path
        Of the rows of the fold (`make_path`).
    spec
        The head, with everything settled.
    fold
        The rows.
    """
    head = path.fit(spec, fine=False)
    shift = shift_offset(spec, fold.rows, fold.weights)
    for block in fold.held:
        for part, logits in logit_blocks(head, block[fold.index]):
            yield logits - shift, fold.labels[part]


def choose(
    spec: HeadSpec,
    folds: Sequence[Fold],
    *,
    seed: int = 0,
    device: torch.device | str = "cpu",
    label: str = "choose head",
) -> tuple[HeadSpec, dict[str, Any]]:
    """Return a specification with everything settled on held-out rows, and how (`FittedHead.chosen`)."""
    if not folds:
        raise InputError(
            "head: every class has a single row, so none can be held out to choose weight decay; give it"
        )
    search = _Search(spec, folds, seed, device)
    names = {}
    with progress.bar(len(spec.ladders()), label, "step") as bar:
        settled = spec.start()
        for ladder in spec.ladders():
            settled = search.climb(settled, ladder)
            names[ladder.name] = getattr(settled, ladder.name)
            bar.update(1)
    return settled, {
        "chosen_by": search.words(), **names,
        "held_out": search.figures(settled) | search.sizes(),
        "tried": [{name: getattr(one, name) for name in names} | search.figures(one) for one in search.tried],
    }  # fmt: skip


class _Search:
    """Measures specifications on the held-out rows of folds."""

    def __init__(self, spec: HeadSpec, folds: Sequence[Fold], seed: int, device: torch.device | str) -> None:
        self.folds = folds
        self.classes = folds[0].rows.num_classes
        self.paths = [make_path(spec, fold.rows, fold.weights, seed, device) for fold in folds]
        self.held = HeldOut(self.classes)
        self.tried: list[HeadSpec] = []
        for fold in folds:
            for _ in fold.held:
                self.held.add_labels(fold.labels)

    def climb(self, start: HeadSpec, ladder: Ladder) -> HeadSpec:
        """Return `start` with the best value of a ladder."""
        rungs = [start.at(**{ladder.name: value}) for value in ladder.rungs]
        first, last = ladder.first, ladder.last
        while True:
            window = rungs[first:last]
            for one in window:
                self._measure(one)
            best = rungs.index(self.held.best(window))
            if best == first and first > 0:
                first -= 1
            elif best == last - 1 and last < len(rungs):
                last += 1
            else:
                return rungs[best]

    def _measure(self, spec: HeadSpec) -> None:
        if spec in self.held:
            return
        self.tried.append(spec)
        for fold, path in zip(self.folds, self.paths, strict=True):
            for logits, labels in held_logits(path, spec, fold):
                self.held.add(spec, logits, labels)

    def figures(self, spec: HeadSpec) -> dict[str, float]:
        """Return what was measured of a specification."""
        accuracy, loss = self.held.accuracy(spec), self.held.log_loss(spec)
        return {"balanced_accuracy": round(100 * accuracy, 4), "log_loss": round(loss, 6)}

    def sizes(self) -> dict[str, int]:
        """Return how much was held out."""
        labels = np.concatenate(self.held.labels)
        return {"rows": len(labels), "classes_without": self.classes - len(np.unique(labels))}

    def words(self) -> str:
        """Return how the choice was made, in words."""
        count = len(self.folds)
        return f"held-out training rows ({count} inner fold{'s' if count > 1 else ''})"
