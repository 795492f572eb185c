"""Configuration of sampling and generation; imports no torch, so that the command line answers at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Self

from ldmlr.config import Config, option
from ldmlr.errors import UsageError, nearest, opt

SOLVERS = ("dpmpp2m", "ddim", "ddpm", "heun")
GATES = ("none", "prototype", "head")
DTYPES = ("float32", "float16", "bfloat16")
WEIGHTS = ("auto", "float32", "bfloat16", "int8")
# Scale and guidance by the model's transform: the recipe, and the paper's plain conditional model.
DEFAULT_SCALE = {"whitened": 1.41, "standardised": 1.0}
DEFAULT_GUIDANCE = {"whitened": 1.5, "standardised": 1.0}
GATE_CONFIDENCE = 0.1
# Strategies that fill up to a number of rows, the last three the classes of a shot group; and all.
BALANCING = (
    "balance", "auto", "not majority", "not minority", "minority", "all", "many", "medium", "few",
)  # fmt: skip
STRATEGIES = (*BALANCING, "ratio")


def class_entries(table: Mapping[Any, Any]) -> tuple[str, ...]:
    """Return ``CLASS=VALUE`` entries of a table by class; a whole number stays one beside names of digits."""
    return tuple(
        f"{name}={value}" if isinstance(name, str) else f"number:{name}={value}"
        for name, value in table.items()
    )


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
    count: tuple[str, ...] = option(
        (),
        "Rows to generate of one class, instead of a strategy; may be repeated.",
        metavar="CLASS=ROWS",
    )

    def __post_init__(self) -> None:
        # A file or a caller may also give a table from class to rows.
        if isinstance(self.count, Mapping):
            object.__setattr__(self, "count", class_entries(self.count))
        super().__post_init__()
        strategy_of(self.strategy)


@dataclasses.dataclass(frozen=True)
class SampleConfig(Config):
    """How rows are drawn from a model. The defaults are the recipe."""

    solver: str = option("dpmpp2m", "Solver.", choices=SOLVERS)
    steps: int = option(10, "Solver steps.", minimum=1, maximum=1_000_000)
    guidance: float | None = option(
        None, "Classifier-free guidance; 1 is off.  [default: 1.5 whitened, 1 standardised]", metavar="FLOAT"
    )
    scale: float | None = option(
        None,
        "Widening of rows around their class mean.  [default: 1.41 whitened, 1 standardised]",
        metavar="FLOAT", above=0,
    )  # fmt: skip
    class_scale: tuple[str, ...] = option(
        (), "Widening of one class, instead of --scale; may be repeated.", metavar="CLASS=FACTOR"
    )
    eta: float = option(0.0, "Share of ancestral noise of ddim.", minimum=0, maximum=1)
    weights: str = option(
        "auto",
        "Arithmetic of the network; auto is bfloat16 where the processor has it, int8 the fastest.",
        choices=WEIGHTS,
    )

    def __post_init__(self) -> None:
        # A file or a caller may also give a table from class to factor.
        if isinstance(self.class_scale, Mapping):
            object.__setattr__(self, "class_scale", class_entries(self.class_scale))
        super().__post_init__()
        if self.eta and self.solver != "ddim":
            raise UsageError(
                f"{opt('eta')}: only ddim has it; drop it or use {opt('solver')} ddim instead of "
                f"{self.solver}"
            )

    def resolved(self, transform: str, *, unconditional: bool = True) -> Self:
        """Return the configuration with the values left open set for a model.

        Parameters
        ----------
        transform
            The model's transform.
        unconditional
            Whether it learned rows without a class, which guidance leads away from (label dropout above 0).

        Raises
        ------
        UsageError
            Guidance is asked for and the model cannot give it.
        """
        scale = DEFAULT_SCALE[transform] if self.scale is None else self.scale
        usual = DEFAULT_GUIDANCE[transform] if unconditional else 1.0
        guidance = usual if self.guidance is None else self.guidance
        if guidance != 1 and not unconditional:
            raise UsageError(
                f"{opt('guidance')} {guidance:g}: the model was trained with {opt('label_dropout')} 0 "
                "and knows no rows "
                "without a class to guide away from; use 1, or train it with label dropout"
            )
        return self.replace(scale=scale, guidance=guidance)


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
                f"{opt('gate_confidence')}: only {opt('gate')} head uses it, not {self.gate}; leave it out"
            )

    def changed(self, values: Mapping[str, Any]) -> Self:
        """Return the configuration with values replaced; one without the gate `head` drops its threshold."""
        gate = values.get("gate", self.gate)
        dropped = {} if gate == "head" else {"gate_confidence": GATE_CONFIDENCE}
        return self.from_mapping({**self.to_dict(), **dropped, **values})
