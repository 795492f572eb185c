"""Configuration of a generation; imports no torch, so that the command line answers at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Self

from ldmlr.classes import Key, row_table, saved_table
from ldmlr.config import Config, option
from ldmlr.errors import UsageError, nearest, opt
from ldmlr.sampler.config import DTYPES, SampleConfig

GATES = ("none", "prototype", "head")
GATE_CONFIDENCE = 0.1
# Strategies that fill up to a number of rows, the last three the classes of a shot group; and all.
BALANCING = (
    "balance", "auto", "not majority", "not minority", "minority", "all", "many", "medium", "few",
)  # fmt: skip
STRATEGIES = (*BALANCING, "ratio")


def strategy_of(word: str | float) -> str | float:
    """Return a strategy as it is meant: one of `STRATEGIES`, or a number.

    Raises
    ------
    UsageError
        Another word; the nearest is named.
    """
    if word in STRATEGIES:
        return word
    try:
        return float(word)
    except ValueError:
        hint = nearest(str(word), STRATEGIES)
        raise UsageError(
            f"{opt('strategy')}: unknown value {word!r}; {hint} (or a number, for two classes)"
        ) from None


@dataclasses.dataclass(frozen=True)
class PlanConfig(Config):
    """How many rows of which class are generated."""

    strategy: str | float = option(
        "balance",
        "Which classes get how many rows: balance (the same: auto, all, not majority), ratio, many, medium, "
        "few, minority, not minority, or a number (two classes).",
        metavar="WORD",
    )
    target: int | None = option(
        None, "Fill up to this many rows.  [default: the largest class]", minimum=1, metavar="ROWS"
    )
    ratio: float = option(0.2, "Fraction of a class's own rows that strategy ratio adds.", minimum=0)
    minimum: int = option(1, "Fewest rows that strategy ratio adds to a class.", minimum=0)
    only: tuple[str, ...] = option(
        (), "Fill only classes of this shot group; may be repeated.", metavar="GROUP"
    )
    groups: str = option(
        "100,20", "Shot groups: many above, few below so many training rows; paper: fixed class ranges.",
        metavar="MANY,FEW|paper",
    )  # fmt: skip
    count: Mapping[Key, int] = option(
        {},
        "Rows to generate of one class, instead of a strategy; may be repeated.",
        metavar="CLASS=ROWS",
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "count", row_table(self.count))
        super().__post_init__()
        strategy_of(self.strategy)

    def to_dict(self) -> dict[str, Any]:
        """Return the values as plain data that JSON and TOML can hold."""
        return {**super().to_dict(), "count": saved_table(self.count)}


@dataclasses.dataclass(frozen=True)
class EncoderConfig(Config):
    """What is known of the encoder: settings that are not given follow from it."""

    encoder_trained_on_rows: bool | None = option(
        None,
        "Whether the encoder has seen the training rows: what is not given then follows the recipe, else "
        "nothing is widened, guided or mixed.  [default: as the store says or shows]",
        off="foreign-encoder",
    )


@dataclasses.dataclass(frozen=True)
class GenerateConfig(SampleConfig, PlanConfig):
    """A whole generation: which rows, how they are drawn and how they are kept."""

    gate: str = option(
        "none",
        "Draw rows again that look like another class: prototype, another class mean is nearer; head, the "
        "baseline's head gives their class too little.",
        choices=GATES,
    )
    gate_confidence: float = option(
        GATE_CONFIDENCE, "Smallest probability of its own class that --gate head accepts.",
        minimum=0.001, maximum=0.999,
    )  # fmt: skip
    dtype: str = option("float32", "How the rows are kept.", choices=DTYPES)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.gate_confidence != GATE_CONFIDENCE and self.gate != "head":
            raise UsageError(
                f"{opt('gate_confidence')}: only {opt('gate', 'head')} uses it, not {self.gate}; leave it out"
            )

    def for_features(self, trained_on_rows: bool) -> Self:
        """Return it for a diffusion model of rows that the encoder has seen, or has not.

        Widening and guidance that are not given stay open in the first case: they are the recipe's.
        """
        if trained_on_rows:
            return self
        return self.replace(
            scale=1.0 if self.scale is None else self.scale,
            guidance=1.0 if self.guidance is None else self.guidance,
        )

    def changed(self, values: Mapping[str, Any]) -> Self:
        """Return the configuration with values replaced; one without the gate `head` drops its threshold."""
        gate = values.get("gate", self.gate)
        dropped = {} if gate == "head" else {"gate_confidence": GATE_CONFIDENCE}
        return self.from_mapping({**self.to_dict(), **dropped, **values})
