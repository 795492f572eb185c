"""A trained diffusion model as its parts, and what a sampler needs of them."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

from ldmlr.arguments import check_seed
from ldmlr.diffusion.config import DiffusionConfig
from ldmlr.diffusion.heldout import HeldOut
from ldmlr.diffusion.schedule import make_schedule
from ldmlr.diffusion.solvers import step_rows
from ldmlr.diffusion.transform import Transform
from ldmlr.diffusion.weights import Weights
from ldmlr.sampler.config import SampleConfig
from ldmlr.sampler.spec import SamplerSpec
from ldmlr.sampler.widen import class_scales


@dataclasses.dataclass(frozen=True)
class Trained:
    """A trained model as parts; see `ldmlr.LatentDiffusion` for what they are."""

    config: DiffusionConfig
    seed: int
    weights: Weights
    transform: Transform
    counts: npt.NDArray[np.int64]
    class_names: tuple[str, ...] | None
    losses: list[float]
    held_out: HeldOut
    provenance: dict[str, Any]
    trained: dict[str, Any]

    def spec(self, config: SampleConfig | None = None, seed: int = 0) -> SamplerSpec:
        """Return everything a sampler needs, see `ldmlr.LatentDiffusion.spec`."""
        chosen = (config or SampleConfig()).resolved(
            self.config.transform, unconditional=self.config.label_dropout > 0
        )
        seed = check_seed(seed)
        transform, classes = self.transform, len(self.counts)
        table = step_rows(
            chosen.solver, chosen.steps, make_schedule(self.config.noise_schedule),
            self.config.prediction, chosen.eta, transform.bound,
        )  # fmt: skip
        assert chosen.scale is not None
        assert chosen.guidance is not None
        class_k = class_scales(chosen.class_scale, chosen.scale, classes, self.class_names)
        mean, floor, bend = transform.class_means(classes), transform.floor, None
        scale = transform.scale
        if transform.zeros:
            scale = transform.zeros.widened(scale)
            wide = chosen.scale if class_k is None else class_k
            mean, floor, bend = transform.zeros.tables(mean, floor, wide)
        return SamplerSpec(
            tables=self.weights.tables(table.t), rows=table,
            mean=mean, scale=scale, k=chosen.scale, floor=floor, psi=transform.psi,
            gain=self.held_out.at(table.t), guidance=chosen.guidance, seed=seed, class_k=class_k, bend=bend,
        )  # fmt: skip
