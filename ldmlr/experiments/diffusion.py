"""LDMLR as generators: the recipe, the same without its widening and guidance, and the paper's setting."""

from __future__ import annotations

import dataclasses
import time

from ldmlr.device import Machine
from ldmlr.diffusion.config import DiffusionConfig
from ldmlr.errors import UsageError
from ldmlr.generation.config import GenerateConfig
from ldmlr.generation.latent import LatentDiffusion
from ldmlr.generation.plan import Counts, labels_of
from ldmlr.generation.train_rows import Generated, TrainRows


@dataclasses.dataclass
class Diffusion:
    """Trains a model for a seed and draws from it; a generator.

    A model is trained once per configuration and seed. The seconds of a training that is reused are added to
    `borrowed`, so that every method is charged with the whole of what it needs. `drawing` has the seconds
    of the latest draw alone.

    Parameters
    ----------
    device, threads, backend
        Where to compute, as for `ldmlr.LatentDiffusion`.
    """

    device: str = "auto"
    threads: int | None = None
    backend: str = "auto"
    borrowed: float = 0.0
    drawing: float = 0.0
    chosen: str = ""
    _models: dict[tuple[DiffusionConfig, int], tuple[LatentDiffusion, float]] = dataclasses.field(
        default_factory=dict
    )

    def draw(
        self, rows: TrainRows, plan: Counts, seed: int, model: DiffusionConfig, drawing: GenerateConfig
    ) -> Generated:
        """Return rows of the plan from a model of this configuration.

        Parameters
        ----------
        rows
            Training rows; a configuration without views trains on the clean rows alone.
        plan
            Rows to generate per class ``[C]``.
        seed
            Seed of training and drawing: the rows are those of ``ldmlr run`` with it.
        model, drawing
            How the model is trained, and how rows are drawn from it.
        """
        trained = self._trained(rows, seed, model)
        labels = labels_of(plan, 0, int(plan.sum()))
        start = time.perf_counter()
        machine = Machine(device=self.device, threads=self.threads, backend=self.backend)
        sampler = trained.sampler(drawing, seed, machine)
        drawn = sampler(labels).numpy()
        self.drawing = time.perf_counter() - start
        self.chosen = sampler.backend
        return Generated(drawn, labels)

    def _trained(self, rows: TrainRows, seed: int, config: DiffusionConfig) -> LatentDiffusion:
        key = (config, seed)
        if key in self._models:
            self.borrowed += self._models[key][1]
            return self._models[key][0]
        start = time.perf_counter()
        views = rows.views if config.weak_views or config.strong_views else ()
        model = LatentDiffusion(config, seed=seed).fit(
            rows.features, rows.labels, views=views, num_classes=rows.num_classes,
            class_names=rows.class_names, device=self.device, threads=self.threads,
        )  # fmt: skip
        self._models[key] = model, time.perf_counter() - start
        return model

    def forget(self) -> None:
        """Drop the models: the next seed needs none of them."""
        self._models.clear()


def paper_settings(model: DiffusionConfig, drawing: GenerateConfig) -> tuple[DiffusionConfig, GenerateConfig]:
    """Return the paper's setting, as far as a denoiser that can tell dimensions apart allows.

    Clean features standardised per dimension, classes as frequent as they are, no label dropout and so no
    guidance, a fifth of each class's own rows.
    """
    return (
        model.replace(
            transform="standardised", weak_views=0, strong_views=0, class_power=1.0, label_dropout=0.0
        ),
        drawing.replace(
            strategy="ratio",
            ratio=0.2,
            minimum=1,
            target=None,
            only=(),
            count={},
            scale=1.0,
            class_scale={},
            guidance=1.0,
        ),
    )


def plain_settings(drawing: GenerateConfig) -> GenerateConfig:
    """Return the recipe's drawing without widening and guidance: the distribution the model learned."""
    return drawing.replace(scale=1.0, class_scale={}, guidance=1.0)


def check_drawing(drawing: GenerateConfig, command: str) -> None:
    """Refuse settings of ``generate`` that are not followed here: rows are drawn without gate, in memory."""
    plain = GenerateConfig()
    for name in ("gate", "dtype"):
        value = getattr(drawing, name)
        if value != getattr(plain, name):
            raise UsageError(
                f"generate.{name} {value}: ldmlr {command} draws rows without a gate and keeps them in "
                "float32; leave it out"
            )
