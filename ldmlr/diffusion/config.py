"""Configuration of the diffusion model; imports no torch, so that the command line answers at once."""

from __future__ import annotations

import dataclasses

from ldmlr.config import Config, option
from ldmlr.errors import UsageError, opt

NETWORKS = ("additive", "adaln")
TRANSFORMS = ("whitened", "standardised")
PREDICTIONS = ("v", "eps", "x0")
SCHEDULES = ("cosine", "linear")


@dataclasses.dataclass(frozen=True)
class DiffusionConfig(Config):
    """How the latent diffusion model is built and trained. The defaults are the recipe."""

    transform: str = option(
        "whitened",
        "Feature space of the diffusion: residuals of class means, whitened by their shared covariance, "
        "or standardised per dimension (as in the paper).",
        choices=TRANSFORMS,
    )
    network: str = option(
        "additive",
        "Residual MLP conditioned by added biases (fused by the native sampler), or AdaLN.",
        choices=NETWORKS,
    )
    hidden: int = option(128, "Hidden width of the denoiser.", minimum=1)
    layers: int = option(2, "Residual layers of the denoiser.", minimum=1)
    prediction: str = option("v", "What the denoiser predicts.", choices=PREDICTIONS)
    noise_schedule: str = option("cosine", "Noise schedule.", choices=SCHEDULES)
    iterations: int = option(1500, "Training steps.", minimum=1)
    batch_size: int = option(512, "Rows in a batch.", minimum=1)
    lr: float = option(2e-3, "Learning rate after the warm-up (AdamW, cosine to zero).", above=0)
    weight_decay: float = option(1e-4, "Weight decay of AdamW.", minimum=0)
    warmup_iterations: int = option(100, "Training steps of linear warm-up.", minimum=0)
    ema: float = option(0.998, "Decay per step of the averaged weights that sample; 0 is off.", minimum=0)
    label_dropout: float = option(
        0.1, "Fraction of rows trained without their class, for guidance.", minimum=0, maximum=1
    )
    class_power: float = option(
        0.5,
        "Classes are drawn in proportion to rows^P: 1 as they come, 0 class-balanced.",
        minimum=0, maximum=1, metavar="P",
    )  # fmt: skip
    weak_views: int = option(
        2, "Weakly augmented views per image to train on, if the store has them.", minimum=0
    )
    strong_views: int = option(
        1, "Strongly augmented views per image to train on, if the store has them.", minimum=0
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.ema >= 1:
            raise UsageError(f"{opt('ema')}: must be below 1, not {self.ema!r}")
