"""A contest of heads on held-out rows: every one at its best, the test split out of sight.

Heads without generation come first: they take seconds. The best of them is the mark. A generator is tried on
one fold to begin with; if it is behind the mark there by two standard errors, it cannot win and is left.
Otherwise its filling and weight decay are chosen like everything else. In the end generated rows are taken
only where they are ahead of the mark by one standard error: they cost more, and what ties gains nothing.

All classes count alike, as on a balanced test set: accuracies are means over classes, and differences are
paired row by row (`ldmlr.select.rule`).
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ldmlr import progress
from ldmlr.device import resolve_device
from ldmlr.generation.config import GenerateConfig
from ldmlr.generation.generators.base import Generator
from ldmlr.generation.train_rows import TrainRows
from ldmlr.heads.fit import choose, fit_head, fold_count, held_logits, make_path
from ldmlr.heads.folds import Fold
from ldmlr.heads.modules import Head
from ldmlr.heads.spec import HeadSpec
from ldmlr.heads.training_rows import TrainingRows
from ldmlr.select.entrants import BALANCED, ENTRANTS, FILLS, Entrant
from ldmlr.select.inner import Filling, Held
from ldmlr.select.rule import Scores, difference

# A generator that is behind by so many standard errors on one fold is not tried further.
HOPELESS = 2.0
# The filling that a generator is tried with first.
FIRST_FILL = 0.3
NO_SHIFT = 1e-12


@dataclasses.dataclass(frozen=True)
class Trial:
    """What an entrant did on the held-out rows.

    Parameters
    ----------
    entrant
        Which.
    spec
        Its head, with everything settled.
    fill
        Share of the largest class that classes were filled up to; None without generation.
    scores
        What was right, fold after fold.
    seconds
        What it took.
    finished
        It was measured on all folds; else it was left as it cannot win.
    """

    entrant: Entrant
    spec: HeadSpec
    fill: float | None
    scores: Scores
    seconds: float
    finished: bool = True

    @property
    def accuracy(self) -> float:
        """Mean over classes of the accuracy on held-out rows, per cent."""
        return self.scores.mean

    def chosen(self) -> dict[str, Any]:
        """Return the values that were left to the held-out rows."""
        open_ = dataclasses.replace(self.entrant.spec, kind=self.spec.kind)
        names = [ladder.name for ladder in open_.ladders()]
        fill = {} if self.fill is None else {"fill": self.fill}
        return {**fill, **{name: getattr(self.spec, name) for name in names}}

    def document(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {
            "method": self.entrant.name, "held_out": round(self.accuracy, 3), "chosen": self.chosen(),
            "rows": len(self.scores.labels[0]), "finished": self.finished,
            "seconds": round(self.seconds, 2),
        }  # fmt: skip


class Contest:
    """Entrants on the same held-out rows.

    Parameters
    ----------
    held
        What is held out.
    fit
        From the name of a generator, its settings and rows to a fitted generator.
    drawing
        How rows are drawn.
    kind
        Of the heads that are linear in the table of entrants: ``linear``, ``cosine``, ``wcdas`` or ``mlp``.
    fills
        Shares of the largest class that generators fill up to; None: `drawing` has a plan of its own.
    seed
        Of drawn rows, first weights and batches.
    device
        Where to compute.
    """

    def __init__(
        self,
        held: Held,
        fit: Callable[[str, GenerateConfig, TrainRows], Generator],
        drawing: GenerateConfig,
        *,
        kind: str = "linear",
        fills: Sequence[float] | None = FILLS,
        seed: int = 0,
        device: str = "auto",
    ) -> None:
        self.held, self.seed, self.drawing, self.kind = held, seed, drawing, kind
        self.fills: tuple[float | None, ...] = (None,) if fills is None else tuple(fills)
        self.device = resolve_device(device)
        self._fit = fit
        self._fillings: dict[tuple[str, bool], Filling] = {}
        self.trials: dict[str, Trial] = {}

    def enter(self, names: Sequence[str], *, may_stop: bool = True) -> None:
        """Let entrants of these names try, in the order of their effort.

        Parameters
        ----------
        names
            Of `ENTRANTS`; what needs views that are not there is left out.
        may_stop
            Leave generators that cannot win.
        """
        wanted = [one for one in ENTRANTS.values() if one.name in names and one.name not in self.trials]
        if not self.held.rows.views:
            wanted = [one for one in wanted if not one.needs_views]
        with progress.bar(len(wanted), "choose", "method") as bar:
            for one in wanted:
                bar.set_postfix_str(one.name)
                mark = self.mark
                if not (may_stop and mark is not None and mark.accuracy >= 100.0):
                    self.trials[one.name] = self._tried(one, mark if may_stop else None)
                bar.update(1)

    @property
    def mark(self) -> Trial | None:
        """The best without generation so far; the earlier of equals."""
        plain = [trial for trial in self.trials.values() if trial.entrant.generator is None]
        return max(plain, key=lambda trial: trial.accuracy) if plain else None

    @property
    def best_made(self) -> Trial | None:
        """The best with generation of those that were measured on all folds."""
        made = [one for one in self.trials.values() if one.entrant.generator is not None and one.finished]
        return max(made, key=lambda trial: trial.accuracy) if made else None

    def winner(self) -> Trial:
        """Return the mark, or what is ahead of it by one standard error."""
        mark, made = self.mark, self.best_made
        if mark is None or made is None:
            found = mark or made
            assert found is not None
            return found
        gap, error = paired(made.scores, mark.scores)
        return made if gap > error else mark

    def headline(self) -> str:
        """Return in one sentence what to use, and by how much it is ahead."""
        won, mark, made = self.winner(), self.mark, self.best_made
        chosen = f"{values(won)}, " if values(won) else ""
        use = f"Use {won.entrant.said} ({chosen}{won.accuracy:.2f} % on {self.held.how})"
        if mark is None or made is None:
            left = [one.entrant.said for one in self.trials.values() if not one.finished]
            nothing = ": generation adds nothing here, all of it was clearly behind" if left else ""
            return f"{use}{nothing}."
        gap, error = paired(made.scores, mark.scores)
        if won is made:
            return (
                f"{use}: generated rows put it ahead of the best without them, {mark.entrant.said} "
                f"({mark.accuracy:.2f} %), by {gap:.2f} points (standard error {error:.2f})."
            )
        return (
            f"{use}: generation adds nothing here, the best with it, {made.entrant.said}, has "
            f"{made.accuracy:.2f} % ({gap:+.2f} points, standard error {error:.2f})."
        ).replace("(-", "(\N{MINUS SIGN}")

    def document(self) -> dict[str, Any]:
        """Return all trials, the choice and how it was made, as plain data."""
        won = self.winner()
        trials = sorted(self.trials.values(), key=lambda one: -one.accuracy)
        return {
            "method": won.entrant.name, "chosen": won.chosen(), "headline": self.headline(),
            "held_out": self.held.how, "trials": [trial.document() for trial in trials],
        }  # fmt: skip

    def head(
        self, trial: Trial, seed: int | None = None
    ) -> tuple[Head, npt.NDArray[np.float64], TrainingRows]:
        """Return the head of a trial fitted to all rows, what its logits have to lose yet, and the rows.

        Parameters
        ----------
        trial
            Of this contest.
        seed
            Of drawn rows, first weights and batches; by default that of the contest.
        """
        number = self.seed if seed is None else seed
        rows = self.rows(trial, number)
        found = fit_head(rows, trial.spec, seed=number, device=self.device)
        return found.head, found.shift, rows

    def rows(self, trial: Trial, seed: int) -> TrainingRows:
        """Return the rows that the head of a trial is fitted to in the end."""
        if trial.entrant.generator is not None:
            return self._filling(trial.entrant).all(trial.fill, seed)
        return self.held.rows.training_rows(trial.entrant.views)

    def _tried(self, entrant: Entrant, mark: Trial | None) -> Trial:
        began = time.perf_counter()
        wanted = self._of_kind(entrant.spec)
        # Heads whose fits are long are measured on fewer folds, the first ones.
        count = min(len(self.held.folds), fold_count(self.held.rows.training_rows(), wanted))
        if entrant.generator is None:
            folds = (self.held.with_views() if entrant.views else self.held.folds)[:count]
            spec, scores = self._settled(wanted, folds)
            return Trial(entrant, spec, None, scores, time.perf_counter() - began)
        twin = self._twin(entrant)
        if twin is not None:
            return dataclasses.replace(twin, entrant=entrant)
        filling = self._filling(entrant)
        # The decay of the same head without generated rows is where the search starts.
        usual = self._usual(wanted, count)
        if mark is not None:
            fill = FIRST_FILL if FIRST_FILL in self.fills else self.fills[0]
            first = self._measured(usual, filling.folds(fill, [0]))
            gap, error = paired(first, mark.scores)
            if gap < -HOPELESS * error:
                return Trial(entrant, usual, fill, first, time.perf_counter() - began, finished=False)
        # Rows are drawn once for every filling, and those of the best one so far are kept.
        best, fill, kept = -1.0, self.fills[0], list[Fold]()
        for share in self.fills:
            drawn = filling.folds(share, range(count))
            mean = self._measured(usual, drawn).mean
            if mean > best:
                best, fill, kept = mean, share, drawn
        spec, scores = self._settled(wanted, kept)
        return Trial(entrant, spec, fill, scores, time.perf_counter() - began)

    def _twin(self, entrant: Entrant) -> Trial | None:
        """Return the trial of the same rows and head under another name.

        Where nothing is to be widened or guided, rows are drawn plainly in any case.
        """
        if self.drawing.as_learned() != self.drawing:
            return None
        plain = dataclasses.replace(entrant, plain=True)
        for trial in self.trials.values():
            own = trial.entrant
            if dataclasses.replace(own, name=plain.name, said=plain.said, plain=True) == plain:
                return trial
        return None

    def _of_kind(self, spec: HeadSpec) -> HeadSpec:
        """Return a specification with the kind of head of the contest in place of a linear one."""
        return dataclasses.replace(spec, kind=self.kind) if spec.kind == "linear" else spec

    def _usual(self, spec: HeadSpec, count: int) -> HeadSpec:
        """Return a specification settled as the same head is on rows alone."""
        for trial in self.trials.values():
            own = trial.entrant
            if own.generator is None and not own.views and self._of_kind(own.spec) == spec:
                return trial.spec
        settled, _ = choose(spec, self.held.folds[:count], seed=self.seed, device=self.device)
        return settled

    def _filling(self, entrant: Entrant) -> Filling:
        assert entrant.generator is not None
        name = entrant.generator
        key = (name, entrant.plain)
        if key not in self._fillings:
            drawing = self.drawing.as_learned() if entrant.plain else self.drawing
            shared = self._fillings.get((name, not entrant.plain))
            self._fillings[key] = (
                Filling(self.held, lambda rows: self._fit(name, drawing, rows), drawing, self.seed)
                if shared is None
                else shared.drawing_as(drawing)
            )
        return self._fillings[key]

    def _settled(self, spec: HeadSpec, folds: Sequence[Fold]) -> tuple[HeadSpec, Scores]:
        """Return a specification with everything chosen, and what it then does."""
        if spec.ladders():
            spec, _ = choose(spec, folds, seed=self.seed, device=self.device)
        return spec, self._measured(spec, folds)

    def _measured(self, spec: HeadSpec, folds: Sequence[Fold]) -> Scores:
        """Return what the heads of a specification have right on the held-out rows of folds."""
        right, labels = [], []
        for fold in folds:
            path = make_path(spec, fold.rows, fold.weights, self.seed, self.device)
            for logits, own in held_logits(path, spec, fold):
                right.append(logits.argmax(axis=1) == own)
                labels.append(own)
        return Scores((np.concatenate(right),), (np.concatenate(labels),), ("held out",))


def contest_folds(rows: TrainRows) -> int:
    """Return how many of five folds a contest makes: fewer where fits are long."""
    return fold_count(rows.training_rows(), BALANCED)


def paired(one: Scores, other: Scores) -> tuple[float, float]:
    """Return how much better one is than another, and its standard error, on the held-out rows of both.

    Where one was measured on fewer folds, these are the first ones.
    """
    count = min(len(one.right[0]), len(other.right[0]))

    def part(scores: Scores) -> Scores:
        return Scores((scores.right[0][:count],), (scores.labels[0][:count],), scores.draws)

    return difference(part(one), part(other))


def values(trial: Trial) -> str:
    """Return what was chosen for a trial, in words."""
    said: Mapping[str, str] = {
        "fill": "classes filled up to {:.0%} of the largest", "weight_decay": "weight decay {:g}",
        "shrinkage": "shrinkage {:g}", "tau": "tau {:g}", "neighbours": "{:g} neighbours",
        "width": "{:g} hidden units", "dropout": "dropout {:g}",
    }  # fmt: skip
    return ", ".join(said[name].format(value) for name, value in trial.chosen().items() if value is not None)
