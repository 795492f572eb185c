"""The one-standard-error rule: noise on a few held-out rows does not choose.

The candidate with the best class-balanced accuracy sets the mark. Every candidate that falls short of it by
at most one standard error of their difference is as good as far as the rows can tell, and the one among
them that changes fewest settings of the run is taken (ties: the more accurate one). So a setting is changed
only where the held-out rows show a reason (Breiman et al., Classification and Regression Trees, 1984).

The difference is paired, sum_i w_i d_i: d_i is how much more often over the seeds row i is right, and
w_i = 1 / (classes x rows of the class). Its variance is sum_i (w_i d_i)^2, that of flipping the sign of every
d_i at random, as it would be if the two candidates were as good. It needs no estimate within a class, where
there may be one row; and one row alone never decides, however much it weighs, for its difference is one
standard error.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]

RULE = (
    "one standard error: of the candidates within one standard error (paired, class-balanced) of the best, "
    "the one that changes fewest settings"
)


@dataclasses.dataclass(frozen=True)
class Scores:
    """Right and wrong answers of one candidate on the held-out rows.

    Attributes
    ----------
    right
        Per seed, bool ``[M]``.
    labels
        Per seed, the classes ``[M]``.
    draws
        Per seed, which set of held-out rows it was: seeds of one set share its rows.
    """

    right: tuple[npt.NDArray[np.bool_], ...]
    labels: tuple[Labels, ...]
    draws: tuple[str, ...]

    def values(self) -> list[float]:
        """Return the class-balanced accuracy of every seed, per cent."""
        return [
            100 * float(_weights(labels) @ right)
            for right, labels in zip(self.right, self.labels, strict=True)
        ]

    @property
    def mean(self) -> float:
        """Class-balanced accuracy, per cent, over the seeds."""
        return float(np.mean(self.values()))

    @property
    def of_rows(self) -> float:
        """Share of rows that are right, per cent, over the seeds: frequent classes weigh most in it."""
        return 100 * float(np.mean([right.mean() for right in self.right]))


def difference(one: Scores, other: Scores) -> tuple[float, float]:
    """Return how much better `one` is than `other`, and its standard error, in per cent."""
    gaps, variances, parts = [], [], []
    for draw in dict.fromkeys(one.draws):
        seeds = [at for at, name in enumerate(one.draws) if name == draw]
        delta = np.mean([one.right[at].astype(float) - other.right[at] for at in seeds], axis=0)
        weight = _weights(one.labels[seeds[0]])
        gap = float(weight @ delta)
        gaps.append(gap)
        variances.append(float(np.square(weight * delta).sum()))
        parts.append(len(seeds))
    share = np.array(parts) / sum(parts)
    return 100 * float(share @ gaps), 100 * float(np.sqrt(np.square(share) @ variances))


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What the rule says.

    Attributes
    ----------
    chosen, best
        Positions of the chosen and of the most accurate candidate.
    shortfall, error
        Per candidate, how far it lies below the best, and the standard error of that, in per cent.
    """

    chosen: int
    best: int
    shortfall: tuple[float, ...]
    error: tuple[float, ...]

    def within(self, at: int) -> bool:
        """Tell whether a candidate lies within one standard error of the best."""
        return self.shortfall[at] <= self.error[at] + 1e-9


def choose(candidates: Sequence[Scores], changes: Sequence[int]) -> Verdict:
    """Apply the rule.

    Parameters
    ----------
    candidates
        At least one.
    changes
        How many settings of the run each candidate changes.
    """
    means = [candidate.mean for candidate in candidates]
    best = min(range(len(means)), key=lambda at: (-means[at], changes[at], at))
    pairs = [difference(candidates[best], candidate) for candidate in candidates]
    verdict = Verdict(best, best, tuple(gap for gap, _ in pairs), tuple(error for _, error in pairs))
    eligible = [at for at in range(len(means)) if verdict.within(at)]
    chosen = min(eligible, key=lambda at: (changes[at], -means[at], at))
    return dataclasses.replace(verdict, chosen=chosen)


def _weights(labels: Labels) -> Floats:
    """Return the weight of each row in the class-balanced accuracy, ``[M]``; they sum to one."""
    rows = np.bincount(labels)
    weights: Floats = 1.0 / (np.count_nonzero(rows) * rows[labels])
    return weights
