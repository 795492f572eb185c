"""Configuration of the diffusion model; imports no torch, so that the command line answers at once."""

from __future__ import annotations

import dataclasses
from typing import Any, Self

from ldmlr.config import Config, option
from ldmlr.errors import UsageError, opt

NETWORKS = ("additive", "adaln")
TRANSFORMS = ("whitened", "standardised")
BASES = ("eigen", "cholesky")
# What models that were saved before these options existed stand for.
BEFORE_AXES = {"basis": "cholesky", "latent": "none", "error_power": 0.0, "held_out": 0.0}
BEFORE_TRAINERS = {"trainer": "reference", "precision": "float32"}
TRAINERS = ("auto", "native", "reference")
PRECISIONS = ("auto", "float32", "bfloat16")
PREDICTIONS = ("v", "eps", "x0")  # numbered as in csrc/cpu/train.h
SCHEDULES = ("cosine", "linear")
# Steps where nothing is said: the most, or for narrow rows so many passes over them, within limits.
PASSES, FEWEST_STEPS, MOST_STEPS, NARROW = 25, 600, 1500, 64


@dataclasses.dataclass(frozen=True)
class DiffusionConfig(Config):
    """How the latent diffusion model is built and trained. The defaults are the recipe."""

    transform: str = option(
        "whitened",
        "Feature space of the diffusion: residuals of class means, whitened by their shared covariance, "
        "or standardised per dimension (as in the paper).",
        choices=TRANSFORMS,
    )
    basis: str = option(
        "eigen",
        "Root of the shared covariance of a whitened space: its eigenvectors, or its Cholesky factor, with "
        "which all directions count alike and nothing is held out.",
        choices=BASES,
    )
    latent: str = option(
        "auto",
        "Eigenvectors that are diffused, the others are drawn Gaussian: auto, by spectrum and number of "
        "rows (all of 64 numbers and fewer); a number; or none, which diffuses all.",
        metavar="auto|K|none",
    )
    error_power: float = option(
        0.75,
        "The error on an eigenvector counts as its variance to this power: 1 in units of the features, 0 all "
        "alike.",
        minimum=0, maximum=2,
    )  # fmt: skip
    network: str = option(
        "additive",
        "Residual MLP conditioned by added biases (fused by the native sampler), or AdaLN.",
        choices=NETWORKS,
    )
    hidden: int = option(128, "Hidden width of the denoiser.", minimum=1)
    layers: int = option(2, "Residual layers of the denoiser.", minimum=1)
    prediction: str = option("v", "What the denoiser predicts.", choices=PREDICTIONS)
    noise_schedule: str = option("cosine", "Noise schedule.", choices=SCHEDULES)
    trainer: str = option(
        "auto",
        "What trains: the fused trainer of the extension (native), or PyTorch (reference), which auto takes "
        "for AdaLN and where a CUDA device has no kernels.",
        choices=TRAINERS,
    )
    precision: str = option(
        "auto",
        "Type of the native trainer's products: float32, or on a CPU bfloat16 with float32 sums and weights.",
        choices=PRECISIONS,
    )
    iterations: int | None = option(
        None,
        "Training steps.  [default: 1,500; for rows of at most 64 numbers 25 passes over them, from 600 on]",
        minimum=1, metavar="INTEGER",
    )  # fmt: skip
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
    held_out: float = option(
        0.1,
        "With eigenvectors, share of the rows of each class of 20 and more that are kept from training, to "
        "see whether it adds to the class Gaussian.",
        minimum=0, maximum=0.5,
    )  # fmt: skip
    weak_views: int = option(
        2, "Weakly augmented views per image to train on, if the store has them.", minimum=0
    )
    strong_views: int = option(
        1, "Strongly augmented views per image to train on, if the store has them.", minimum=0
    )

    def __post_init__(self) -> None:
        # A file or a caller may also give a number.
        given: Any = self.latent
        if isinstance(given, int) and not isinstance(given, bool):
            object.__setattr__(self, "latent", str(given))
        super().__post_init__()
        if self.latent not in ("auto", "none") and not (self.latent.isascii() and self.latent.isdigit()):
            raise UsageError(f"{opt('latent')}: expected auto, none or a number of axes, not {self.latent!r}")
        if self.latent.isdigit():
            if int(self.latent) < 1:
                raise UsageError(f"{opt('latent')}: must be at least 1, not {self.latent}")
            if self.transform != "whitened" or self.basis == "cholesky":
                raise UsageError(
                    f"{opt('latent', self.latent)}: only a whitened space in its eigenvectors has axes to "
                    f"choose from; leave it out, or use {opt('transform', 'whitened')} no "
                    f"{opt('basis', 'cholesky')}"
                )
        if self.ema >= 1:
            raise UsageError(f"{opt('ema')}: must be below 1, not {self.ema!r}")

    @property
    def steps(self) -> int:
        """Training steps, of a configuration for which they are settled (`for_rows`)."""
        if self.iterations is None:
            raise ValueError("the number of training steps is not settled")
        return self.iterations

    def for_rows(self, rows: int, dim: int) -> Self:
        """Return it with the number of training steps settled.

        On few rows of 64 numbers heads gain nothing from more than 600 steps; on wide rows the loss on
        held-out ones still falls (docs/results.md).

        Parameters
        ----------
        rows, dim
            Training rows N, without views, and their numbers D.
        """
        if self.iterations is not None:
            return self
        wanted = round(PASSES * rows / self.batch_size) if dim <= NARROW else MOST_STEPS
        return self.replace(iterations=min(max(wanted, FEWEST_STEPS), MOST_STEPS))

    def usual(self, rows: int, dim: int) -> dict[str, Any]:
        """Return every default; that of the steps is for rows ``[N, D]`` and batches of this size."""
        settled = DiffusionConfig(batch_size=self.batch_size).for_rows(rows, dim)
        return {**DiffusionConfig().to_dict(), "iterations": settled.iterations}

    @property
    def in_axes(self) -> bool:
        """Whether rows are diffused along the eigenvectors of their covariance."""
        return self.transform == "whitened" and self.basis == "eigen"
