"""How each method of the catalogue makes its heads: one seed, one method.

**Tuned**: a fresh head at its best, with weight decay and whatever else there is to choose taken from
held-out training rows (`ldmlr.select.contest`), by the same rule for all. So are the methods without
generation that the catalogue calls tuned, and, where the encoder has not seen the training rows, cRT and
those with generation: there the choice is also how far classes are filled up, and the rest is left to
balanced softmax.

**Fine-tuned** by one stage 3, the optimiser, the passes and the head-mix of ``ldmlr finetune``: methods with
generation where the encoder has seen the rows, as the baseline's head is a part of the recipe there, and cRT
likewise, which has a longer schedule where it needs it (`ldmlr.experiments.baselines`). Two methods leave the
mix out by definition, `ldmlr-paper` and `ldmlr-plain`. One rule for their label-shift rows: half the
baseline's head, half the new head, minus ``0.75 log prior`` of the training classes (``average`` and
``tau_shift`` of stage 3). That of the baseline, and of a tuned head that has learned the prior, is its logits
minus the whole log prior.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ldmlr.device import Machine
from ldmlr.diffusion.config import DiffusionConfig
from ldmlr.errors import UsageError
from ldmlr.experiments import baselines
from ldmlr.experiments.catalogue import TUNED
from ldmlr.experiments.loop import Made, Seed, baseline_arm
from ldmlr.generation.config import GenerateConfig
from ldmlr.generation.generators.base import Generator
from ldmlr.generation.generators.catalogue import GENERATORS
from ldmlr.generation.generators.diffusion import Diffusion, train
from ldmlr.generation.generators.fit import fit
from ldmlr.generation.plan import Counts, labels_of, plan_from_config
from ldmlr.generation.train_rows import TrainRows
from ldmlr.heads.config import FinetuneConfig
from ldmlr.heads.evaluation import Variant, tuned_variants
from ldmlr.heads.finetune import tuned_head
from ldmlr.heads.fit import fit_head
from ldmlr.heads.modules import LinearHead
from ldmlr.heads.training_rows import TrainingRows
from ldmlr.run.config import StageTables
from ldmlr.select.contest import Contest, Trial, values
from ldmlr.select.entrants import ENTRANTS
from ldmlr.select.inner import fill_plan


@dataclasses.dataclass(frozen=True)
class Bench:
    """What every method has beside its seed.

    Parameters
    ----------
    rows
        Training rows with their views.
    plan
        Rows to generate per class ``[C]``.
    tables
        Configurations of the stages.
    threads, backend
        For training and drawing LDMLR's rows.
    trained_on_rows
        Whether the encoder has seen the training rows: widening and guidance of LDMLR's rows follow from it.
    contest
        Where methods are tuned on held-out training rows; None: stage 3 fine-tunes those that generate.
    """

    rows: TrainRows
    plan: Counts
    tables: StageTables
    threads: int | None = None
    backend: str = "auto"
    trained_on_rows: bool = True
    contest: Contest | None = None

    def with_stages(
        self, model: DiffusionConfig, drawing: GenerateConfig, plan: Counts | None = None
    ) -> Bench:
        """Return it with another model, way of drawing and, if one is given, plan."""
        tables = dataclasses.replace(self.tables, diffuse=model, generate=drawing)
        return dataclasses.replace(self, tables=tables, plan=self.plan if plan is None else plan)


@dataclasses.dataclass(frozen=True)
class Drawn:
    """Generated rows.

    Parameters
    ----------
    features, labels
        ``[M, D]`` and their classes ``[M]``.
    notes
        Remarks for the user.
    seconds
        Of drawing alone: what had to be fitted before is not in it.
    backend
        What drew the rows of a diffusion model.
    held_out
        What its training added to the class Gaussian.
    """

    features: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]
    notes: tuple[str, ...] = ()
    seconds: float = 0.0
    backend: str = ""
    held_out: Mapping[str, Any] | None = None


Method = Callable[[str, Bench, Seed], Made]


def _baseline(name: str, bench: Bench, seed: Seed) -> Made:
    return baseline_arm(seed)


def _trained(
    name: str, bench: Bench, seed: Seed, rows: TrainingRows, config: FinetuneConfig
) -> list[Variant]:
    """Train a head by stage 3 and return it as it is and with label shift."""
    tuned = tuned_head(
        rows, seed.baseline, seed.origin, config, seed.number,
        counts=bench.rows.counts, device=seed.device, label=name,
    )  # fmt: skip
    return tuned_variants(tuned, name)


def _tuned(name: str, bench: Bench, seed: Seed) -> Made:
    """Return a fresh head with everything chosen on held-out training rows."""
    trial = _trial(name, bench)
    return _fresh(trial, bench.rows.training_rows(trial.entrant.views), seed)


def _trial(name: str, bench: Bench) -> Trial:
    """Return what held-out rows chose for a method: once, for all seeds."""
    contest = bench.contest
    assert contest is not None
    contest.enter([name], may_stop=False)
    return contest.trials[name]


def _fresh(trial: Trial, rows: TrainingRows, seed: Seed, drawn: Drawn | None = None) -> Made:
    """Return the head of a trial on rows, as it is and, if it has learned the prior, with label shift."""
    found = fit_head(rows, trial.spec, seed=seed.number, device=seed.device)
    name, tau = trial.entrant.name, trial.spec.tau or 1.0
    variants = [Variant(name, "none", found.head)]
    if found.shift.any():
        variants.append(Variant(name, "label-shift", found.head, tau, found.shift))
    notes = (f"{values(trial)}, chosen on held-out training rows",) if trial.chosen() else ()
    if drawn is None:
        return Made(variants, notes=notes, chosen=trial.chosen())
    return Made(
        variants, len(drawn.labels), (*notes, *drawn.notes), drawn.seconds, drawn.backend, drawn.held_out,
        trial.chosen(),
    )  # fmt: skip


def _crt(name: str, bench: Bench, seed: Seed, *, views: bool) -> Made:
    if bench.contest is not None and not bench.trained_on_rows:
        return _tuned(name, bench, seed)
    rows = baselines.balanced_rows(bench.rows, seed.number, views)
    return Made(_trained(name, bench, seed, rows, baselines.fresh_config(seed.tuning, seed.baseline, rows)))


def _tau_norm(name: str, bench: Bench, seed: Seed, *, views: bool) -> Made:
    # A head that sees cosines only has normalised its weights already.
    if not isinstance(seed.baseline, LinearHead):
        return Made([], notes=(f"a {seed.baseline.kind} head normalises its weights itself; left out",))
    tau = baselines.choose_tau(seed.baseline, bench.rows) if views else 1.0
    head = baselines.tau_normalised(seed.baseline, tau)
    edge = ", the end of the range" if tau in (baselines.TAUS[0], baselines.TAUS[-1]) else ""
    return Made([Variant(name, "none", head)], notes=(f"tau {tau:g}{edge}",))


def _ncm(name: str, bench: Bench, seed: Seed, *, views: bool) -> Made:
    return Made([Variant(name, "none", baselines.nearest_class_mean(bench.rows, views))])


def _generating(name: str, bench: Bench, seed: Seed, *, generator: str, mix: bool = True) -> Made:
    if bench.contest is not None and not bench.trained_on_rows and name in ENTRANTS:
        trial = _trial(name, bench)
        plan = fill_plan(bench.rows.counts, trial.fill, bench.tables.generate)
        drawn = draw_rows(generator, dataclasses.replace(bench, plan=plan), seed)
        return _fresh(trial, _merged(bench.rows, drawn), seed, drawn)
    config = seed.tuning if mix else seed.tuning.replace(mix=1.0)
    return with_rows(name, bench, seed, draw_rows(generator, bench, seed), config)


def with_rows(name: str, bench: Bench, seed: Seed, drawn: Drawn, config: FinetuneConfig) -> Made:
    """Return the heads of stage 3 on clean and generated rows, as they are and with label shift."""
    variants = _trained(name, bench, seed, _merged(bench.rows, drawn), config)
    return Made(variants, len(drawn.labels), drawn.notes, drawn.seconds, drawn.backend, drawn.held_out)


def _merged(rows: TrainRows, drawn: Drawn) -> TrainingRows:
    return TrainingRows(
        np.concatenate([rows.features, drawn.features]),
        np.concatenate([rows.labels, drawn.labels]),
        len(rows.labels), rows.num_classes, rows.name,
    )  # fmt: skip


def _plain_gaussian(name: str, bench: Bench, seed: Seed) -> Made:
    # They stand for the distribution as it is; gaussian-wide is as wide as the user asks LDMLR's rows to be.
    tables = bench.tables
    own = bench.with_stages(tables.diffuse, tables.generate.replace(scale=None, class_scale={}))
    return _generating(name, own, seed, generator=name)


def _ldmlr_plain(name: str, bench: Bench, seed: Seed) -> Made:
    own = bench.with_stages(bench.tables.diffuse, bench.tables.generate.as_learned())
    return _generating(name, own, seed, generator="diffusion", mix=False)


def _ldmlr_paper(name: str, bench: Bench, seed: Seed) -> Made:
    model, drawing = paper_settings(bench.tables.diffuse, bench.tables.generate)
    own = bench.with_stages(model, drawing, plan_from_config(bench.rows.counts, drawing))
    return _generating(name, own, seed, generator="diffusion", mix=False)


def draw_rows(generator: str, bench: Bench, seed: Seed) -> Drawn:
    """Return the rows of a generator, which are those of ``ldmlr run`` with this seed."""
    labels = labels_of(bench.plan, 0, int(bench.plan.sum()))
    if not len(labels):
        return Drawn(np.zeros((0, bench.rows.features.shape[1]), np.float32), labels)
    fitted = _fitted(generator, bench, seed)
    start = time.perf_counter()
    drawn = fitted.draw(labels, seed.number)
    seconds = time.perf_counter() - start
    if not isinstance(fitted, Diffusion):
        return Drawn(drawn, labels, fitted.notes, seconds)
    return Drawn(drawn, labels, fitted.notes, seconds, fitted.backend, fitted.model.held_out)


def _fitted(generator: str, bench: Bench, seed: Seed) -> Generator:
    """Return a generator for a seed; a diffusion model is trained once per configuration."""
    tables = bench.tables
    if generator != "diffusion":
        return fit(generator, bench.rows, tables.generate)
    model = seed.shared.once(
        tables.diffuse,
        lambda: train(
            bench.rows, tables.diffuse, seed=seed.number, device=seed.device, threads=bench.threads
        ),
    )
    drawing = tables.generate.for_features(bench.trained_on_rows)
    return Diffusion(model, drawing, Machine(seed.device, bench.threads, bench.backend))


def paper_settings(model: DiffusionConfig, drawing: GenerateConfig) -> tuple[DiffusionConfig, GenerateConfig]:
    """Return the paper's setting, as far as a denoiser that can tell dimensions apart allows.

    Clean features standardised per dimension, classes as frequent as they are, no label dropout and so no
    guidance, a fifth of each class's own rows.
    """
    return (
        model.replace(
            transform="standardised", weak_views=0, strong_views=0, class_power=1.0, label_dropout=0.0
        ),
        drawing.as_learned().replace(strategy="ratio", ratio=0.2, minimum=1, target=None, only=(), count={}),
    )


def check_drawing(drawing: GenerateConfig, command: str) -> None:
    """Refuse settings of ``generate`` that are not followed here: rows are drawn without gate, in memory."""
    plain = GenerateConfig()
    for name in ("gate", "dtype"):
        value = getattr(drawing, name)
        if value != getattr(plain, name):
            raise UsageError(
                f"generate.{name} {value}: ldmlr {command} draws rows without a gate and keeps them in "
                "float32; leave it out"
            )


def _pair(name: str, method: Callable[..., Made]) -> dict[str, Method]:
    """Return a method on clean rows and the same on clean rows and views."""
    return {
        name: functools.partial(method, views=False),
        f"{name}-views": functools.partial(method, views=True),
    }


MAKERS: dict[str, Method] = {
    "baseline": _baseline,
    **{name: _tuned for name in TUNED},
    **_pair("crt", _crt),
    **_pair("tau-norm", _tau_norm),
    **_pair("ncm", _ncm),
    **{name: functools.partial(_generating, generator=name) for name in GENERATORS if name != "diffusion"},
    **dict.fromkeys(("gaussian", "gaussian-borrowed"), _plain_gaussian),
    "ldmlr-paper": _ldmlr_paper,
    "ldmlr-plain": _ldmlr_plain,
    "ldmlr": functools.partial(_generating, generator="diffusion"),
}
