"""The pipeline: which steps a run consists of, doing them, and the table over seeds."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ldmlr import device as devices
from ldmlr.data.open import open_image_set
from ldmlr.encoders.config import BaselineConfig, baseline_config, default_preset
from ldmlr.encoders.pixels import image_shape
from ldmlr.errors import InputError
from ldmlr.groups import parse_groups
from ldmlr.heads.evaluation import group_sizes
from ldmlr.heads.rows import encoded_counts
from ldmlr.results import accuracy_row
from ldmlr.run import stages
from ldmlr.run.config import RunConfig, StageTables
from ldmlr.run.source import kind_of
from ldmlr.run.stages import Machine
from ldmlr.run.steps import Step
from ldmlr.store import FeatureStore

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
        Where to compute; it is no part of the settings, so a run can go on elsewhere.

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
        parse_groups(config.groups)
        per_seed = config.baselines == "per-seed" or (config.baselines == "auto" and self.kind == "builtin")
        self.baselines = "per-seed" if per_seed and self.kind != "store" else "shared"
        self.preset: str | None = None
        self.baseline: BaselineConfig | None = None
        self.tasks = [self._tasks(seed) for seed in config.seed_list]

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
        return {
            "source": self.source, **self.config.to_dict(), "baselines": self.baselines,
            "preset": self.preset, **stage,
        }  # fmt: skip

    def plan(self) -> list[dict[str, Any]]:
        """Return, step by step, what would be done and what is there already."""
        seen: dict[str, dict[str, Any]] = {}
        for task in self._each():
            step = task.step
            seen[step.key] = {
                "stage": step.stage, "seed": step.seed, "output": str(step.output),
                "status": "run" if step.record() is None else "reuse",
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
        for task in self._each():
            step = task.step
            if step.key in records:
                continue
            before = step.record()
            records[step.key] = before if before is not None else step.run(task.work)
            done = "reused" if before is not None else f"{records[step.key]['seconds']:.1f} s"
            report(f"seed {step.seed}  {step.stage:<8}  {done:>8}  {step.output}")
        last = [records[tasks[-1].step.key] for tasks in self.tasks]
        return {
            "rows": _rows([record["figures"]["measured"] for record in last]),
            "seeds": list(self.config.seed_list),
            "selection": "last epoch",
            "baseline_head": last[0]["figures"]["baseline_head"],
            "groups": self._groups(),
            "seconds": round(time.perf_counter() - started, 2),
            "steps": [
                {"stage": record["stage"], "seed": record["seed"], "key": record["key"],
                 "seconds": record["seconds"], "figures": record["figures"]}
                for record in records.values()
            ],
        }  # fmt: skip

    def _each(self) -> list[Task]:
        return [task for tasks in self.tasks for task in tasks]

    def _groups(self) -> dict[str, int]:
        """Return the number of classes per shot group (of the first seed's draw)."""
        with FeatureStore.open(self._store_of(0)) as store:
            counts = encoded_counts(store.split("train"), store.num_classes)
        return dict(group_sizes(counts, parse_groups(self.config.groups)))

    def _store_of(self, index: int) -> Path:
        if self.kind == "store":
            return Path(self.source)
        return next(task.step.output for task in self.tasks[index] if task.step.stage == "encode")

    def _step(
        self, stage: str, seed: int, settings: dict[str, Any], inputs: Sequence[str], name: str
    ) -> Step:
        return Step(stage, seed, settings, tuple(inputs), self.root, name)

    def _tasks(self, seed: int) -> list[Task]:
        """Return the steps of a seed in order."""
        tables, machine = self.tables, self.machine
        before = [] if self.kind == "store" else self._image_tasks(seed)
        if before:
            encoded, store_key = before[-1].step.output, before[-1].step.key
        else:
            encoded, store_key = Path(self.source), self._store_key
        diffuse = self._step("diffuse", seed, tables.diffuse.to_dict(), [store_key], "model.safetensors")
        draw = self._step("generate", seed, tables.generate.to_dict(), [diffuse.key], "pseudo.h5")
        tune = self._step(
            "finetune", seed, {**tables.finetune.to_dict(), "groups": self.config.groups},
            [store_key, draw.key], "head.safetensors",
        )  # fmt: skip
        return [
            *before,
            Task(diffuse, functools.partial(
                stages.run_diffuse, encoded, tables.diffuse, seed=seed, machine=machine
            )),
            Task(draw, functools.partial(
                stages.run_generate, encoded, diffuse.output, tables.generate, seed=seed, machine=machine
            )),
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
        train = self._step(
            "baseline", seed, self.baseline.to_dict(), [images.fingerprint()], "model.safetensors"
        )
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
            store.split("test")
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
