"""The pipeline: which steps a run consists of, doing them, and the table over seeds."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ldmlr import device as devices
from ldmlr.data.open import open_image_set
from ldmlr.encoders.baseline import earlier_models, held_out_record, training_split
from ldmlr.encoders.config import BaselineConfig, baseline_config, default_preset
from ldmlr.encoders.encoder import check_mirror
from ldmlr.encoders.pixels import image_shape
from ldmlr.errors import InputError, UsageError, opt
from ldmlr.generation.ahead import Material
from ldmlr.generation.generators.catalogue import VIEWS, entry_of, reads, resolved
from ldmlr.groups import parse_groups
from ldmlr.heads.config import FinetuneConfig
from ldmlr.heads.evaluation import group_sizes
from ldmlr.results import accuracy_row
from ldmlr.run import checks, stages
from ldmlr.run.config import RunConfig, StageTables
from ldmlr.run.source import kind_of
from ldmlr.run.stages import Machine
from ldmlr.run.steps import Step
from ldmlr.select.candidates import base_candidate
from ldmlr.select.choice import TABLES, Choice, no_val
from ldmlr.select.choose import Settings
from ldmlr.store import FeatureStore, check_trainable

Work = Callable[[Path], dict[str, Any]]
Report = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Task:
    """A step and the work behind it."""

    step: Step
    work: Work


class Run:
    """A run: its source, its settings and the steps they amount to.

    Parameters
    ----------
    source
        A built-in set, a feature store or an image set.
    config, tables
        The settings of the run and of its stages.
    root
        The folder of the run.
    machine
        Where to compute; it is no part of the settings, so a run can go on elsewhere from the end of a stage.
        (The checkpoint of a baseline's epochs belongs to its device and number of threads.)

    Raises
    ------
    InputError, UsageError
        The source is missing, damaged, or has no test rows to measure on.
    """

    def __init__(
        self, source: str, config: RunConfig, tables: StageTables, root: Path, machine: Machine
    ) -> None:
        self.source, self.config, self.tables, self.root = source, config, tables, root
        self.kind = kind_of(source)
        self.device = devices.resolve_device(machine.device)
        self.machine = dataclasses.replace(machine, device=str(self.device))
        # What was asked for; with --auto, the choice changes tables and generator later.
        self.own, self.own_generator = tables, config.generator
        parse_groups(config.groups)
        if root.exists() and not root.is_dir():
            raise UsageError(
                f"{opt('out')} {root}: is a file where the folder of the run is expected; name another"
            )
        checks.check_settings(source, self.kind, config, tables, machine)
        per_seed = config.baselines == "per-seed" or (config.baselines == "auto" and self.kind == "builtin")
        self.baselines = "per-seed" if per_seed and self.kind != "store" else "shared"
        self.preset: str | None = None
        self.baseline: BaselineConfig | None = None
        self.choice: Choice | None = None
        if config.refit is not None:
            self.choice = Choice.load(config.refit)
        # With --auto the later steps are known when the choice is made.
        self.tasks = [self._prepared(seed) if config.auto else self._tasks(seed) for seed in config.seed_list]
        if config.auto:
            base_candidate(tables.generate, config.generator, tables.diffuse)
            self._check_val()
        elif self.choice is not None:
            self.choice.check(self._num_classes(), source)
        checks.check_generation(self._materials(), config, tables, machine)

    def settings(self) -> dict[str, Any]:
        """Return the resolved configuration: what a TOML file would have to say."""
        stage = {
            name: getattr(self.tables, name).to_dict()
            for name in ("encode", "diffuse", "generate", "finetune")
        }
        if self.kind == "store":
            stage.pop("encode")
        elif self.baseline is not None:
            stage = {"baseline": self.baseline.to_dict(), **stage}
        if self.config.auto:
            stage["select"] = self.tables.select.to_dict()
        return {
            "source": self.source, **self.config.to_dict(), "baselines": self.baselines,
            "preset": self.preset, **stage,
        }  # fmt: skip

    @functools.cached_property
    def own_generated(self) -> int:
        """Generated rows that the store holds itself: a run draws its own and leaves these out."""
        if self.kind != "store":
            return 0
        with FeatureStore.open(self.source) as store:
            return store.split("train").generated_rows

    def plan(self) -> list[dict[str, Any]]:
        """Return, step by step, what would be done and what is there already."""
        seen: dict[str, dict[str, Any]] = {}
        for task in self._each():
            step = task.step
            seen[step.key] = {
                "stage": step.stage, "seed": step.seed, "output": str(step.output),
                "status": "run" if step.record() is None else "reuse",
            }  # fmt: skip
        if self.config.auto:
            step = self._selection().step
            status = "run" if step.record() is None else "reuse"
            seen[step.key] = {
                "stage": step.stage, "seed": step.seed, "output": str(step.output), "status": status,
            }  # fmt: skip
            for seed in self.config.seed_list:
                for stage in ("generate", "finetune"):
                    seen[f"{seed} {stage}"] = {
                        "stage": stage, "seed": seed, "status": "run", "output": "settings by the choice",
                    }  # fmt: skip
        return list(seen.values())

    def execute(self, report: Report) -> dict[str, Any]:
        """Do what is missing and return the figures of the run.

        Parameters
        ----------
        report
            Called with one line when a step has been done or found.
        """
        started = time.perf_counter()
        devices.set_threads(self.machine.threads)
        records: dict[str, dict[str, Any]] = {}
        if self.config.auto:
            self._do([*self._each(), self._selection()], records, report)
            self._take(Choice.load(self._selection().step.output))
        self._do(self._each(), records, report)
        last = [records[tasks[-1].step.key] for tasks in self.tasks]
        return {
            "rows": _rows([record["figures"]["measured"] for record in last]),
            "seeds": list(self.config.seed_list),
            "selection": "last epoch",
            "choice": None if self.choice is None else dict(self.choice.document),
            "inputs": {self.source: self._store_key} if self.kind == "store" else {},
            "baseline_head": last[0]["figures"]["baseline_head"],
            "groups": self._groups(),
            "seconds": round(time.perf_counter() - started, 2),
            "steps": [
                {"stage": record["stage"], "seed": record["seed"], "key": record["key"],
                 "seconds": record["seconds"], "figures": record["figures"]}
                for record in records.values()
            ],
        }  # fmt: skip

    def _do(self, tasks: Sequence[Task], records: dict[str, dict[str, Any]], report: Report) -> None:
        """Do what is missing of some tasks and note the records."""
        for task in tasks:
            step = task.step
            if step.key in records:
                continue
            before = step.record()
            records[step.key] = before if before is not None else step.run(task.work)
            done = "reused" if before is not None else f"{records[step.key]['seconds']:.1f} s"
            report(f"seed {step.seed}  {step.stage:<8}  {done:>8}  {step.output}")

    def _take(self, choice: Choice) -> None:
        """Go on with what was chosen."""
        self.choice = choice
        generate, finetune = choice.settings["generate"], choice.settings["finetune"]
        self.tables = dataclasses.replace(
            self.tables,
            generate=self.tables.generate.changed(generate),
            finetune=FinetuneConfig.from_mapping({**self.tables.finetune.to_dict(), **finetune}),
        )
        self.config = self.config.replace(generator=choice.generator)
        self.tasks = [self._tasks(seed) for seed in self.config.seed_list]

    def _num_classes(self) -> int:
        if self.kind != "store":
            return int(self._images(self.config.seed_list[0]).num_classes)
        with FeatureStore.open(self.source) as store:
            return store.num_classes

    def _materials(self) -> Iterator[Material]:
        """Yield the rows that stage 2 will have: of the store, or of every seed's images."""
        if self.kind == "store":
            with FeatureStore.open(self.source) as store:
                yield Material.of(store)
        elif self.baseline is not None:
            for seed in self.config.seed_list if self.baselines == "per-seed" else self.config.seed_list[:1]:
                yield checks.encoded_material(
                    self.source, self._images(seed), self.baseline, self.tables.encode, seed
                )

    def _check_val(self) -> None:
        """Refuse a source that will have no held-out rows, before anything is trained."""
        if self.kind == "store":
            with FeatureStore.open(self.source) as store:
                if store.val is None:
                    raise no_val(self.source)
            return
        held_out = self.baseline is not None and self.baseline.val_fraction > 0
        if not held_out and self._images(self.config.seed_list[0]).val is None:
            raise no_val(self.source)

    def _selection(self) -> Task:
        """Return the step that chooses, over the stores and models of all seeds."""
        own, generator = self.own, self.own_generator
        stores: list[tuple[int, Path, Path | None]] = []
        inputs: list[str] = []
        for seed in self.config.seed_list:
            done = {task.step.stage: task.step for task in self._prepared(seed)}
            encode, diffuse = done.get("encode"), done.get("diffuse")
            stores.append((
                seed, Path(self.source) if encode is None else encode.output,
                None if diffuse is None else diffuse.output,
            ))  # fmt: skip
            last = diffuse or encode
            inputs.append(self._store_key if last is None else last.key)
        settings = Settings(
            own.diffuse, own.generate, own.finetune, generator, self.config.groups,
            self.machine.backend, self.machine.device, self.machine.threads,
        )  # fmt: skip
        step = self._step(
            "select", self.config.seed_list[0],
            {
                **{name: getattr(own, name).to_dict() for name in ("select", *TABLES)},
                "generator": generator, "groups": self.config.groups, "seeds": list(self.config.seed_list),
                **self._left_out,
            },
            inputs, "choice.json",
        )  # fmt: skip
        return Task(step, functools.partial(stages.run_select, stores, settings, own.select))

    @property
    def _left_out(self) -> dict[str, Any]:
        """Settings of the steps that fine-tune, where a store has generated rows to leave out.

        Earlier versions counted such rows: with this, what they computed is not taken for the same.
        """
        return {"own_generated": False} if self.own_generated else {}

    def _each(self) -> list[Task]:
        return [task for tasks in self.tasks for task in tasks]

    def _groups(self) -> dict[str, int]:
        """Return the number of classes per shot group (of the first seed's draw)."""
        with FeatureStore.open(self._store_of(0)) as store:
            counts = store.split("train").encoded_counts
        return dict(group_sizes(counts, parse_groups(self.config.groups)))

    def _store_of(self, index: int) -> Path:
        if self.kind == "store":
            return Path(self.source)
        return next(task.step.output for task in self.tasks[index] if task.step.stage == "encode")

    def _step(
        self, stage: str, seed: int, settings: dict[str, Any], inputs: Sequence[str], name: str
    ) -> Step:
        return Step(stage, seed, settings, tuple(inputs), self.root, name)

    def _prepared(self, seed: int) -> list[Task]:
        """Return the steps of a seed that come before a choice: stage 1 and, if it is tried, the model."""
        tables, before = self.own, [] if self.kind == "store" else self._image_tasks(seed)
        if not any(entry_of(name).trains for name in (self.own_generator, *tables.select.generators)):
            return before
        return [*before, self._diffuse(seed, before)]

    def _encoded(self, before: Sequence[Task]) -> tuple[Path, str]:
        """Return the store that stages 2 and 3 read, and its key."""
        if before:
            return before[-1].step.output, before[-1].step.key
        return Path(self.source), self._store_key

    def _diffuse(self, seed: int, before: Sequence[Task]) -> Task:
        encoded, key = self._encoded(before)
        diffuse = self._step("diffuse", seed, self.tables.diffuse.to_dict(), [key], "model.safetensors")
        return Task(diffuse, functools.partial(
            stages.run_diffuse, encoded, self.tables.diffuse, seed=seed, machine=self.machine
        ))  # fmt: skip

    def _tasks(self, seed: int) -> list[Task]:
        """Return the steps of a seed in order."""
        tables, machine = self.tables, self.machine
        before = [] if self.kind == "store" else self._image_tasks(seed)
        encoded, store_key = self._encoded(before)
        tasks = list(before)
        name = self.config.generator
        if entry_of(name).trains:
            tasks.append(self._diffuse(seed, before))
            model: Path | None = tasks[-1].step.output
            draw = self._step("generate", seed, tables.generate.to_dict(), [tasks[-1].step.key], "pseudo.h5")
        else:
            model = None
            chosen = resolved(name, tables.generate, tables.diffuse).to_dict()
            views = {view: getattr(tables.diffuse, view) for view in VIEWS}
            settings = {key: value for key, value in {**chosen, **views}.items() if key in reads(name)}
            draw = self._step("generate", seed, {"generator": name, **settings}, [store_key], "pseudo.h5")
        work = functools.partial(
            stages.run_generate, encoded, model, name, tables.diffuse, tables.generate,
            seed=seed, machine=machine,
        )  # fmt: skip
        tune = self._step(
            "finetune", seed, {**tables.finetune.to_dict(), "groups": self.config.groups, **self._left_out},
            [store_key, draw.key], "head.safetensors",
        )  # fmt: skip
        return [
            *tasks,
            Task(draw, work),
            Task(tune, functools.partial(
                stages.run_finetune, encoded, draw.output, tables.finetune, self.config.groups,
                seed=seed, machine=machine,
            )),
        ]  # fmt: skip

    def _image_tasks(self, seed: int) -> list[Task]:
        """Return stage 1 of a seed; with a shared baseline, that of the first seed for all."""
        seed = seed if self.baselines == "per-seed" else self.config.seed_list[0]
        images = self._images(seed)
        if images.test is None:
            raise InputError(f"{self.source}: has no test images to measure on; add a test split")
        if self.baseline is None:
            size = max(image_shape(images.train)[:2])
            self.preset = self.config.preset or default_preset(size)
            self.baseline = baseline_config(self.preset, self.tables.baseline)
        check_mirror(self.tables.encode, "flip" in self.baseline.augment, "the baseline")
        _, held = training_split(images, self.baseline.val_fraction, seed)
        record = held_out_record(images, held, self.baseline.val_fraction, seed)
        models = earlier_models(images, self.baseline, record)
        inputs = [images.fingerprint(), *(model.sha256 for model in models if model is not None)]
        train = self._step("baseline", seed, self.baseline.to_dict(), inputs, "model.safetensors")
        encode = self._step("encode", seed, self.tables.encode.to_dict(), [train.key], "features.h5")
        return [
            Task(train, functools.partial(
                stages.run_baseline, images, self.baseline, seed=seed, machine=self.machine
            )),
            Task(encode, functools.partial(
                stages.run_encode, images, train.output, self.tables.encode, seed=seed, machine=self.machine
            )),
        ]  # fmt: skip

    @functools.cached_property
    def _store_key(self) -> str:
        with FeatureStore.open(self.source) as store:
            if not len(store.split("test")):
                raise InputError(f"{self.source}: /test: has no rows to measure on; add test rows")
            if store.num_classes < 2:
                raise InputError(f"{self.source}: has one class, and nothing to tell apart; add another")
            check_trainable(store)
            return store.fingerprint()

    def _images(self, seed: int) -> Any:
        found = self._opened.get(seed)
        if found is None:
            found = self._opened[seed] = open_image_set(
                self.source, imbalance_factor=self.config.imbalance_factor, seed=seed,
                image_root=self.config.image_root, image_size=self.config.image_size,
            )  # fmt: skip
        return found

    @functools.cached_property
    def _opened(self) -> dict[int, Any]:
        return {}


def _rows(runs: Sequence[Sequence[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Return the accuracy table: one row per head and adjustment, over the seeds."""
    return [
        accuracy_row(
            entries[0]["method"], entries[0]["adjustment"], [entry["figures"] for entry in entries],
            tau=entries[0]["tau"],
        )
        for entries in zip(*runs, strict=True)
    ]  # fmt: skip
