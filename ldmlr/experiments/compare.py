"""LDMLR beside its rivals on one store: the same rows, seeds, head, stage 3 and test split for all."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ldmlr import progress
from ldmlr.device import resolve_device
from ldmlr.errors import UsageError, opt
from ldmlr.experiments.catalogue import METHODS, CompareConfig
from ldmlr.experiments.diffusion import Diffusion, check_drawing
from ldmlr.experiments.methods import MAKERS, Bench
from ldmlr.experiments.verdict import verdict
from ldmlr.experiments.warm import warm_up
from ldmlr.generation.plan import plan_from_config
from ldmlr.generation.train_rows import TrainRows, train_rows
from ldmlr.groups import ClassGroups, ShotGroups
from ldmlr.heads.evaluation import Measured, group_sizes, measure, result_rows
from ldmlr.heads.finetune import baseline_head
from ldmlr.heads.headfile import LAST_EPOCH
from ldmlr.results import spread
from ldmlr.run.config import StageTables

if TYPE_CHECKING:
    from ldmlr.store import FeatureStore

Report = Callable[[str], None]


def compare(
    store: FeatureStore,
    config: CompareConfig,
    tables: StageTables,
    *,
    seeds: int = 5,
    groups: ClassGroups | None = None,
    device: str = "auto",
    threads: int | None = None,
    backend: str = "auto",
    report: Report = lambda message: None,
) -> dict[str, Any]:
    """Run every method with seeds 0 .. K-1 and return the figures of the result document.

    Parameters
    ----------
    store
        Encoded training rows, a test split and, where there is one, the baseline's head. Views of the
        training rows are used as stage 2 uses them; generated rows are left out.
    config
        Which methods.
    tables
        Configurations of the stages: `diffuse`, `generate` and `finetune`.
    seeds
        K.
    groups
        Shot groups; many > 100, few < 20 by default.
    device, threads, backend
        Where to compute and what draws LDMLR's rows.
    report
        Called with one line per seed.

    Returns
    -------
    dict
        ``rows`` (the accuracy table), ``verdict``, ``label_shift`` (the rule in words), ``notes``,
        ``left_out``, ``seeds``, ``selection``, ``baseline_head``, ``head``, ``groups``, ``encoded_rows``,
        ``views``, ``test_rows``, ``backend``.

    Raises
    ------
    InputError
        There is no test split, or training rows that cannot be used.
    UsageError
        A method is asked for that needs views the store lacks, or a gate.
    """
    check_drawing(tables.generate, "compare")
    test, chosen = store.split("test"), groups or ShotGroups()
    place = str(resolve_device(device))
    rows = train_rows(store, tables.diffuse.weak_views, tables.diffuse.strong_views)
    names, left_out = _selected(config, rows)
    plan = plan_from_config(rows.counts, tables.generate, store.class_names)
    models = Diffusion(place, threads, backend)
    runs: list[list[Measured]] = []
    seconds: dict[str, list[float]] = {name: [] for name in names}
    generated: dict[str, list[int]] = {name: [] for name in names}
    notes: dict[str, dict[str, None]] = {name: {} for name in names}
    warm_up(names, place)
    with progress.bar(seeds * len(names), "compare", "method") as bar:
        for seed in range(seeds):
            begin = time.perf_counter()
            baseline, origin = baseline_head(rows.training_rows(), store.head, seed, place)
            tuning = tables.finetune.settled(baseline.kind)
            bench = Bench(rows, baseline, origin, plan, tables, tuning, seed, models)
            variants = []
            for name in names:
                bar.set_postfix_str(name)
                start, models.borrowed = time.perf_counter(), 0.0
                made = MAKERS[name](name, bench)
                seconds[name].append(time.perf_counter() - start + models.borrowed)
                generated[name].append(made.generated)
                notes[name].update(dict.fromkeys(made.notes))
                variants += made.variants
                bar.update(1)
            models.forget()
            if not variants:
                raise UsageError(
                    f"{opt('methods')}: {', '.join(names)} cannot be measured here: {_why(notes)}"
                )
            runs.append(measure(variants, test, rows.counts, chosen, place))
            report(f"seed {seed}  {len(names)} methods  {time.perf_counter() - begin:.1f} s")
    kinds = {variant.method: variant.head.kind for variant in variants if variant.adjustment == "none"}
    table = result_rows(runs)
    test_rows = int(test.encoded_counts.sum())
    for row in table:
        entry = METHODS[row["method"]]
        row["family"], row["what"] = entry.family, entry.what
        row["head"] = kinds[row["method"]]
        row["generated"] = generated[row["method"]]
        row["seconds"] = spread(seconds[row["method"]])
    return {
        "rows": table,
        "verdict": verdict(table, test_rows=test_rows),
        "label_shift": f"{shift_rule(tuning.average, tuning.tau_shift)}; tau-norm and ncm have none",
        "notes": [f"{name}: {note}" for name in names for note in notes[name]],
        "left_out": left_out,
        "seeds": list(range(seeds)),
        "selection": f"{LAST_EPOCH}; the test split is used once, for the figures",
        "baseline_head": origin,
        "head": {"baseline": baseline.kind, "trained": tuning.head},
        "groups": dict(group_sizes(rows.counts, chosen)),
        "encoded_rows": len(rows.labels),
        "views": list(rows.kinds),
        "test_rows": test_rows,
        "backend": models.chosen or None,
    }


def _why(notes: Mapping[str, Mapping[str, None]]) -> str:
    return "; ".join(dict.fromkeys(note for entries in notes.values() for note in entries))


def shift_rule(average: float, tau: float) -> str:
    """Return the rule of the label-shift rows in words; it is stated with every comparison."""
    return (
        f"label shift of every trained head: {average:g} x baseline head + {1 - average:g} x new head "
        f"- {tau:g} x log prior; of the baseline: logits - log prior"
    )


def _selected(config: CompareConfig, rows: TrainRows) -> tuple[list[str], list[str]]:
    """Return the methods that run and those the store does not allow."""
    blind = [name for name, entry in METHODS.items() if entry.needs_views and not rows.views]
    if not config.methods:
        return [name for name in METHODS if name not in blind], blind
    for name in config.methods:
        if name in blind:
            raise UsageError(
                f"{opt('methods')}: {name} needs augmented views, and {rows.name} is used without; "
                "encode with "
                f"{opt('views')} (and train with {opt('set')} diffuse.weak_views above 0), or leave the "
                "method out"
            )
    return list(config.methods), []
