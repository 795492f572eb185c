"""The pipeline: the steps of a run's plan, done where they are missing, and the table over seeds."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ldmlr import device as devices
from ldmlr.device import Machine
from ldmlr.diffusion.learned import mean_of
from ldmlr.errors import UsageError, opt
from ldmlr.groups import parse_groups
from ldmlr.heads.evaluation import group_sizes
from ldmlr.metrics.answers import Answers
from ldmlr.ownership import owned
from ldmlr.results import RESULT, accuracy_rows
from ldmlr.run import checks, stages
from ldmlr.run.auto import run_auto
from ldmlr.run.config import RunConfig, StageTables
from ldmlr.run.origin import ImageOrigin, Origin, open_origin
from ldmlr.run.plan import RunPlan, SeedSteps
from ldmlr.run.source import kind_of
from ldmlr.run.steps import Step
from ldmlr.select.candidates import base_candidate
from ldmlr.select.choice import Choice
from ldmlr.select.choose import Settings

Work = Callable[[Path], dict[str, Any]]
Report = Callable[[str], None]
Records = dict[str, dict[str, Any]]
# What is done for a seed when the choice is known: with a test split of its own, and without.
STAGES_AFTER_CHOICE = {True: ("generate", "finetune"), False: ("measure",)}


def open_run(
    source: str,
    config: RunConfig,
    tables: StageTables,
    root: Path,
    machine: Machine,
    copies: Path | None = None,
) -> Run:
    """Return the run of a source, with everything refused that a later stage would refuse.

    Parameters
    ----------
    source
        A built-in set, features in any form or an image set.
    config, tables
        The settings of the run and of its stages.
    root
        The folder of the run.
    machine
        Where to compute; it is no part of the settings, so a run can go on elsewhere from the end of a stage.
        (The checkpoint of a baseline's epochs belongs to its device and number of threads.)
    copies
        Where a copy of the source as a store is kept, if not in the folder of the run.

    Raises
    ------
    InputError, UsageError
        The source is missing, damaged, or has no rows to measure on, or settings do not fit it.
    """
    kind = kind_of(source)
    place = dataclasses.replace(machine, device=str(devices.resolve_device(machine.device)))
    parse_groups(config.groups)
    if root.exists() and not root.is_dir():
        raise UsageError(
            f"{opt('out')} {root}: is a file where the folder of the run is expected; name another"
        )
    checks.check_settings(source, kind, config, tables, machine)
    choice = None if config.refit is None else Choice.load(config.refit)
    origin = open_origin(source, kind, config, tables, copies or root)
    if config.seeds is None:
        config = config.replace(seeds=origin.facts.measuring.repeats)
    if config.auto:
        base_candidate(tables.generate, config.generator, tables.diffuse)
    elif choice is not None:
        choice.check(origin.num_classes, source)
    checks.check_generation(origin.materials(), config, tables, machine)
    settled = tables.for_features(config.generator, origin.familiar.trained_on_rows)
    plan = RunPlan(origin.facts, config, settled, root, origin.familiar.trained_on_rows)
    return Run(plan, origin, place, choice)


class Run:
    """A run: its plan and what does the steps of it.

    Parameters
    ----------
    plan
        The steps.
    origin
        What the run starts from, open.
    machine
        Where to compute.
    choice
        The settings that were taken over from another run, if any.
    """

    def __init__(self, plan: RunPlan, origin: Origin, machine: Machine, choice: Choice | None = None) -> None:
        # With --auto, the plan goes on with what is chosen when that is known.
        self.plan, self.origin, self.machine, self.choice = plan, origin, machine, choice
        # What each head of the table answered right: it pairs the rows; known when the run is done.
        self.answers: Answers | None = None

    @property
    def from_store(self) -> bool:
        """Whether the run starts from encoded rows."""
        return self.plan.facts.baseline is None

    def overview(self) -> list[dict[str, Any]]:
        """Return, step by step, what would be done and what is there already."""
        plan = self.plan
        seeds, whole = plan.config.seed_list, plan.facts.measuring.whole
        last = {"stage": "auto", "seed": seeds[0], "status": "run", "output": "the head of the method chosen"}
        if self._selects:
            steps = [step for seed in seeds for step in plan.before_choice(seed)] + [plan.selection()]
            later = [(seed, stage) for seed in seeds for stage in STAGES_AFTER_CHOICE[whole]]
            if not whole:
                later += [(seeds[0], stage) for stage in STAGES_AFTER_CHOICE[True]]
            return (
                self._overview(steps)
                + [
                    {"stage": stage, "seed": seed, "status": "run", "output": "settings by the choice"}
                    for seed, stage in later
                ]
                + [last]
            )
        if whole:
            steps = [step for seed in seeds for step in plan.steps(seed)]
        else:
            steps = [*map(plan.measuring, seeds), *plan.steps(seeds[0])]
        return self._overview([*steps, plan.auto()] if plan.config.auto else steps)

    @staticmethod
    def _overview(steps: Iterable[Step]) -> list[dict[str, Any]]:
        return [
            {
                "stage": step.stage, "seed": step.seed, "output": str(step.output),
                "status": "run" if step.record() is None else "reuse",
            }
            for step in {step.key: step for step in steps}.values()
        ]  # fmt: skip

    def execute(self, report: Report) -> dict[str, Any]:
        """Do what is missing and return the figures of the run.

        Parameters
        ----------
        report
            Called with one line when a step has been done or found.

        Raises
        ------
        LdmlrError
            Another process is at work in the folder of the run, or a step failed.
        """
        with owned(self.plan.root / RESULT):
            return self._executed(report)

    def _executed(self, report: Report) -> dict[str, Any]:
        """Do what is missing, in a folder that is owned."""
        started = time.perf_counter()
        devices.set_threads(self.machine.threads)
        records: Records = {}
        seeds = self.plan.config.seed_list
        if self._selects:
            self._choose(records, report)
        # Where rows have to be held out to measure on, the head to keep is trained once, on all of them.
        whole = self.plan.facts.measuring.whole
        for seed in seeds:
            if whole:
                self._do(self.plan.steps(seed), records, report)
            else:
                step = self.plan.measuring(seed)
                self._once(step, self._measuring(step), records, report)
        kept = self.plan.steps(seeds[0])
        self._do(kept, records, report)
        measured = [self.plan.steps(seed).last if whole else self.plan.measuring(seed) for seed in seeds]
        last = [records[step.key] for step in measured]
        runs, facts = [record["figures"]["measured"] for record in last], self.plan.facts
        auto = self._auto(records, report)
        if auto is not None and auto["measured"]:
            runs = [[*run, entry] for run, entry in zip(runs, auto["measured"], strict=True)]
        self.answers, sizes, unmeasured = self._answers(runs)
        judged = self.answers.judged_by
        trained = [
            record["figures"] for record in records.values()
            if record["stage"] == "diffuse" and "held_out" in record["figures"]
        ]  # fmt: skip
        return {
            "rows": [
                {**row, "measured_on": facts.measuring.measured_on, "judged_by": judged}
                for row in accuracy_rows(runs)
            ],
            "measured": facts.measuring.in_full(judged),
            "unmeasured": list(unmeasured),
            "head": str(kept.last.output if auto is None else self.plan.auto().output),
            "auto": None if auto is None else auto["auto"],
            "seeds": list(seeds),
            "selection": "last epoch",
            "choice": None if self.choice is None else dict(self.choice.document),
            "features": self.origin.familiar.document(),
            "inputs": {facts.source: facts.inputs[seeds[0]][0]} if self.from_store else {},
            "baseline_head": last[0]["figures"]["baseline_head"],
            "axes": trained[0]["axes"] if trained else None,
            "iterations": trained[0].get("steps") if trained else None,
            "held_out": mean_of([figures["held_out"] for figures in trained]),
            "groups": sizes,
            "test_rows": len(self.answers.labels),
            "seconds": round(time.perf_counter() - started, 2),
            "steps": [
                {"stage": record["stage"], "seed": record["seed"], "key": record["key"],
                 "seconds": record["seconds"], "figures": _figures(record)}
                for record in records.values()
            ],
        }  # fmt: skip

    @property
    def _selects(self) -> bool:
        """Whether settings of generation are chosen on validation rows."""
        return self.plan.config.auto and self.origin.has_val

    def _auto(self, records: Records, report: Report) -> dict[str, Any] | None:
        """Choose among all methods, with --auto, and return what was chosen and measured."""
        if not self.plan.config.auto:
            return None
        plan, step = self.plan, self.plan.auto()
        seeds, tables = plan.config.seed_list, plan.tables
        own = [plan.steps(seed) for seed in seeds]
        work = partial(
            run_auto, [steps.store for steps in own], own[0].last.output, plan.config.generator,
            tables.diffuse, tables.generate, tables.select.methods, plan.config.groups, plan.trained_on_rows,
            seeds,
            seed=seeds[0], machine=self.machine,
        )  # fmt: skip
        self._once(step, work, records, report)
        found: dict[str, Any] = records[step.key]["figures"]
        return found

    def _choose(self, records: Records, report: Report) -> None:
        """Choose on the held-out rows, and go on with what was chosen."""
        before = [(seed, self.plan.before_choice(seed)) for seed in self.plan.config.seed_list]
        for _, steps in before:
            self._do(steps, records, report)
        step, tables, config = self.plan.selection(), self.plan.tables, self.plan.config
        stores = [
            (seed, steps.store.path, None if steps.diffuse is None else steps.diffuse.output)
            for seed, steps in before
        ]
        settings = Settings(
            tables.diffuse, tables.generate, tables.finetune, config.generator, config.groups,
            self.machine.backend, self.machine.device, self.machine.threads,
        )  # fmt: skip
        self._once(step, partial(stages.run_select, stores, settings, tables.select), records, report)
        self.choice = Choice.load(step.output)
        self.plan = self.plan.chosen(self.choice)

    def _measuring(self, step: Step) -> Work:
        """Return the work of a step that measures a seed on held-out rows."""
        tables, config, facts = self.plan.tables, self.plan.config, self.plan.facts
        return partial(
            stages.run_measure, self.plan.steps(step.seed).store, facts.measuring, config.generator,
            tables.diffuse, tables.generate, tables.finetune, config.groups,
            self.origin.familiar.trained_on_rows, seed=step.seed, machine=self.machine,
        )  # fmt: skip

    def _do(self, steps: SeedSteps, records: Records, report: Report) -> None:
        """Do what is missing of a seed's steps and note the records."""
        for step in steps:
            self._once(step, self.work(step, steps), records, report)

    def _once(self, step: Step, work: Work, records: Records, report: Report) -> None:
        if step.key in records:
            return
        before = step.record()
        records[step.key] = before if before is not None else step.run(work)
        done = "reused" if before is not None else f"{records[step.key]['seconds']:.1f} s"
        report(f"seed {step.seed}  {step.stage:<8}  {done:>8}  {step.output}")

    def work(self, step: Step, steps: SeedSteps) -> Work:
        """Return the work of a step: from the outputs of those before it to its own."""
        tables, config, facts = self.plan.tables, self.plan.config, self.plan.facts
        where: dict[str, Any] = {"seed": step.seed, "machine": self.machine}
        seen = self.origin.familiar.trained_on_rows
        if step.stage == "baseline":
            assert facts.baseline is not None
            assert isinstance(self.origin, ImageOrigin)
            return partial(stages.run_baseline, self.origin.images(step.seed), facts.baseline, **where)
        if step.stage == "encode":
            assert steps.baseline is not None
            assert isinstance(self.origin, ImageOrigin)
            images, model = self.origin.images(step.seed), steps.baseline.output
            assert facts.baseline is not None
            encode = tables.encode.replace(network=facts.baseline.network)
            return partial(stages.run_encode, images, model, encode, **where)
        if step.stage == "diffuse":
            return partial(stages.run_diffuse, steps.store, tables.diffuse, seen, **where)
        if step.stage == "generate":
            trained = None if steps.diffuse is None else steps.diffuse.output
            return partial(
                stages.run_generate, steps.store, trained, config.generator, tables.diffuse, tables.generate,
                seen, **where,
            )  # fmt: skip
        assert steps.generate is not None
        return partial(
            stages.run_finetune, steps.store, steps.generate.output, config.generator, tables.finetune,
            config.groups, **where,
        )  # fmt: skip

    def _answers(
        self, runs: Sequence[Sequence[dict[str, Any]]]
    ) -> tuple[Answers, dict[str, int], tuple[str, ...]]:
        """Return what was right, the classes per shot group (of the first seed), and the untested ones."""
        groups = parse_groups(self.plan.config.groups)
        measuring = self.plan.facts.measuring
        with self.plan.steps(self.plan.config.seed_list[0]).store.open() as store:
            counts = store.split("train").encoded_counts
            answers = Answers.of(runs, measuring.measured_rows(store), counts, groups)
            unmeasured = measuring.unmeasured(store)
        return answers, dict(group_sizes(counts, groups)), unmeasured


def _figures(record: dict[str, Any]) -> dict[str, Any]:
    """Return the figures of a step as the document has them: without a bit for every test row."""
    figures: dict[str, Any] = record["figures"]
    if "measured" not in figures:
        return figures
    measured = [{k: v for k, v in entry.items() if k != "right"} for entry in figures["measured"]]
    return {**figures, "measured": measured}
