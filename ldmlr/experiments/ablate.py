"""Run an ablation: one store, the same seeds, head and stage 3 for every setting."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ldmlr import progress
from ldmlr.device import resolve_device
from ldmlr.errors import UsageError, opt
from ldmlr.experiments.compare import shift_rule
from ldmlr.experiments.diffusion import Diffusion, check_drawing
from ldmlr.experiments.methods import Bench, with_generated
from ldmlr.experiments.protocol import BASELINE_TAU
from ldmlr.experiments.settings import KINDS, AblateConfig, Setting, make_settings
from ldmlr.experiments.warm import warm_up
from ldmlr.generation.plan import Counts, plan_from_config
from ldmlr.generation.train_rows import Generated, TrainRows, train_rows
from ldmlr.groups import ClassGroups, ShotGroups
from ldmlr.heads.evaluation import Measured, Variant, group_sizes, measure, plain_variants, result_rows
from ldmlr.heads.finetune import baseline_head
from ldmlr.heads.headfile import LAST_EPOCH
from ldmlr.results import spread
from ldmlr.run.config import StageTables

if TYPE_CHECKING:
    from ldmlr.store import FeatureStore

METHOD = "ldmlr"


def ablate(
    store: FeatureStore,
    kind: str,
    config: AblateConfig,
    tables: StageTables,
    *,
    seeds: int = 5,
    groups: ClassGroups | None = None,
    device: str = "auto",
    threads: int | None = None,
    backend: str = "auto",
    report: Callable[[str], None] = lambda message: None,
) -> dict[str, Any]:
    """Run every setting with seeds 0 .. K-1 and return the figures of the result document.

    A diffusion model is trained once per seed and configuration: settings that only draw otherwise share it.

    Parameters
    ----------
    store
        Encoded training rows, a test split and, where there is one, the baseline's head.
    kind
        What is varied: a key of `ldmlr.experiments.settings.KINDS`.
    config
        Over which values.
    tables
        Configurations of the stages, from which every setting starts.
    seeds
        K.
    groups
        Shot groups; many > 100, few < 20 by default.
    device, threads, backend
        Where to compute and what draws the rows.
    report
        Called with one line per seed.

    Returns
    -------
    dict
        ``rows`` (the accuracy table: the baseline, then each setting, without and with label shift;
        ``setting`` names it, ``generated`` has its rows, ``seconds`` and ``drawing_seconds`` its time),
        ``ablation``, ``values``, ``left_out``, ``label_shift``, ``seeds``, ``selection``, ``baseline_head``,
        ``head``, ``groups``, ``encoded_rows``, ``views``, ``backend``.

    Raises
    ------
    InputError
        There is no test split, or training rows that cannot be used.
    UsageError
        A value that the ablation or the store does not allow, or a gate.
    """
    check_drawing(tables.generate, "ablate")
    test, chosen = store.split("test"), groups or ShotGroups()
    settings = make_settings(kind, config.values, tables.diffuse, tables.generate)
    place = str(resolve_device(device))
    rows = train_rows(store, tables.diffuse.weak_views, tables.diffuse.strong_views)
    sizes = dict(group_sizes(rows.counts, chosen))
    settings, left_out = _occupied(settings, sizes, bool(config.values))
    plans = [plan_from_config(rows.counts, setting.drawing, store.class_names) for setting in settings]
    models = Diffusion(place, threads, backend)
    runs: list[list[Measured]] = []
    seconds: list[list[float]] = [[] for _ in settings]
    drawing: list[list[float]] = [[] for _ in settings]
    warm_up([METHOD], place)
    with progress.bar(seeds * len(settings), f"ablate {kind}", "setting") as bar:
        for seed in range(seeds):
            begin = time.perf_counter()
            baseline, origin = baseline_head(rows.training_rows(), store.head, seed, place)
            tuning = tables.finetune.settled(baseline.kind)
            variants: list[Variant] = plain_variants("baseline", baseline, rows.counts, BASELINE_TAU)
            for at, (setting, plan) in enumerate(zip(settings, plans, strict=True)):
                bar.set_postfix_str(setting.name)
                start, models.borrowed, models.drawing = time.perf_counter(), 0.0, 0.0
                bench = Bench(rows, baseline, origin, plan, tables, tuning, seed, models)
                variants += with_generated(METHOD, bench, _draw(bench, setting), tuning).variants
                seconds[at].append(time.perf_counter() - start + models.borrowed)
                drawing[at].append(models.drawing)
                bar.update(1)
            models.forget()
            runs.append(measure(variants, test, rows.counts, chosen, place))
            report(f"seed {seed}  {len(settings)} settings  {time.perf_counter() - begin:.1f} s")
    return {
        "ablation": kind,
        "what": KINDS[kind].what,
        "rows": _rows(runs, settings, plans, seconds, drawing),
        "values": [setting.name for setting in settings],
        "left_out": left_out,
        "label_shift": shift_rule(tuning.average, tuning.tau_shift),
        "seeds": list(range(seeds)),
        "selection": f"{LAST_EPOCH}; test figures, which show what a setting does and choose none",
        "baseline_head": origin,
        "head": {"baseline": baseline.kind, "trained": tuning.head},
        "groups": sizes,
        "encoded_rows": len(rows.labels),
        "views": list(rows.kinds),
        "backend": models.chosen or None,
    }


def _draw(bench: Bench, setting: Setting) -> Generated:
    """Return the rows of a setting; none, without training a model, where its plan asks for none."""
    rows: TrainRows = bench.rows
    if not bench.plan.any():
        return Generated(np.zeros((0, rows.features.shape[1]), np.float32), np.zeros(0, np.int64))
    return bench.models.draw(rows, bench.plan, bench.seed, setting.model, setting.drawing)


def _occupied(
    settings: Sequence[Setting], sizes: dict[str, int], given: bool
) -> tuple[list[Setting], list[str]]:
    """Return the settings without those that repeat another one here, and the names of these.

    A group without classes adds nothing to a union, and alone generates nothing: what is asked for by name
    may repeat another setting, but must fill a class.
    """
    kept: list[Setting] = []
    left_out: list[str] = []
    seen: set[tuple[str, ...]] = set()
    for setting in settings:
        fills = tuple(name for name in setting.fills if sizes[name])
        if setting.fills and not fills and given:
            raise UsageError(
                f"{opt('values')}: this store has no {' or '.join(setting.fills)} classes to fill; leave "
                f"{setting.name} out or set {opt('groups')}"
            )
        if setting.fills and not given and (not fills or fills in seen):
            left_out.append(setting.name)
            continue
        seen.add(fills)
        kept.append(setting)
    return kept, left_out


def _rows(
    runs: Sequence[Sequence[Measured]],
    settings: Sequence[Setting],
    plans: Sequence[Counts],
    seconds: Sequence[Sequence[float]],
    drawing: Sequence[Sequence[float]],
) -> list[dict[str, Any]]:
    """Return the accuracy table: two rows of the baseline, then two of each setting."""
    table = result_rows(runs)
    for row in table[:2]:
        row["setting"] = None
    for at, row in enumerate(table[2:]):
        which = at // 2
        row["setting"] = settings[which].name
        row["generated"] = int(plans[which].sum())
        row["seconds"] = spread(seconds[which])
        row["drawing_seconds"] = spread(drawing[which])
    return table
