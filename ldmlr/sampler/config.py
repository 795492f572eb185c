"""Configuration of sampling; imports no torch, so that the command line answers at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Self

from ldmlr.classes import Key, factor_table, saved_table
from ldmlr.config import Config, option
from ldmlr.errors import UsageError, opt

SOLVERS = ("dpmpp2m", "ddim", "ddpm", "heun")
DTYPES = ("float32", "float16", "bfloat16")
WEIGHTS = ("auto", "float32", "bfloat16", "int8")
# Scale and guidance by the model's transform: the recipe, and the paper's plain conditional model.
DEFAULT_SCALE = {"whitened": 1.41, "standardised": 1.0}
DEFAULT_GUIDANCE = {"whitened": 1.5, "standardised": 1.0}


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
    class_scale: Mapping[Key, float] = option(
        {}, "Widening of one class, instead of --scale; may be repeated.", metavar="CLASS=FACTOR"
    )
    eta: float = option(0.0, "Share of ancestral noise of ddim.", minimum=0, maximum=1)
    weights: str = option(
        "auto",
        "Arithmetic of the network; auto is bfloat16 where that is faster (see ldmlr info); int8 is fastest.",
        choices=WEIGHTS,
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "class_scale", factor_table(self.class_scale))
        super().__post_init__()
        if self.eta and self.solver != "ddim":
            raise UsageError(
                f"{opt('eta')}: only ddim has it; drop it or use {opt('solver', 'ddim')} instead of "
                f"{self.solver}"
            )

    def to_dict(self) -> dict[str, Any]:
        """Return the values as plain data that JSON and TOML can hold."""
        return {**super().to_dict(), "class_scale": saved_table(self.class_scale)}

    def as_learned(self) -> Self:
        """Return the configuration without widening and guidance: the distribution that a model learned."""
        return self.replace(scale=1.0, class_scale={}, guidance=1.0)

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
                f"{opt('guidance')} {guidance:g}: the model was trained with {opt('label_dropout', 0)} "
                "and knows no rows "
                "without a class to guide away from; use 1, or train it with label dropout"
            )
        return self.replace(scale=scale, guidance=guidance)
