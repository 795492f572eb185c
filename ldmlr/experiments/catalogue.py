"""The methods of a comparison: names, families and what they do; imports no torch.

The order is that of the table. A name that ends in ``-views`` takes the augmented views of the store as
further rows; its namesake sees the clean rows only.
"""

from __future__ import annotations

import dataclasses

from ldmlr.config import Config, option
from ldmlr.errors import UsageError, nearest, opt

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
    shifted
        It has a row with label shift. Nearest class mean and tau-normalisation have none: they know no
        class frequencies, or have taken them out already.
    resamples
        It looks for neighbours, for which scikit-learn is imported.
    """

    family: str
    what: str
    needs_views: bool = False
    shifted: bool = True
    resamples: bool = False


METHODS: dict[str, Entry] = {
    "baseline": Entry(BASELINE, "the store's own head"),
    "balanced-softmax": Entry(NO_GENERATION, "fine-tuned with balanced softmax"),
    "balanced-softmax-views": Entry(
        NO_GENERATION, "the same on clean rows and augmented views", needs_views=True
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
    "random-oversampling": Entry(COPIES, "clean rows, repeated"),
    "duplicated-views": Entry(COPIES, "augmented views, repeated", needs_views=True),
    "smote": Entry(INTERPOLATION, "SMOTE between clean rows", resamples=True),
    "smote-views": Entry(
        INTERPOLATION, "SMOTE between clean rows and augmented views", needs_views=True, resamples=True
    ),
    "adasyn": Entry(INTERPOLATION, "ADASYN between clean rows", resamples=True),
    "adasyn-views": Entry(
        INTERPOLATION, "ADASYN between clean rows and augmented views", needs_views=True, resamples=True
    ),
    "gaussian": Entry(GAUSSIAN, "class Gaussians, covariance shrunk by n/(n+64)"),
    "gaussian-wide": Entry(GAUSSIAN, "the same, widened as LDMLR's rows are"),
    "ldmlr-paper": Entry(DIFFUSION, "the paper's setting: clean rows, a fifth of each class, no mix"),
    "ldmlr-plain": Entry(DIFFUSION, "balanced, but no widening, no guidance, no mix"),
    "ldmlr": Entry(DIFFUSION, "the recipe"),
}


@dataclasses.dataclass(frozen=True)
class CompareConfig(Config):
    """What is compared."""

    methods: tuple[str, ...] = option(
        (), "Compare only these (NAME or NAME,NAME); may be repeated.  [default: all the store allows]",
        metavar="NAME",
    )  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        names = [name.strip() for entry in self.methods for name in entry.split(",")]
        for name in names:
            if name not in METHODS:
                raise UsageError(f"{opt('methods')}: unknown value {name!r}; {nearest(name, METHODS)}")
        # The table keeps its order, whatever the order they are named in.
        object.__setattr__(self, "methods", tuple(name for name in METHODS if name in names))
