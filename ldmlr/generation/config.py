"""Configuration of sampling and generation; imports no torch, so that the command line answers at once."""

from __future__ import annotations

import dataclasses

from ldmlr.config import Config, option
from ldmlr.errors import UsageError

SOLVERS = ("dpmpp2m", "ddim", "ddpm", "heun")
DTYPES = ("float32", "float16", "bfloat16")
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
    eta: float = option(0.0, "Share of ancestral noise of ddim.", minimum=0, maximum=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.eta and self.solver != "ddim":
            raise UsageError(
                f"--eta: only ddim has it; drop it or use --solver ddim instead of {self.solver}"
            )

    def resolved(self, transform: str) -> SampleConfig:
        """Return the configuration with the values left open set for a model's transform."""
        scale = DEFAULT_SCALE[transform] if self.scale is None else self.scale
        guidance = DEFAULT_GUIDANCE[transform] if self.guidance is None else self.guidance
        return self.replace(scale=scale, guidance=guidance)
