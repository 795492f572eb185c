"""How each method of the catalogue makes its heads: one seed, one method.

One rule for the label-shift row of every head that was trained here, generated rows or not: half the
baseline's head, half the new head, minus ``0.75 log prior`` of the training classes (``average`` and
``tau_shift`` of stage 3). The baseline's own label-shift row is its logits minus the whole log prior, as
published. Nearest class mean and tau-normalisation have none.

One stage 3 for all: the optimiser, the passes and the head-mix of ``ldmlr finetune``. Only cRT, which starts
from a fresh head, has a longer schedule where it needs it (`ldmlr.experiments.baselines.crt`). Two methods
leave the mix out by definition, `ldmlr-paper` and `ldmlr-plain`; where no row is generated there is nothing
to mix.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import numpy as np

from ldmlr.experiments import diffusion
from ldmlr.experiments.baselines import crt, ncm, tau_norm
from ldmlr.experiments.protocol import BASELINE_TAU
from ldmlr.generation.generators.fit import fit
from ldmlr.generation.plan import Counts, labels_of, plan_from_config
from ldmlr.generation.train_rows import Generated, TrainRows
from ldmlr.heads.config import FinetuneConfig
from ldmlr.heads.evaluation import Variant, plain_variants
from ldmlr.heads.finetune import start_head
from ldmlr.heads.headfile import FinetunedHead
from ldmlr.heads.modules import Head, LinearHead
from ldmlr.heads.training import train_head
from ldmlr.heads.training_rows import TrainingRows
from ldmlr.run.config import StageTables


@dataclasses.dataclass(frozen=True)
class Bench:
    """What every method of a seed starts from.

    Parameters
    ----------
    rows
        Training rows.
    baseline, origin
        The head that methods start from and are compared with; ``stored`` or ``fitted``.
    plan
        Rows to generate per class ``[C]``.
    tables
        Configurations of the stages.
    tuning
        Stage 3, with the kind of head settled.
    seed
        Everything random depends on it alone.
    models
        Trains and keeps the diffusion models of the seed.
    """

    rows: TrainRows
    baseline: Head
    origin: str
    plan: Counts
    tables: StageTables
    tuning: FinetuneConfig
    seed: int
    models: diffusion.Diffusion


@dataclasses.dataclass(frozen=True)
class Made:
    """Heads of a method, ready to be measured, the rows it generated and remarks for the user."""

    variants: list[Variant]
    generated: int = 0
    notes: tuple[str, ...] = ()


Method = Callable[[str, Bench], Made]


def _baseline(name: str, bench: Bench) -> Made:
    return Made(plain_variants(name, bench.baseline, bench.rows.counts, BASELINE_TAU))


def _trained(name: str, bench: Bench, rows: TrainingRows, config: FinetuneConfig) -> list[Variant]:
    """Train a head by stage 3 and return it as it is and with label shift."""
    start = start_head(config, bench.baseline, rows, bench.seed)
    history = train_head(start, rows, config, seed=bench.seed, device=bench.models.device, label=name)
    tuned = FinetunedHead(
        start, bench.baseline, bench.origin, bench.rows.counts, config, bench.seed, history, rows.generated
    )
    return [
        Variant(name, "none", tuned.head),
        Variant(name, "label-shift", tuned.label_shifted(), config.tau_shift),
    ]


def _balanced_softmax(name: str, bench: Bench, *, views: bool) -> Made:
    config = bench.tuning.replace(loss="balanced-softmax", tau=1.0)
    return Made(_trained(name, bench, bench.rows.training_rows(views), config))


def _crt(name: str, bench: Bench, *, views: bool) -> Made:
    rows = crt.balanced_rows(bench.rows, bench.seed, views)
    return Made(_trained(name, bench, rows, crt.fresh_config(bench.tuning, bench.baseline, rows)))


def _tau_norm(name: str, bench: Bench, *, views: bool) -> Made:
    # A head that sees cosines only has normalised its weights already.
    if not isinstance(bench.baseline, LinearHead):
        return Made([], notes=(f"a {bench.baseline.kind} head normalises its weights itself; left out",))
    tau = tau_norm.choose_tau(bench.baseline, bench.rows) if views else 1.0
    head = tau_norm.tau_normalised(bench.baseline, tau)
    edge = ", the end of the range" if tau in (tau_norm.TAUS[0], tau_norm.TAUS[-1]) else ""
    return Made([Variant(name, "none", head)], notes=(f"tau {tau:g}{edge}",))


def _ncm(name: str, bench: Bench, *, views: bool) -> Made:
    return Made([Variant(name, "none", ncm.nearest_class_mean(bench.rows, views))])


def _generating(name: str, bench: Bench, *, generator: str) -> Made:
    """Return the heads trained with the rows of a generator, which are those of ``ldmlr run``."""
    drawing = bench.tables.generate
    if generator == "gaussian":
        drawing = drawing.replace(scale=None, class_scale={})
    made = fit(generator, bench.rows, drawing)
    labels = labels_of(bench.plan, 0, int(bench.plan.sum()))
    rows = made.draw(labels, bench.seed)
    return with_generated(name, bench, Generated(rows, labels, made.notes), bench.tuning)


def _ldmlr(name: str, bench: Bench) -> Made:
    tables = bench.tables
    drawn = bench.models.draw(bench.rows, bench.plan, bench.seed, tables.diffuse, tables.generate)
    return with_generated(name, bench, drawn, bench.tuning)


def _ldmlr_plain(name: str, bench: Bench) -> Made:
    drawing = diffusion.plain_settings(bench.tables.generate)
    drawn = bench.models.draw(bench.rows, bench.plan, bench.seed, bench.tables.diffuse, drawing)
    return with_generated(name, bench, drawn, bench.tuning.replace(mix=1.0))


def _ldmlr_paper(name: str, bench: Bench) -> Made:
    model, drawing = diffusion.paper_settings(bench.tables.diffuse, bench.tables.generate)
    plan = plan_from_config(bench.rows.counts, drawing)
    drawn = bench.models.draw(bench.rows, plan, bench.seed, model, drawing)
    return with_generated(name, bench, drawn, bench.tuning.replace(mix=1.0))


def with_generated(name: str, bench: Bench, generated: Generated, config: FinetuneConfig) -> Made:
    """Return the heads of stage 3 on clean and generated rows, as they are and with label shift."""
    rows = bench.rows
    merged = TrainingRows(
        np.concatenate([rows.features, generated.features]),
        np.concatenate([rows.labels, generated.labels]),
        len(rows.labels), rows.num_classes, rows.name,
    )  # fmt: skip
    return Made(_trained(name, bench, merged, config), len(generated.labels), generated.notes)


def _pair(name: str, method: Callable[..., Made]) -> dict[str, Method]:
    """Return a method on clean rows and the same on clean rows and views."""
    return {
        name: functools.partial(method, views=False),
        f"{name}-views": functools.partial(method, views=True),
    }


def _rows_of(generator: str) -> Method:
    return functools.partial(_generating, generator=generator)


MAKERS: dict[str, Method] = {
    "baseline": _baseline,
    **_pair("balanced-softmax", _balanced_softmax),
    **_pair("crt", _crt),
    **_pair("tau-norm", _tau_norm),
    **_pair("ncm", _ncm),
    "random-oversampling": _rows_of("oversampling"),
    "duplicated-views": _rows_of("views"),
    **{name: _rows_of(name) for name in ("smote", "smote-views", "adasyn", "adasyn-views")},
    "gaussian": _rows_of("gaussian"),
    "gaussian-wide": _rows_of("gaussian-wide"),
    "ldmlr-paper": _ldmlr_paper,
    "ldmlr-plain": _ldmlr_plain,
    "ldmlr": _ldmlr,
}
