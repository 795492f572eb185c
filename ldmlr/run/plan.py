"""The plan of a run: which steps it consists of, and with which keys. Nothing is opened or computed here."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ldmlr.encoders.config import BaselineConfig
from ldmlr.generation.generators.catalogue import DIFFUSION, VIEWS, entry_of, reads, resolved
from ldmlr.heads.config import FinetuneConfig
from ldmlr.remote import as_path
from ldmlr.run.config import RunConfig, StageTables
from ldmlr.run.steps import Step
from ldmlr.select.choice import TABLES, Choice
from ldmlr.store.convert.ready import Ready
from ldmlr.store.heldout import Measuring

# Part of the key of ``--auto``: raise it when its methods, or what they choose from, are others.
CONTEST = 2


@dataclasses.dataclass(frozen=True)
class Facts:
    """What the keys of a run's steps depend on beside its settings.

    Attributes
    ----------
    source
        What the run starts from, as it was given.
    inputs
        What stage 1, or for a store stage 2, reads for each of its seeds: fingerprints.
    baseline, preset
        Stage 1 and the recipe it starts from; None for a store.
    per_seed
        Whether every seed has a baseline of its own.
    own_generated
        Generated rows that a store holds itself: a run draws its own and leaves these out.
    store
        The source as a store, where it is no store itself.
    measuring
        What rows the heads are measured on.
    """

    source: str
    inputs: Mapping[int, tuple[str, ...]]
    baseline: BaselineConfig | None = None
    preset: str | None = None
    per_seed: bool = False
    own_generated: int = 0
    store: Ready | None = None
    measuring: Measuring = dataclasses.field(default_factory=Measuring)

    def as_store(self) -> dict[str, str]:
        """Return where the store lies that the source was converted to, as documents say it."""
        return {} if self.store is None else self.store.as_config()


@dataclasses.dataclass(frozen=True)
class SeedSteps:
    """The steps of one seed; None: it has no such step.

    Attributes
    ----------
    store, store_key
        The encoded rows that stages 2 and 3 read, and the key of what made them.
    """

    store: Ready
    store_key: str
    baseline: Step | None = None
    encode: Step | None = None
    diffuse: Step | None = None
    generate: Step | None = None
    finetune: Step | None = None

    def __iter__(self) -> Iterator[Step]:
        """Yield the steps in order."""
        for step in (self.baseline, self.encode, self.diffuse, self.generate, self.finetune):
            if step is not None:
                yield step

    @property
    def last(self) -> Step:
        """The last step."""
        return list(self)[-1]


@dataclasses.dataclass(frozen=True)
class RunPlan:
    """The steps that settings and a source amount to.

    Attributes
    ----------
    facts
        Of the source.
    config, tables
        The settings of the run and of its stages.
    root
        The folder of the run.
    trained_on_rows
        Whether the encoder has seen the training rows.
    """

    facts: Facts
    config: RunConfig
    tables: StageTables
    root: Path
    trained_on_rows: bool = True

    def settings(self, iterations: int | None = None) -> dict[str, Any]:
        """Return the resolved configuration: what a TOML file would have to say.

        Parameters
        ----------
        iterations
            Training steps of stage 2, once they are known: until then they are as configured.
        """
        stages = ("diffuse", "generate", "finetune", *(("select",) if self.config.auto else ()))
        tables = {name: getattr(self.tables, name).to_dict() for name in stages}
        if iterations is not None:
            tables["diffuse"]["iterations"] = iterations
        if self.facts.baseline is not None:
            tables = {
                "baseline": self.facts.baseline.to_dict(), "encode": self.tables.encode.to_dict(), **tables,
            }  # fmt: skip
        return {
            "source": self.facts.source, **self.config.to_dict(),
            "baselines": "per-seed" if self.facts.per_seed else "shared", "preset": self.facts.preset,
            **self.facts.as_store(), **tables,
        }  # fmt: skip

    def chosen(self, choice: Choice) -> RunPlan:
        """Return the plan that goes on with what was chosen."""
        generate, finetune = choice.settings["generate"], choice.settings["finetune"]
        tables = dataclasses.replace(
            self.tables,
            generate=self.tables.generate.changed(generate),
            finetune=FinetuneConfig.from_mapping({**self.tables.finetune.to_dict(), **finetune}),
        )
        return dataclasses.replace(
            self, tables=tables, config=self.config.replace(generator=choice.generator)
        )

    def steps(self, seed: int) -> SeedSteps:
        """Return all steps of a seed."""
        steps = self._encoded(seed)
        if entry_of(self.config.generator).trains:
            steps = self._with_model(steps, seed)
        draw = self._generate(steps, seed)
        tuning = {**self.tables.finetune.to_dict(), "groups": self.config.groups, **self._left_out}
        if self.config.generator != DIFFUSION:
            # Earlier versions called these rows ldmlr as well: what they measured has another key.
            tuning["method"] = self.config.generator
        tune = self._step("finetune", seed, tuning, [steps.store_key, draw.key], "head.safetensors")
        return dataclasses.replace(steps, generate=draw, finetune=tune)

    def measuring(self, seed: int) -> Step:
        """Return the step that measures a seed on held-out rows, where there is no test split.

        It does stages 2 and 3 anew on the rest of the rows, once for every fold.
        """
        steps = self.steps(seed)
        settings = {
            step.stage: step.settings for step in (steps.diffuse, steps.generate, steps.finetune) if step
        } | {"held_out": {"folds": self.facts.measuring.folds, "fraction": self.facts.measuring.fraction}}
        return self._step("measure", seed, settings, [steps.store_key], "measured.json")

    def before_choice(self, seed: int) -> SeedSteps:
        """Return the steps of a seed that come before a choice: stage 1 and, if one is tried, the model."""
        steps = self._encoded(seed)
        names = (self.config.generator, *self.tables.select.generators)
        return self._with_model(steps, seed) if any(entry_of(name).trains for name in names) else steps

    def selection(self) -> Step:
        """Return the step that chooses, over the stores and models of all seeds."""
        inputs = []
        for seed in self.config.seed_list:
            steps = self.before_choice(seed)
            inputs.append(steps.store_key if steps.diffuse is None else steps.diffuse.key)
        settings = {
            **{name: getattr(self.tables, name).to_dict() for name in ("select", *TABLES)},
            "generator": self.config.generator, "groups": self.config.groups,
            "seeds": list(self.config.seed_list), **self._left_out,
        }  # fmt: skip
        return self._step("select", self.config.seed_list[0], settings, inputs, "choice.json")

    def auto(self) -> Step:
        """Return the step that chooses among all methods and writes the head of the one chosen."""
        seeds = self.config.seed_list
        own = [self.steps(seed) for seed in seeds]
        settings = {
            **{name: getattr(self.tables, name).to_dict() for name in ("diffuse", "generate")},
            "generator": self.config.generator, "groups": self.config.groups, "seeds": list(seeds),
            "methods": list(self.tables.select.methods), "encoder_trained_on_rows": self.trained_on_rows,
            "contest": CONTEST,
        }  # fmt: skip
        inputs = [own[0].last.key, *(steps.store_key for steps in own)]
        return self._step("auto", seeds[0], settings, inputs, "head.safetensors")

    @property
    def _left_out(self) -> dict[str, Any]:
        """Settings of the steps that fine-tune, where a store has generated rows to leave out.

        Earlier versions counted such rows: with this, what they computed is not taken for the same.
        """
        return {"own_generated": False} if self.facts.own_generated else {}

    def _encoded(self, seed: int) -> SeedSteps:
        """Return stage 1 of a seed; with a shared baseline, that of the first seed for all."""
        seed = seed if self.facts.per_seed else self.config.seed_list[0]
        inputs = self.facts.inputs[seed]
        if self.facts.baseline is None:
            source = as_path(self.facts.source)
            return SeedSteps(self.facts.store or Ready(source, source), inputs[0])
        train = self._step("baseline", seed, self.facts.baseline.to_dict(), inputs, "model.safetensors")
        encode = self._step("encode", seed, self.tables.encode.to_dict(), [train.key], "features.h5")
        return SeedSteps(Ready(encode.output, encode.output), encode.key, train, encode)

    def _with_model(self, steps: SeedSteps, seed: int) -> SeedSteps:
        settings = self.tables.diffuse.to_dict()
        step = self._step("diffuse", seed, settings, [steps.store_key], "model.safetensors")
        return dataclasses.replace(steps, diffuse=step)

    def _generate(self, steps: SeedSteps, seed: int) -> Step:
        """Return the step that draws: what its generator does not read has no part in its key."""
        tables, name = self.tables, self.config.generator
        if steps.diffuse is not None:
            settings, key = tables.generate.to_dict(), steps.diffuse.key
        else:
            drawing = resolved(name, tables.generate, tables.diffuse).to_dict()
            views = {view: getattr(tables.diffuse, view) for view in VIEWS}
            read = {key: value for key, value in {**drawing, **views}.items() if key in reads(name)}
            settings, key = {"generator": name, **read}, steps.store_key
        return self._step("generate", seed, settings, [key], "pseudo.h5")

    def _step(
        self, stage: str, seed: int, settings: dict[str, Any], inputs: Sequence[str], name: str
    ) -> Step:
        return Step(stage, seed, settings, tuple(inputs), self.root, name)
