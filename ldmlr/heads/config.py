"""Configuration of stage 3; imports no torch, so that the command line answers at once."""

from __future__ import annotations

import dataclasses
from typing import Self

from ldmlr.config import Config, option
from ldmlr.errors import UsageError, opt

HEADS = ("linear", "cosine", "wcdas")
AS_BASELINE = "auto"
INITS = ("stored", "fresh")
# Share of itself that a generated row keeps at least, for rows that the encoder has seen.
MIX = 0.5
LOSSES = ("cross-entropy", "balanced-softmax", "logit-adjustment")


@dataclasses.dataclass(frozen=True)
class FinetuneConfig(Config):
    """How the head is fine-tuned on encoded and generated rows."""

    head: str = option(
        AS_BASELINE, "Kind of head; auto is that of the baseline's head.", choices=(AS_BASELINE, *HEADS)
    )
    init: str = option("stored", "Start from the baseline's head, or from random weights.", choices=INITS)
    loss: str = option("cross-entropy", "Training loss; its prior is that of all rows.", choices=LOSSES)
    tau: float = option(1.0, "Strength of --loss logit-adjustment.", minimum=0)
    epochs: int = option(12, "Passes over encoded and generated rows.", minimum=1)
    batch: int = option(1024, "Rows per step, at most; a small set gets smaller batches.", minimum=1)
    lr: float = option(1e-3, "Learning rate of Adam, falling to zero along a cosine.", above=0)
    weight_decay: float = option(0.0, "Decoupled weight decay.", minimum=0)
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

    def __post_init__(self) -> None:
        super().__post_init__()
        if 0 < self.norm_limit < 1:
            raise UsageError(
                f"{opt('norm_limit')}: must be 0 or at least 1 (the mean), not {self.norm_limit!r}"
            )
        if self.norm_limit and self.head not in (AS_BASELINE, "linear"):
            raise UsageError(
                f"{opt('norm_limit')}: only the direction of the weights of a {self.head} head counts; "
                "leave it out"
            )
        if self.tau != 1.0 and self.loss != "logit-adjustment":
            raise UsageError(
                f"{opt('tau')}: only {opt('loss')} logit-adjustment uses it, not {self.loss}; leave it out"
            )

    def settled(self, kind: str, trained_on_rows: bool = True) -> Self:
        """Return the configuration with the kind of head and the mix settled.

        Parameters
        ----------
        kind
            That of the baseline's head.
        trained_on_rows
            Whether the encoder has seen the training rows.
        """
        found = self.for_features(trained_on_rows)
        return found.replace(head=kind) if self.head == AS_BASELINE else found

    def for_features(self, trained_on_rows: bool) -> Self:
        """Return it for rows that the encoder has seen, or has not."""
        return self if self.mix is not None else self.replace(mix=MIX if trained_on_rows else 1.0)
