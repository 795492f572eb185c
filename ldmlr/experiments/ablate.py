"""Run an ablation: one store, the same seeds, head and stage 3 for every setting."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ldmlr.device import resolve_device
from ldmlr.diffusion.learned import mean_of
from ldmlr.errors import UsageError, counted, opt
from ldmlr.experiments.compare import shift_rule
from ldmlr.experiments.loop import Arm, baseline_arm, over_seeds
from ldmlr.experiments.methods import MAKERS, Bench, check_drawing
from ldmlr.experiments.settings import KINDS, AblateConfig, Setting, make_settings
from ldmlr.experiments.warm import warm_up
from ldmlr.generation.generators.catalogue import DIFFUSION
from ldmlr.generation.plan import plan_from_config
from ldmlr.generation.train_rows import TrainRows, train_rows
from ldmlr.groups import ClassGroups, ShotGroups
from ldmlr.heads.evaluation import group_sizes
from ldmlr.heads.headfile import LAST_EPOCH
from ldmlr.heads.training_rows import TrainingRows
from ldmlr.metrics.familiar import familiar
from ldmlr.results import spread
from ldmlr.run.config import StageTables
from ldmlr.store.heldout import Measuring

if TYPE_CHECKING:
    from ldmlr.store import FeatureStore

METHOD = "ldmlr"


def ablate(
    store: FeatureStore,
    kind: str,
    config: AblateConfig,
    tables: StageTables,
    *,
    seeds: int | Sequence[int] | None = None,
    groups: ClassGroups | None = None,
    device: str = "auto",
    threads: int | None = None,
    backend: str = "auto",
    report: Callable[[str], None] = lambda message: None,
) -> dict[str, Any]:
    """Run every setting with every seed and return the figures of the result document.

    A diffusion model is trained once per seed and configuration: settings that only draw otherwise share it.

    Parameters
    ----------
    store
        Encoded training rows, a test split (else rows are held out) and, where there is one, the baseline's
        head.
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
        ``setting`` names it, ``generated`` has its rows, ``seconds`` and ``drawing_seconds`` its time,
        ``held_out`` what training added to the class Gaussian),
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
    measuring = Measuring.of(store, config)
    chosen = groups or ShotGroups()
    seen = familiar(store, config.encoder_trained_on_rows)
    tables = tables.for_features(DIFFUSION, seen.trained_on_rows)
    settings = make_settings(kind, config.values, tables.diffuse, tables.generate)
    place = str(resolve_device(device))
    rows = train_rows(store, tables.diffuse.weak_views, tables.diffuse.strong_views)
    settings, left_out = _occupied(settings, dict(group_sizes(rows.counts, chosen)), bool(config.values))

    def arms(rows: TrainRows) -> dict[str, Arm]:
        made: dict[str, Arm] = {"baseline": baseline_arm}
        for setting in settings:
            plan = plan_from_config(rows.counts, setting.drawing, store.class_names)
            own = dataclasses.replace(tables, diffuse=setting.model, generate=setting.drawing)
            bench = Bench(rows, plan, own, threads, backend)
            made[setting.name] = functools.partial(MAKERS[METHOD], METHOD, bench)
        return made

    def setup(part: FeatureStore) -> tuple[dict[str, Arm], TrainingRows]:
        some = train_rows(part, tables.diffuse.weak_views, tables.diffuse.strong_views)
        return arms(some), some.training_rows()

    warm_up([METHOD], place)
    found = over_seeds(
        arms(rows), store, rows.training_rows(), tables.finetune,
        seeds=seeds or measuring.repeats, groups=chosen, device=place, label=f"ablate {kind}",
        said=f"{counted(len(settings), 'setting')}", report=report, measuring=measuring, setup=setup,
    )  # fmt: skip
    names = {setting.name for setting in settings}
    for name, row in found.table:
        record = found.records[name]
        row["setting"] = name if name in names else None
        if name in names:
            row["generated"] = record.generated[0]  # the plan's, for every seed
            row["seconds"], row["drawing_seconds"] = spread(record.seconds), spread(record.drawing)
            row["held_out"] = mean_of(record.held_out)
    return {
        "ablation": kind,
        "what": KINDS[kind].what,
        "rows": found.rows,
        "values": [setting.name for setting in settings],
        "left_out": left_out,
        "features": seen.document(),
        "label_shift": shift_rule(found.tuning),
        "selection": f"{LAST_EPOCH}; {measuring.words()}: shows what a setting does, and chooses none",
        "head": found.heads,
        **found.figures,
        "views": list(rows.kinds),
        "backend": found.backend,
    }


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
