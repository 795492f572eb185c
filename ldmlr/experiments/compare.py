"""LDMLR beside other methods on one store: the same rows, seeds, head, stage 3 and test split for all."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ldmlr.device import Machine, resolve_device
from ldmlr.diffusion.learned import mean_of
from ldmlr.errors import UsageError, opt
from ldmlr.experiments.catalogue import METHODS, CompareConfig
from ldmlr.experiments.loop import Arm, over_seeds
from ldmlr.experiments.methods import MAKERS, Bench, check_drawing
from ldmlr.experiments.verdict import RECIPE, best_row, compare_verdict
from ldmlr.experiments.warm import warm_up
from ldmlr.generation.plan import plan_from_config
from ldmlr.generation.train_rows import TrainRows, train_rows
from ldmlr.groups import ClassGroups
from ldmlr.heads.config import FinetuneConfig
from ldmlr.heads.headfile import LAST_EPOCH
from ldmlr.heads.training_rows import TrainingRows
from ldmlr.metrics.familiar import familiar
from ldmlr.results import spread
from ldmlr.run.config import StageTables
from ldmlr.select.auto import open_contest
from ldmlr.store.heldout import Measuring

if TYPE_CHECKING:
    from ldmlr.store import FeatureStore

Report = Callable[[str], None]


def compare(
    store: FeatureStore,
    config: CompareConfig,
    tables: StageTables,
    *,
    seeds: int | Sequence[int] | None = None,
    groups: ClassGroups | None = None,
    device: str = "auto",
    threads: int | None = None,
    backend: str = "auto",
    report: Report = lambda message: None,
) -> dict[str, Any]:
    """Run every method with every seed and return the figures of the result document.

    Parameters
    ----------
    store
        Encoded training rows, a test split (else rows are held out) and, where there is one, the baseline's
        head. Views of the
        training rows are used as stage 2 uses them; generated rows are left out.
    config
        Which methods.
    tables
        Configurations of the stages: `diffuse`, `generate` and `finetune`.
    seeds
        K.  [default: 5 with a test split, else 2]
    groups
        Shot groups; many > 100, few < 20 by default.
    device, threads, backend
        Where to compute and what draws LDMLR's rows.
    report
        Called with one line per seed.

    Returns
    -------
    dict
        ``rows`` (the accuracy table), ``verdict``, ``best`` (its best row), ``label_shift``, ``notes``,
        ``left_out``, ``seeds``, ``selection``, ``baseline_head``, ``head``, ``groups``, ``encoded_rows``,
        ``views``, ``test_rows``, ``held_out`` (what training added to the class Gaussian in the method
        ``ldmlr``; each row of the table has its own), ``backend``.

    Raises
    ------
    InputError
        There is no test split, or training rows that cannot be used.
    UsageError
        A method is asked for that needs views the store lacks, or a gate.
    """
    check_drawing(tables.generate, "compare")
    measuring = Measuring.of(store, config)
    place = str(resolve_device(device))
    rows = train_rows(store, tables.diffuse.weak_views, tables.diffuse.strong_views)
    seen = familiar(store, config.encoder_trained_on_rows)
    names, left_out = _selected(config, rows, seen.trained_on_rows)

    def arms(part: FeatureStore, rows: TrainRows) -> dict[str, Arm]:
        plan = plan_from_config(rows.counts, tables.generate, store.class_names)
        contest = open_contest(
            part, seen.trained_on_rows, rows=rows, diffuse=tables.diffuse, generate=tables.generate,
            kind="linear" if config.head == "auto" else config.head,
            machine=Machine(place, threads, backend),
        )  # fmt: skip
        bench = Bench(rows, plan, tables, threads, backend, seen.trained_on_rows, contest)
        return {name: functools.partial(MAKERS[name], name, bench) for name in names}

    def setup(part: FeatureStore) -> tuple[dict[str, Arm], TrainingRows]:
        some = train_rows(part, tables.diffuse.weak_views, tables.diffuse.strong_views)
        return arms(part, some), some.training_rows()

    warm_up(names, place)
    found = over_seeds(
        arms(store, rows), store, rows.training_rows(), tables.finetune.for_features(seen.trained_on_rows),
        seeds=seeds or measuring.repeats, groups=groups, device=place, label="compare",
        said=f"{len(names)} methods", report=report, measuring=measuring, setup=setup,
    )  # fmt: skip
    for name, row in found.table:
        entry, record = METHODS[name], found.records[name]
        row |= {
            "family": entry.family, "what": entry.what, "head": record.head,
            "generated": record.generated, "seconds": spread(record.seconds),
            "held_out": mean_of(record.held_out),
            "chosen": record.choices[-1] if record.choices else None,
        }  # fmt: skip
        # By folds every part chooses for itself, and so may every seed.
        if any(choice != record.choices[-1] for choice in record.choices):
            row["choices"] = record.choices
    test_rows = len(found.answers.labels)
    return {
        "rows": found.rows,
        "verdict": compare_verdict(found.rows, test_rows, found.answers),
        "best": best_row(found.rows),
        "label_shift": f"{shift_rule(found.tuning)}; tau-norm and ncm have none",
        "notes": [f"{name}: {note}" for name in names for note in found.records[name].notes],
        "left_out": left_out,
        "features": seen.document(),
        "selection": f"{LAST_EPOCH}; {measuring.words()}, used once, for the figures",
        "head": found.heads,
        **found.figures,
        "views": list(rows.kinds),
        "test_rows": test_rows,
        "held_out": next((row["held_out"] for row in found.rows if row["method"] == RECIPE), None),
        "backend": found.backend,
    }


def shift_rule(tuning: FinetuneConfig) -> str:
    """Return the rule of the label-shift rows in words; it is stated with every comparison."""
    share = tuning.average
    return (
        f"label shift of every fine-tuned head: {share:g} x baseline head + {1 - share:g} x new head "
        f"- {tuning.tau_shift:g} x log prior; of the baseline and of a tuned head: logits - log prior"
    )


def _selected(config: CompareConfig, rows: TrainRows, trained_on_rows: bool) -> tuple[list[str], list[str]]:
    """Return the methods that run and those the store does not allow."""
    blind = [name for name, entry in METHODS.items() if entry.needs_views and not rows.views]
    if not config.methods:
        aside = [
            name for name, entry in METHODS.items()
            if entry.optional or (entry.familiar and not trained_on_rows)
        ]  # fmt: skip
        return [name for name in METHODS if name not in (*blind, *aside)], blind
    for name in config.methods:
        if name in blind:
            raise UsageError(
                f"{opt('methods')}: {name} needs augmented views, and {rows.name} is used without; "
                "encode with "
                f"{opt('views')} (and train with {opt('set')} diffuse.weak_views above 0), or leave the "
                "method out"
            )
    return list(config.methods), []
