"""What a head is to be: its kind, its loss, and what is left to be chosen on held-out rows.

Imports no torch, so that configurations and the command line can use it.

Weight decay of a linear head is that of its loss on standardised features (mean 0, variance 1 per dimension):
``mean loss + weight_decay / 2 |W|^2``, biases free. scikit-learn's C is ``1 / (rows * weight_decay)``. Other
heads are trained by AdamW, whose decay is decoupled: shrinking by ``rate * weight_decay`` in every step.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from ldmlr.errors import UsageError, nearest, opt
from ldmlr.heads.config import LOSSES, TUNED_HEADS

# Beside heads that are trained there are some that are written down from class statistics or rows.
STATISTICAL_KINDS = ("discriminant", "ncm", "knn", "tau-norm")
KINDS = (*TUNED_HEADS, *STATISTICAL_KINDS)


@dataclasses.dataclass(frozen=True)
class Ladder:
    """Values of one hyper-parameter, in order, of which a window is tried first.

    Where the best of the window is at its edge, the next rung is tried, to the end of the ladder.

    Parameters
    ----------
    name
        The field of `HeadSpec`.
    rungs
        All values.
    first, last
        The window: numbers of its first rung and of the rung after its last.
    """

    name: str
    rungs: tuple[float, ...]
    first: int
    last: int


# From strong to weak, so that each solution starts from a smoother one.
LINEAR_DECAY = Ladder(
    "weight_decay", (30, 10, 3, 1, 0.3, 0.1, 0.03, 0.01, 3e-3, 1e-3, 3e-4, 1e-4, 1e-5), 4, 9
)
MLP_DECAY = Ladder("weight_decay", (20, 12, 6, 3, 1, 0.3, 0.1, 0.03, 0.01), 2, 5)
ANGULAR_DECAY = Ladder("weight_decay", (10, 3, 1, 0.3, 0.1, 0.03, 0.0), 2, 5)
TAU = Ladder("tau", (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0), 3, 6)
WIDTH = Ladder("width", (64, 128, 256, 512, 1024), 1, 4)
DROPOUT = Ladder("dropout", (0.0, 0.25, 0.5, 0.75), 1, 4)
SHRINKAGE = Ladder(
    "shrinkage", (1.0, 0.9, 0.75, 0.6, 0.45, 0.3, 0.2, 0.1, 0.05, 0.02, 0.01, 1e-3, 1e-4), 1, 10
)
NEIGHBOURS = Ladder("neighbours", (1, 2, 3, 5, 8, 12, 20, 30, 50, 100), 0, 7)
NORM_TAU = Ladder("tau", tuple(round(0.1 * step, 1) for step in range(31)), 0, 21)


@dataclasses.dataclass(frozen=True)
class HeadSpec:
    """A head to be fitted; what is None is chosen on held-out rows (`ldmlr.heads.fit.fit_head`).

    Parameters
    ----------
    kind
        ``linear``, ``cosine``, ``wcdas``, ``mlp`` (two layers), ``discriminant`` (shared covariance, uniform
        prior), ``ncm`` (nearest class mean), ``knn`` or ``tau-norm`` (class weights of a plain linear head
        over ``norm^tau``).
    loss
        Of heads that are trained: ``cross-entropy``, ``balanced-softmax``, ``logit-adjustment`` (by `tau`) or
        ``class-weights`` (``1 / n_c``; class-balanced re-training, cRT, in the limit of many draws).
    weight_decay
        Of heads that are trained.
    tau
        Strength of the logit adjustment or tau-normalisation; for a cross-entropy head, of the label shift it
        is judged with.
    width, dropout
        Of the hidden layer of ``mlp``.
    shrinkage
        Of the discriminant's covariance towards a multiple of the identity, from 0 to 1.
    neighbours
        Of ``knn``, whose votes count ``1 / n_c`` each.
    """

    kind: str = "linear"
    loss: str = "balanced-softmax"
    weight_decay: float | None = None
    tau: float | None = 1.0
    width: int | None = 256
    dropout: float | None = 0.5
    shrinkage: float | None = None
    neighbours: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UsageError(f"{opt('head')}: unknown value {self.kind!r}; {nearest(self.kind, KINDS)}")
        if self.loss not in LOSSES:
            raise UsageError(f"{opt('loss')}: unknown value {self.loss!r}; {nearest(self.loss, LOSSES)}")

    @property
    def trained(self) -> bool:
        """Whether it is fitted by minimising a loss."""
        return self.kind in TUNED_HEADS

    def ladders(self) -> tuple[Ladder, ...]:
        """Return the ladders of what is left to be chosen, in the order in which it is chosen.

        Later ones are climbed with the earlier ones at their best.
        """
        found: list[Ladder] = []
        if self.trained and self.weight_decay is None:
            found.append({"linear": LINEAR_DECAY, "mlp": MLP_DECAY}.get(self.kind, ANGULAR_DECAY))
        if self.kind == "tau-norm":
            found += [LINEAR_DECAY] if self.weight_decay is None else []
            found += [NORM_TAU] if self.tau is None else []
        elif self.trained and self.tau is None and self.loss in ("cross-entropy", "logit-adjustment"):
            found.append(TAU)
        if self.kind == "mlp":
            found += [WIDTH] if self.width is None else []
            found += [DROPOUT] if self.dropout is None else []
        if self.kind == "discriminant" and self.shrinkage is None:
            found.append(SHRINKAGE)
        if self.kind == "knn" and self.neighbours is None:
            found.append(NEIGHBOURS)
        return tuple(found)

    def start(self) -> HeadSpec:
        """Return it with a first value for whatever is to be chosen."""
        first = {ladder.name: ladder.rungs[(ladder.first + ladder.last) // 2] for ladder in self.ladders()}
        return self.at(**first)

    def at(self, **values: float) -> HeadSpec:
        """Return it with values of hyper-parameters."""
        whole = ("width", "neighbours")
        typed: dict[str, Any] = {
            name: int(value) if name in whole else value for name, value in values.items()
        }
        return dataclasses.replace(self, **typed)
