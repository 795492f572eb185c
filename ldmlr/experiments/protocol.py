"""The protocol of stage 3: several seeds, the last epoch, the test split used once for the final figures."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ldmlr.device import resolve_device
from ldmlr.errors import UsageError, opt
from ldmlr.experiments.loop import (
    Arm,
    Made,
    Seed,
    Setup,
    baseline_arm,
    over_seeds,
    seed_numbers,
    start_of,
)
from ldmlr.experiments.verdict import best_row, run_verdict
from ldmlr.generation.generators.catalogue import DIFFUSION, GENERATORS
from ldmlr.groups import ClassGroups, ShotGroups
from ldmlr.heads.classifier import temperature_of
from ldmlr.heads.config import TUNED, FinetuneConfig
from ldmlr.heads.evaluation import Variant, group_sizes, measure, tuned_variants
from ldmlr.heads.finetune import config_for, tuned_head
from ldmlr.heads.headfile import BEST_ON_TEST, LAST_EPOCH, FinetunedHead
from ldmlr.heads.logits import head_logits
from ldmlr.heads.modules import Head
from ldmlr.heads.training_rows import TrainingRows, gather_rows
from ldmlr.heads.tuned import Views, held_views
from ldmlr.results import fair_column
from ldmlr.store.heldout import HeldOutConfig, Measuring

if TYPE_CHECKING:
    from ldmlr.store import FeatureStore, Split


@dataclasses.dataclass(frozen=True)
class StageThree:
    """What fine-tuning over several seeds gave.

    Parameters
    ----------
    heads
        One fine-tuned head per seed.
    rows
        The accuracy table of the result document: baseline and fine-tuned head, each without and with label
        shift.
    figures
        What else belongs into the result document.
    """

    heads: list[FinetunedHead]
    rows: list[dict[str, Any]]
    figures: dict[str, Any]


def finetune_seeds(
    store: FeatureStore,
    pseudo: Sequence[FeatureStore] = (),
    config: FinetuneConfig | None = None,
    *,
    seeds: int | Sequence[int] = 5,
    groups: ClassGroups | None = None,
    device: str = "cpu",
    select_on_test: bool = False,
    held_out: HeldOutConfig | None = None,
    calibrate: bool = False,
) -> StageThree:
    """Fine-tune with several seeds and measure on the test split, if there is one, or on rows held out.

    Parameters
    ----------
    store
        The encoded rows. Without a test split the table of the result is empty.
    pseudo
        Generated rows: none (the store may hold them), one store for all seeds, or one per seed.
    config
        The recipe.
    seeds
        K, which is 0 .. K-1, or the seeds themselves.
    groups
        Shot groups.
    select_on_test
        Report the best epoch on the test set instead of the last one, for each row apart, as the published
        code does. It makes the figures look better than they are; the result says so.
    held_out
        Rows to measure on where there is no test split: heads of their own are trained without them. By
        default nothing is measured then.
    calibrate
        Give every head the temperature that suits validation rows, or else the rows of `held_out`.

    Raises
    ------
    UsageError
        There are no rows to calibrate on, or generated rows, which may be made from those held out.
    """
    chosen = groups or ShotGroups()
    stage = config or FinetuneConfig()
    if select_on_test:
        store.split("test")
        stage = stage.fitted(recipe=True)
    stage = config_for(store, stage)
    views = held_views(store) if stage.fit == TUNED else ((), ())
    numbers = seed_numbers(seeds)
    if len(pseudo) not in (0, 1, len(numbers)):
        raise UsageError(
            f"{opt('pseudo')}: give one file, or one per seed ({len(numbers)}), not {len(pseudo)}"
        )
    measuring = _measuring(store, pseudo, held_out)
    if calibrate and measuring is None and (store.val is None or not len(store.val)):
        raise UsageError(
            f"{opt('calibrate', True)}: needs rows that no head is trained on: a validation split (val), or "
            f"{opt('folds')} where there is no test split"
        )
    heads: list[FinetunedHead] = []
    epochs: list[list[int]] = []
    method = _made_by(pseudo)

    def rows_of(seed: int) -> TrainingRows:
        own = numbers.index(seed) if len(pseudo) == len(numbers) else 0
        return gather_rows(store, pseudo[own] if pseudo else None)

    def tuned(seed: Seed) -> Made:
        watch = _BestEpochs(store.split("test"), chosen, method) if select_on_test else None
        head = tuned_head(
            seed.rows, seed.baseline, seed.origin, seed.tuning, seed.number,
            views=views, device=seed.device, on_epoch=watch,
        )  # fmt: skip
        head = dataclasses.replace(head, class_names=store.class_names)
        variants = tuned_variants(head, method)
        if watch is not None:
            head, variants = watch.finish(head)
            epochs.append(watch.epochs)
        heads.append(head)
        return Made(variants, head.generated)

    place = str(resolve_device(device))
    apart = _Apart(method)
    if store.test is None or not len(store.test):
        for number in numbers:
            tuned(start_of(number, rows_of(number), store, stage, place))
        if measuring is None:
            heads = _calibrated(heads, store, apart) if calibrate else heads
            return StageThree(heads, [], {
                "seeds": list(numbers), "baseline_head": heads[0].origin,
                "groups": dict(group_sizes(heads[0].counts, chosen)),
                "encoded_rows": int(heads[0].counts.sum()), "selection": LAST_EPOCH, **_of_heads(heads),
            })  # fmt: skip
    found = over_seeds(
        {"baseline": baseline_arm, "tuned": tuned}, store, rows_of, stage, seeds=numbers, groups=chosen,
        device=place, label="finetune", measuring=measuring, setup=apart.setup(stage.fit == TUNED),
    )  # fmt: skip
    heads = _calibrated(heads, store, apart) if calibrate else heads
    rows = found.rows
    if select_on_test:
        for at, row in enumerate(rows[2:]):
            row["epochs"] = [of_seed[at] for of_seed in epochs]
    decisions = [head.chosen for head in heads if head.chosen is not None]
    for row in rows[2:] if decisions else []:
        row["weight_decay"] = [head.config.weight_decay for head in heads]
        row["chosen_by"] = decisions[0]["chosen_by"]
    selection = BEST_ON_TEST if select_on_test else LAST_EPOCH
    document = {"rows": rows, "selection": selection, "config": stage.to_dict()}
    figures = {
        **found.figures,
        "selection": selection,
        "comparison": run_verdict(document, len(found.answers.labels), found.answers),
        "best": best_row(rows),
        **_of_heads(heads),
    }
    return StageThree(heads, rows, figures)


def _of_heads(heads: Sequence[FinetunedHead]) -> dict[str, Any]:
    """Return what a result document says of each head."""
    return {
        "generated_rows": [head.generated for head in heads],
        "history": [head.history for head in heads],
        "heads": [head.config.to_dict() for head in heads],
        "chosen": [head.chosen for head in heads],
        "temperatures": [head.temperature for head in heads],
        "shift_temperatures": [head.shift_temperature for head in heads],
    }


def _measuring(
    store: FeatureStore, pseudo: Sequence[FeatureStore], held_out: HeldOutConfig | None
) -> Measuring | None:
    """Return what rows are held out where that is asked for."""
    given = {} if held_out is None else {name: value for name, value in held_out.to_dict().items() if value}
    if held_out is None or not given:
        return None
    measuring = Measuring.of(store, held_out)
    if pseudo or store.split("train").generated_rows:
        raise UsageError(
            f"{opt(next(iter(given)))}: generated rows may be made from the rows that are held out; use "
            "ldmlr run, which draws them anew for every fold"
        )
    return measuring


def _calibrated(heads: Sequence[FinetunedHead], store: FeatureStore, apart: _Apart) -> list[FinetunedHead]:
    """Return heads with the temperature that suits validation rows, or rows that were held out."""
    if store.val is not None and len(store.val):
        kept = slice(None) if store.val.source is None else np.asarray(store.val.source) == 0
        rows, labels = store.val.float32()[kept], np.asarray(store.val.labels, np.int64)[kept]
        return [head.calibrated(rows, labels) for head in heads]
    return [
        dataclasses.replace(head, temperature=plain, shift_temperature=shifted)
        for head, (plain, shifted) in ((head, apart.temperatures(head.seed)) for head in heads)
    ]


class _Apart:
    """Heads that are trained without the rows held out, and what they say of these."""

    def __init__(self, method: str | None) -> None:
        self.method = method
        # By seed, a part each: logits, those of the label-shift row, labels.
        self._said: dict[int, list[tuple[npt.NDArray[Any], ...]]] = {}

    def setup(self, with_views: bool) -> Setup:
        """Return what makes the arms and the training rows of a part of a store."""

        def made(part: FeatureStore) -> tuple[dict[str, Arm], TrainingRows]:
            views = held_views(part) if with_views else ((), ())
            return {"baseline": baseline_arm, "tuned": self.arm(part, views)}, gather_rows(part, None)

        return made

    def arm(self, part: FeatureStore, views: Views) -> Arm:
        """Return what trains a head on the training rows of a part."""

        def tuned(seed: Seed) -> Made:
            head = tuned_head(
                seed.rows, seed.baseline, seed.origin, seed.tuning, seed.number,
                views=views, device=seed.device,
            )  # fmt: skip
            held = part.split("test")
            rows = held.float32()
            said = (head.logits(rows), head_logits(head.label_shifted(), rows))
            self._said.setdefault(seed.number, []).append((*said, np.asarray(held.labels, np.int64)))
            return Made(tuned_variants(head, self.method), head.generated)

        return tuned

    def temperatures(self, number: int) -> tuple[float, float]:
        """Return the temperatures that suit all rows held out with a seed, without and with label shift."""
        plain, shifted, labels = map(np.concatenate, zip(*self._said[number], strict=True))
        return temperature_of(plain, labels), temperature_of(shifted, labels)


def _made_by(pseudo: Sequence[FeatureStore]) -> str | None:
    """Return the generator that the stores say they are of, for the name of the rows; None for diffusion."""
    names = {store.config.get("generator") for store in pseudo}
    name = names.pop() if len(names) == 1 else None
    return name if isinstance(name, str) and name in GENERATORS and name != DIFFUSION else None


class _BestEpochs:
    """Keeps, for each row of the table, the epoch with the best accuracy on the test split."""

    def __init__(self, test: Split, groups: ClassGroups, method: str | None) -> None:
        self.test, self.groups, self.method = test, groups, method
        self.column = fair_column(test.encoded_counts.tolist())
        self.snapshots: list[Head] = []
        self.epochs = [0, 0]

    def __call__(self, epoch: int, head: Head) -> None:
        """Keep a copy of the head after an epoch."""
        self.snapshots.append(copy.deepcopy(head).to("cpu").eval())

    def finish(self, last: FinetunedHead) -> tuple[FinetunedHead, list[Variant]]:
        """Return the head of the best epoch and the best variant of each row."""
        tuned = [dataclasses.replace(last, head=head, selection=BEST_ON_TEST) for head in self.snapshots]
        measured = measure(
            [variant for head in tuned for variant in tuned_variants(head, self.method)],
            self.test, last.counts, self.groups,
        )  # fmt: skip
        best: list[Variant] = []
        for at in range(2):
            of_row = measured[at::2]
            winner = max(range(len(of_row)), key=lambda epoch: of_row[epoch].figures[self.column] or 0.0)
            self.epochs[at] = winner + 1
            best.append(of_row[winner].variant)
        return tuned[self.epochs[0] - 1], best
