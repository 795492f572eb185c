"""Configuration of stage 3; imports no torch, so that the command line answers at once."""

from __future__ import annotations

import dataclasses
from typing import Any, Self

from ldmlr.config import Config, option
from ldmlr.errors import UsageError, opt

HEADS = ("linear", "cosine", "wcdas")
AS_BASELINE = "auto"
INITS = ("stored", "fresh")
# Share of itself that a generated row keeps at least, for rows that the encoder has seen.
MIX = 0.5
# How the frequencies of classes are dealt with in training.
LOSSES = ("cross-entropy", "balanced-softmax", "logit-adjustment", "class-weights")
# Heads of stage 3; an encoder trains with the first three.
TUNED_HEADS = (*HEADS, "mlp")
# How a head is fitted: so many passes from the baseline's head, or to its best from nothing.
AUTO, RECIPE, TUNED = "auto", "recipe", "tuned"
# What only passes from the baseline's head use.
OF_THE_RECIPE = (
    "init", "epochs", "batch_size", "lr", "tau_shift", "norm_limit", "monotone_norms", "precision",
)  # fmt: skip
PRECISIONS = ("auto", "float32", "bfloat16")


@dataclasses.dataclass(frozen=True)
class FinetuneConfig(Config):
    """How the head is fine-tuned on encoded and generated rows."""

    head: str = option(
        AS_BASELINE, "Kind of head; auto is that of the baseline's head.", choices=(AS_BASELINE, *TUNED_HEADS)
    )
    fit: str = option(
        AUTO,
        "recipe: passes from the baseline's head; tuned: fitted anew, what is not given chosen on held-out "
        "training rows; auto: tuned for mlp, and where the encoder has not seen the rows and no option of "
        "the recipe is given.",
        choices=(AUTO, RECIPE, TUNED),
    )
    init: str = option("stored", "Start from the baseline's head, or from random weights.", choices=INITS)
    loss: str = option(
        AUTO,
        "Training loss; its prior is that of all rows. auto: cross-entropy in the recipe, balanced-softmax "
        "if tuned.",
        choices=(AUTO, *LOSSES),
    )
    tau: float = option(1.0, "Strength of --loss logit-adjustment.", minimum=0)
    epochs: int = option(12, "Passes over encoded and generated rows.", minimum=1)
    batch_size: int = option(
        1024, "Rows per step, at most; a small set gets smaller batches.", minimum=1, formerly="batch"
    )
    lr: float = option(1e-3, "Learning rate of Adam, falling to zero along a cosine.", above=0)
    weight_decay: float | None = option(
        None,
        "Weight decay: of the loss on standardised features for a tuned linear head, else decoupled.  "
        "[default: 0 in the recipe, else chosen on held-out training rows]",
        minimum=0, metavar="FLOAT",
    )  # fmt: skip
    width: int | None = option(
        None, "Hidden numbers of an mlp.  [default: chosen on held-out training rows]",
        minimum=1, maximum=65536, metavar="INTEGER",
    )  # fmt: skip
    dropout: float | None = option(
        None,
        "Share of hidden numbers that an mlp drops in training.  [default: chosen on held-out training rows]",
        minimum=0, maximum=0.95, metavar="FLOAT",
    )  # fmt: skip
    mix: float | None = option(
        None,
        "Head-mix: a generated row keeps at least this share, the rest is a random encoded row; 1: no mix.  "
        "[default: 0.5 for rows that the encoder has seen, else 1]",
        minimum=0, maximum=1, metavar="FLOAT",
    )  # fmt: skip
    average: float = option(
        0.5, "Share of the baseline's head in the label-shift row; the rest is the new head.",
        minimum=0, maximum=1,
    )  # fmt: skip
    tau_shift: float = option(0.75, "Label shift of the new head: logits - tau * log prior.", minimum=0)
    norm_limit: float = option(
        0.0,
        "Bound on the norm of each class's weights in a linear head, in units of the mean over classes, kept "
        "after every step; 0 is off.",
        minimum=0,
    )
    monotone_norms: bool = option(
        False,
        "Keep the weights of a class in a linear head at least as long as those of classes with more rows, "
        "after every step (isotonic regression).",
    )
    precision: str = option(
        "auto",
        "Type of the products of passes of a linear head over many classes on a CPU: float32, or bfloat16 "
        "with float32 sums and weights.",
        choices=PRECISIONS,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if 0 < self.norm_limit < 1:
            raise UsageError(
                f"{opt('norm_limit')}: must be 0 or at least 1 (the mean), not {self.norm_limit!r}"
            )
        for name in ("width", "dropout"):
            if getattr(self, name) is not None and self.head != "mlp":
                raise UsageError(
                    f"{opt(name)}: only {opt('head', 'mlp')} has it, not {self.head}; leave it out"
                )
        if self.fit == RECIPE and self.head == "mlp":
            raise UsageError(
                f"{opt('fit', RECIPE)}: starts from the baseline's head, which an mlp cannot; leave it out"
            )
        if self.fit == TUNED and (given := self.of_the_recipe()):
            raise UsageError(f"{opt(given[0])}: only {opt('fit', RECIPE)} uses it, not {TUNED}; leave it out")
        for name in ("norm_limit", "monotone_norms"):
            if getattr(self, name) and self.head not in (AS_BASELINE, "linear"):
                raise UsageError(
                    f"{opt(name)}: only the direction of the weights of a {self.head} head counts; "
                    "leave it out"
                )
        if self.precision == "bfloat16" and (
            self.head not in (AS_BASELINE, "linear") or self.loss == "class-weights"
        ):
            raise UsageError(
                f"{opt('precision', 'bfloat16')}: only a linear head under a loss without class weights "
                "multiplies it; leave it out"
            )
        if self.tau != 1.0 and self.loss != "logit-adjustment":
            raise UsageError(
                f"{opt('tau')}: only {opt('loss', 'logit-adjustment')} uses it, not {self.loss}; leave it out"
            )

    def settled(self, kind: str) -> Self:
        """Return the configuration with everything settled but what is chosen on held-out rows.

        Heads are fitted by the recipe unless it says otherwise (`fitted`), and rows are mixed as those that
        the encoder has seen (`for_features`).

        Parameters
        ----------
        kind
            That of the baseline's head.
        """
        found = self.for_features(True)
        head = kind if self.head == AS_BASELINE else self.head
        fit = found.fitted(True).fit
        changes: dict[str, Any] = {"head": head, "fit": fit}
        if self.loss == AUTO:
            changes["loss"] = "cross-entropy" if fit == RECIPE else "balanced-softmax"
        if fit == RECIPE and self.weight_decay is None:
            changes["weight_decay"] = 0.0
        return found.replace(**changes)

    def of_the_recipe(self) -> list[str]:
        """Return the options given that only the recipe uses."""
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        return [name for name in OF_THE_RECIPE if getattr(self, name) != defaults[name]]

    def fitted(self, recipe: bool) -> Self:
        """Return it with the way of fitting settled.

        Parameters
        ----------
        recipe
            Whether heads are fitted by the recipe where nothing is said.
        """
        if self.fit != AUTO:
            return self
        tuned = self.head == "mlp" or not (recipe or self.of_the_recipe())
        return self.replace(fit=TUNED if tuned else RECIPE)

    def for_features(self, trained_on_rows: bool) -> Self:
        """Return it for rows that the encoder has seen, or has not."""
        return self if self.mix is not None else self.replace(mix=MIX if trained_on_rows else 1.0)
