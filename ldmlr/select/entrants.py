"""What a contest of heads is between: heads by themselves, and heads on the rows of generators.

The order is that of the effort, cheap ones first. Every entrant leaves to the held-out rows what can be
chosen there: weight decay, shrinkage, neighbours, the strength of the adjustment, and for rows that are
generated how far classes are filled up. Generated rows are corrected like real ones: the head is trained
with balanced softmax by the counts after filling, so no class has to be filled up to the largest. Imports no
torch.
"""

from __future__ import annotations

import dataclasses

from ldmlr.generation.generators.catalogue import GENERATORS
from ldmlr.heads.spec import HeadSpec

# Classes are filled up to these shares of the largest.
FILLS = (0.1, 0.3, 1.0)


@dataclasses.dataclass(frozen=True)
class Entrant:
    """A way to a head.

    Parameters
    ----------
    name
        As in tables.
    said
        In words, for a sentence.
    spec
        The head; what it leaves open is chosen on held-out rows.
    generator
        What generates rows for it; None: nothing does.
    plain
        The generator is drawn from without widening and guidance, whatever the features.
    views
        It is trained on the augmented views too, and has no meaning without them.
    """

    name: str
    said: str
    spec: HeadSpec
    generator: str | None = None
    plain: bool = False
    views: bool = False

    @property
    def needs_views(self) -> bool:
        """Whether it has no meaning without augmented views."""
        return self.views or (self.generator is not None and GENERATORS[self.generator].needs_views)


BALANCED = HeadSpec("linear", "balanced-softmax")
HEADS = (
    Entrant("ncm", "the nearest class mean", HeadSpec("ncm")),
    Entrant("discriminant", "a shared-covariance discriminant", HeadSpec("discriminant")),
    Entrant("softmax", "logistic regression with label shift", HeadSpec("linear", "cross-entropy")),
    Entrant("balanced-softmax", "a tuned balanced softmax", BALANCED),
    Entrant("logit-adjustment", "tuned logit adjustment", HeadSpec("linear", "logit-adjustment", tau=None)),
    Entrant("class-weights", "logistic regression with class weights", HeadSpec("linear", "class-weights")),
    Entrant("tau-norm", "tau-normalisation", HeadSpec("tau-norm", tau=None)),
    Entrant("knn", "nearest neighbours", HeadSpec("knn")),
    Entrant("balanced-softmax-views", "a tuned balanced softmax on rows and views", BALANCED, views=True),
    Entrant("mlp", "a two-layer head with balanced softmax", HeadSpec("mlp", "balanced-softmax")),
    Entrant("cosine", "a tuned cosine head with balanced softmax", HeadSpec("cosine", "balanced-softmax")),
)
WEIGHTED = HeadSpec("linear", "class-weights")
# cRT is a plain head on draws in which all classes are alike: solved to convergence, that of class weights.
# Beside that one it is another name, and no entrant of a contest unless it is asked for.
RETRAINED = (
    Entrant("crt", "class-balanced re-training", WEIGHTED),
    Entrant("crt-views", "class-balanced re-training on rows and views", WEIGHTED, views=True),
)
MADE = (
    Entrant("oversampling", "over-sampling", BALANCED, "oversampling"),
    Entrant("views", "augmented views", BALANCED, "views"),
    Entrant("smote", "SMOTE", BALANCED, "smote"),
    Entrant("smote-views", "SMOTE between rows and views", BALANCED, "smote-views"),
    Entrant("adasyn", "ADASYN", BALANCED, "adasyn"),
    Entrant("adasyn-views", "ADASYN between rows and views", BALANCED, "adasyn-views"),
    Entrant("gaussian", "class Gaussians", BALANCED, "gaussian"),
    Entrant("gaussian-wide", "widened class Gaussians", BALANCED, "gaussian-wide"),
    Entrant(
        "gaussian-borrowed", "class Gaussians that borrow from large classes", BALANCED, "gaussian-borrowed"
    ),
    Entrant("ldmlr-plain", "LDMLR drawn plainly", BALANCED, "diffusion", plain=True),
    Entrant("ldmlr", "LDMLR", BALANCED, "diffusion"),
)
ENTRANTS = {entrant.name: entrant for entrant in (*HEADS, *RETRAINED, *MADE)}
