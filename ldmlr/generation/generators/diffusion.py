"""The diffusion model as a generator: a trained model, how rows are drawn from it, and where."""

from __future__ import annotations

import dataclasses

from ldmlr.config import config_hash
from ldmlr.device import Machine, device_name
from ldmlr.diffusion.config import DiffusionConfig
from ldmlr.diffusion.weights import TABLES
from ldmlr.errors import UsageError, opt
from ldmlr.generation.generators.base import Floats, Generator, Labels
from ldmlr.generation.latent import LatentDiffusion
from ldmlr.generation.train_rows import TrainRows
from ldmlr.sampler.backends import Sampler, choose_backend, prepare
from ldmlr.sampler.config import SampleConfig


class Diffusion(Generator):
    """Rows of a trained latent diffusion model.

    Parameters
    ----------
    model
        The model.
    config
        Solver, steps, guidance, widening and type of the weights.
    machine
        What draws, and where.

    Raises
    ------
    UsageError
        The settings do not fit the model, or the backend cannot run it.
    """

    name = "diffusion"

    def __init__(
        self,
        model: LatentDiffusion,
        config: SampleConfig | None = None,
        machine: Machine | None = None,
    ) -> None:
        self.model, self.config = model, config or SampleConfig()
        self.dim, self.num_classes = model.dim, model.num_classes
        given = machine or Machine()
        place = device_name(given.device)
        self.backend = choose_backend(given.backend, TABLES[model.config.network], place, self.config.weights)
        if given.others and self.backend != "cuda":
            raise UsageError(
                f"{opt('device')}: several devices draw by the CUDA kernels, not by {self.backend}; name one"
            )
        self.machine = dataclasses.replace(given, device=place, backend=self.backend)
        self._spec = model.spec(self.config)
        self._prepared: Sampler | None = None

    def sampler(self, seed: int) -> Sampler:
        """Return the model prepared for drawing with a seed; that of the last one is kept."""
        if self._prepared is None or self._prepared.spec.seed != seed:
            spec = dataclasses.replace(self._spec, seed=seed)
            self._prepared = prepare(spec, self.machine, self.config.weights)
        return self._prepared

    def samplers(self, seed: int) -> list[Sampler]:
        """Return the model prepared on every device, the first one first.

        Raises
        ------
        UsageError
            The devices are not of one kind: rows would depend on which of them drew.
        """
        first = self.sampler(seed)
        others = [
            prepare(
                first.spec, dataclasses.replace(self.machine, device=name, others=()), self.config.weights
            )
            for name in self.machine.others
        ]
        for name, other in zip(self.machine.others, others, strict=True):
            if other.kernels != first.kernels:
                raise UsageError(
                    f"{opt('device')}: {name} draws by {other.kernels}, and {self.machine.device} by "
                    f"{first.kernels}; name devices of one kind"
                )
        return [first, *others]

    def kernels(self, seed: int = 0) -> str:
        return self.sampler(seed).kernels

    def drawing_as(self, config: SampleConfig) -> Diffusion:
        return Diffusion(self.model, config, self.machine)

    def fingerprint(self) -> str:
        settings = self.config.to_dict()
        drawing = {name: settings[name] for name in SampleConfig.names()}
        return config_hash(self.model.fingerprint(), drawing)

    def _draw(self, labels: Labels, seed: int, first_row: int) -> Floats:
        drawn: Floats = self.sampler(seed)(labels, first_row)
        return drawn


def train(
    rows: TrainRows,
    config: DiffusionConfig,
    *,
    seed: int = 0,
    device: str = "auto",
    threads: int | None = None,
) -> LatentDiffusion:
    """Return a model trained on rows in memory.

    Parameters
    ----------
    rows
        Training rows; a configuration without views trains on the clean rows alone.
    config, seed
        How the model is trained.
    device, threads
        Where.
    """
    views = rows.views if config.weak_views or config.strong_views else ()
    return LatentDiffusion(config, seed=seed).fit(
        rows.features, rows.labels, views=views, num_classes=rows.num_classes,
        class_names=rows.class_names, device=device, threads=threads,
    )  # fmt: skip
