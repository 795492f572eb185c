"""What is to be generated: a generator, a plan, a seed and a gate, settled before the first row is drawn."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ldmlr.arguments import check_seed
from ldmlr.config import config_hash
from ldmlr.device import Machine
from ldmlr.diffusion.config import DiffusionConfig
from ldmlr.errors import InputError, UsageError, counted, opt
from ldmlr.generation.config import GenerateConfig
from ldmlr.generation.gate import Gate, GatedRows, draw, make_gate
from ldmlr.generation.generators.base import Generator, Labels
from ldmlr.generation.generators.catalogue import VIEWS, entry_of, reads, resolved
from ldmlr.generation.generators.diffusion import Diffusion
from ldmlr.generation.generators.fit import fit
from ldmlr.generation.latent import LatentDiffusion
from ldmlr.generation.plan import Counts, plan_from_config
from ldmlr.generation.train_rows import train_rows
from ldmlr.metrics.familiar import KEY
from ldmlr.store import FeatureStore


@dataclasses.dataclass(frozen=True)
class Generation:
    """What is to be generated: everything the rows of the output depend on.

    Attributes
    ----------
    generator
        What draws the rows.
    config
        Plan, settings of the generator and type, with no value left open.
    seed
        Seed of the rows.
    counts, plan
        Training rows and rows to generate per class ``[C]``.
    encoder, class_names
        Of the training rows: saved with the generated ones.
    origin
        Where the generator comes from, as plain data: saved with the rows.
    gate
        What rows have to pass, or None.
    """

    generator: Generator
    config: GenerateConfig
    seed: int
    counts: Counts
    plan: Counts
    encoder: str
    class_names: tuple[str, ...] | None
    origin: Mapping[str, Any]
    gate: Gate | None = None

    @property
    def rows(self) -> int:
        """Rows to generate."""
        return int(self.plan.sum())

    @property
    def key(self) -> str:
        """Hash of all that determines the output."""
        judge = [] if self.gate is None else [self.gate.fingerprint]
        return config_hash(self.generator.fingerprint(), self.config, self.seed, self.plan, *judge)

    @property
    def kernels(self) -> str:
        """What computes the rows: they are the same to the bit where this is."""
        return self.generator.kernels(self.seed)

    def draw(self, labels: Labels, first_row: int = 0) -> GatedRows:
        """Draw rows of classes ``[N]``, through the gate where there is one."""
        if self.gate is None:
            return GatedRows(self.generator.draw(labels, self.seed, first_row), 0, 0)
        return draw(self.generator, self.gate, labels, self.seed, first_row)

    def settings(self) -> dict[str, Any]:
        """Return the settings that the generator reads, and the seed."""
        read = reads(self.generator.name)
        kept = {name: value for name, value in self.config.to_dict().items() if name in read}
        return {**kept, "seed": self.seed}

    def facts(self) -> dict[str, Any]:
        """Return what is saved with the rows."""
        return {
            "backend": self.generator.backend, "kernels": self.kernels, "generator": self.generator.name,
            "generate": self.settings(), **self.origin,
        }  # fmt: skip


def prepare(
    model: LatentDiffusion,
    config: GenerateConfig,
    *,
    seed: int = 0,
    store: FeatureStore | None = None,
    judge: FeatureStore | None = None,
    trained_on_rows: bool | None = None,
    machine: Machine | None = None,
) -> Generation:
    """Return the generation of a model: its plan made, its configuration resolved.

    Parameters
    ----------
    model
        The trained model; it knows the training rows per class and the class names.
    config
        Plan, solver and type.
    seed
        Seed of the noise.
    store
        Take the training rows per class from this store instead.
    judge
        The store whose head is the judge of ``gate="head"``; by default `store`.
    trained_on_rows
        Whether the encoder has seen the training rows, for what is not given; by default what the model knows
        (models of earlier versions, and those fitted to arrays: that it has).
    machine
        What draws, and where.

    Raises
    ------
    InputError
        The store does not fit the model.
    UsageError
        The plan asks for something impossible, or a setting does not fit the model or the backend.
    """
    counts = model.counts if store is None else store.split("train").encoded_counts
    if store is not None and (store.dim, store.num_classes) != (model.dim, model.num_classes):
        raise InputError(
            f"{store.path}: has {counted(store.num_classes, 'class')} of {store.dim}-d rows, but the "
            "model was trained "
            f"on {model.num_classes} of {model.dim}-d rows; give the store that belongs to the model"
        )
    seen = model.provenance.get(KEY, True) if trained_on_rows is None else trained_on_rows
    chosen = resolved("diffusion", config.for_features(bool(seen)), model.config)
    plan = plan_from_config(counts, chosen, model.class_names)
    gate = make_gate(model, chosen, judge or store)
    if gate is not None and machine is not None and machine.others:
        raise UsageError(f"{opt('device')}: rows that pass a gate are drawn on one device; name one")
    generator = Diffusion(model, chosen, machine)
    return Generation(
        generator, chosen, check_seed(seed), counts, plan, str(model.provenance.get("encoder", "")),
        model.class_names, {"diffuse": model.config.to_dict(), "source": model.provenance}, gate,
    )  # fmt: skip


def prepare_from_rows(
    name: str,
    store: FeatureStore,
    config: GenerateConfig,
    *,
    views: DiffusionConfig | None = None,
    seed: int = 0,
) -> Generation:
    """Return the generation of a generator that needs no training, fitted to the rows of a store.

    Parameters
    ----------
    name
        A key of `ldmlr.generation.generators.catalogue.GENERATORS`, but not ``diffusion``.
    store
        An open store; its encoded training rows are fitted and counted.
    config
        Plan, settings of the generator and type.
    views
        Its ``weak_views`` and ``strong_views`` say how many views are used.
    seed
        Seed of the rows.

    Raises
    ------
    InputError
        Rows that cannot be fitted.
    UsageError
        The plan asks for something impossible, or the generator for views that are not there.
    """
    wanted = views or DiffusionConfig()
    if not entry_of(name).views:
        wanted = wanted.replace(weak_views=0, strong_views=0)
    chosen = resolved(name, config, wanted)
    rows = train_rows(store, wanted.weak_views, wanted.strong_views, copy=False)
    plan = plan_from_config(rows.counts, chosen, store.class_names)
    generator = fit(name, rows, chosen, wanted)
    source = {
        "store": str(store.path), "fingerprint": store.fingerprint(),
        "rows": len(rows.labels), "views": len(rows.views), "encoder": store.encoder,
    }  # fmt: skip
    return Generation(
        generator, chosen, check_seed(seed), rows.counts, plan, store.encoder, store.class_names,
        {"source": source},
    )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Work:
    """A generation before its files are read: plain data that every machine can be sent.

    Attributes
    ----------
    source
        A model for the generator ``diffusion``, else the store that another generator is fitted to.
    generator
        A key of `ldmlr.generation.generators.catalogue.GENERATORS`.
    store
        Plan for the training rows of this store; for ``diffusion`` alone.
    config, views, trained_on_rows, seed, machine
        As for `prepare` and `prepare_from_rows`.
    """

    source: Path
    generator: str
    store: Path | None
    config: GenerateConfig
    views: DiffusionConfig
    trained_on_rows: bool | None
    seed: int
    machine: Machine

    def prepared(self) -> Generation:
        """Return the generation.

        Raises
        ------
        InputError, UsageError
            As `prepare` and `prepare_from_rows`; and an option that this generator does not read.
        """
        if self.generator == "diffusion":
            for name in VIEWS:
                if getattr(self.views, name) != getattr(DiffusionConfig(), name):
                    raise UsageError(f"{opt(name)}: {self.source} is trained already; leave it out")
            planned = None if self.store is None else FeatureStore.open(self.store)
            return prepare(
                LatentDiffusion.load(self.source), self.config, seed=self.seed, store=planned,
                trained_on_rows=self.trained_on_rows, machine=self.machine,
            )  # fmt: skip
        if self.trained_on_rows is not None:
            raise UsageError(
                f"{opt('encoder_trained_on_rows', True)}: changes nothing for {self.generator}; leave it out"
            )
        if self.store is not None:
            raise UsageError(
                f"{opt('store')}: rows are planned and drawn for {self.source} itself; leave it out"
            )
        rows = FeatureStore.open(self.source)
        return prepare_from_rows(self.generator, rows, self.config, views=self.views, seed=self.seed)
