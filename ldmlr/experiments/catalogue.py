"""The methods of a comparison: names, families and what they do; imports no torch.

The order is that of the table. A name that ends in ``-views`` takes the augmented views of the store as
further rows; its namesake sees the clean rows only.
"""

from __future__ import annotations

import dataclasses

from ldmlr.config import option
from ldmlr.errors import UsageError, nearest, opt
from ldmlr.generation.config import EncoderConfig
from ldmlr.generation.generators.catalogue import GENERATORS
from ldmlr.heads.config import TUNED_HEADS
from ldmlr.store.heldout import HeldOutConfig

BASELINE, NO_GENERATION = "baseline", "no generation"
COPIES, INTERPOLATION = "copies", "interpolation"
GAUSSIAN, DIFFUSION = "Gaussian", "diffusion"


@dataclasses.dataclass(frozen=True)
class Entry:
    """A method before it runs.

    Parameters
    ----------
    family
        What kind of method it is; the verdict compares families.
    what
        One line that says what it does.
    needs_views
        It has no meaning for a store without augmented views.
    optional
        It runs only where it is asked for by name.
    familiar
        Unasked, it runs only where the encoder has seen the training rows.
    shifted
        It has a row with label shift. Nearest class mean and tau-normalisation have none: they know no
        class frequencies, or have taken them out already.
    """

    family: str
    what: str
    needs_views: bool = False
    shifted: bool = True
    optional: bool = False
    familiar: bool = False


def _generator(family: str, name: str) -> Entry:
    """Return the method that fine-tunes on the rows of a generator, and is called as it is."""
    return Entry(family, GENERATORS[name].what, needs_views=GENERATORS[name].needs_views)


METHODS: dict[str, Entry] = {
    "baseline": Entry(BASELINE, "the store's own head"),
    "softmax": Entry(NO_GENERATION, "tuned: a fresh head with cross-entropy"),
    "balanced-softmax": Entry(NO_GENERATION, "tuned: a fresh head with balanced softmax", shifted=False),
    "balanced-softmax-views": Entry(
        NO_GENERATION, "tuned: the same on clean rows and augmented views", needs_views=True, shifted=False
    ),
    "logit-adjustment": Entry(
        NO_GENERATION, "tuned: a fresh head with logit adjustment, its strength too", shifted=False
    ),
    "class-weights": Entry(NO_GENERATION, "tuned: a fresh head with class weights", shifted=False),
    "discriminant": Entry(
        NO_GENERATION, "tuned: shared-covariance discriminant, shrunk, uniform prior", shifted=False
    ),
    "knn": Entry(NO_GENERATION, "tuned: nearest neighbours, votes by class size", shifted=False),
    "mlp": Entry(
        NO_GENERATION, "tuned: two layers with balanced softmax (by name alone)", shifted=False, optional=True
    ),
    "cosine": Entry(
        NO_GENERATION,
        "tuned: a cosine head with balanced softmax (for an encoder of these rows)",
        shifted=False,
        familiar=True,
    ),
    "crt": Entry(NO_GENERATION, "cRT: a fresh head, trained on class-balanced draws"),
    "crt-views": Entry(NO_GENERATION, "the same on clean rows and augmented views", needs_views=True),
    "tau-norm": Entry(NO_GENERATION, "class weights over their norm (tau 1)", shifted=False),
    "tau-norm-views": Entry(
        NO_GENERATION, "class weights over norm^tau, tau from strong views", needs_views=True, shifted=False
    ),
    "ncm": Entry(NO_GENERATION, "nearest class mean", shifted=False),
    "ncm-views": Entry(
        NO_GENERATION, "the same on clean rows and augmented views", needs_views=True, shifted=False
    ),
    "oversampling": _generator(COPIES, "oversampling"),
    "views": _generator(COPIES, "views"),
    "smote": _generator(INTERPOLATION, "smote"),
    "smote-views": _generator(INTERPOLATION, "smote-views"),
    "adasyn": _generator(INTERPOLATION, "adasyn"),
    "adasyn-views": _generator(INTERPOLATION, "adasyn-views"),
    "gaussian": _generator(GAUSSIAN, "gaussian"),
    "gaussian-wide": _generator(GAUSSIAN, "gaussian-wide"),
    "gaussian-borrowed": _generator(GAUSSIAN, "gaussian-borrowed"),
    "ldmlr-paper": Entry(DIFFUSION, "the paper's setting: clean rows, a fifth of each class, no mix"),
    "ldmlr-plain": Entry(DIFFUSION, "balanced, but no widening, no guidance, no mix"),
    "ldmlr": Entry(DIFFUSION, "the recipe"),
}
# Fresh heads with everything chosen on held-out training rows.
TUNED = (
    "softmax", "balanced-softmax", "balanced-softmax-views", "logit-adjustment", "class-weights",
    "discriminant", "knn", "mlp", "cosine",
)  # fmt: skip
# What methods were called before they took the names of the generators.
FORMER = {"random-oversampling": "oversampling", "duplicated-views": "views"}


@dataclasses.dataclass(frozen=True)
class CompareConfig(HeldOutConfig, EncoderConfig):
    """What is compared."""

    head: str = option(
        "auto",
        "Kind of the heads that are trained; auto: linear where a fresh head is tuned, and that of the "
        "baseline where it is fine-tuned.",
        choices=("auto", *TUNED_HEADS),
    )

    methods: tuple[str, ...] = option(
        (), "Compare only these (NAME or NAME,NAME); may be repeated.  [default: all the store allows]",
        metavar="NAME",
    )  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        names = [name.strip() for entry in self.methods for name in entry.split(",")]
        for name in names:
            if name not in METHODS:
                hint = f"it is {FORMER[name]!r} now" if name in FORMER else nearest(name, METHODS)
                raise UsageError(f"{opt('methods')}: unknown value {name!r}; {hint}")
        # The table keeps its order, whatever the order they are named in.
        object.__setattr__(self, "methods", tuple(name for name in METHODS if name in names))
