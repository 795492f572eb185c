"""The protocol of stage 3: several seeds, the last epoch, the test split used once for the final figures."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ldmlr.errors import UsageError, opt
from ldmlr.groups import ClassGroups, ShotGroups
from ldmlr.heads.config import FinetuneConfig
from ldmlr.heads.evaluation import (
    Measured,
    Variant,
    group_sizes,
    measure,
    plain_variants,
    result_rows,
    tuned_variants,
)
from ldmlr.heads.finetune import finetune
from ldmlr.heads.headfile import BEST_ON_TEST, LAST_EPOCH, FinetunedHead
from ldmlr.heads.modules import Head

if TYPE_CHECKING:
    from ldmlr.store import FeatureStore, Split

BASELINE_TAU = 1.0


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
    seeds: int = 5,
    groups: ClassGroups | None = None,
    device: str = "cpu",
    select_on_test: bool = False,
) -> StageThree:
    """Fine-tune with seeds 0 .. K-1 and measure on the test split.

    Parameters
    ----------
    store
        The encoded rows, with a test split.
    pseudo
        Generated rows: none (the store may hold them), one store for all seeds, or one per seed.
    config
        The recipe.
    seeds
        K.
    groups
        Shot groups.
    select_on_test
        Report the best epoch on the test set instead of the last one, for each row apart, as the published
        code does. It makes the figures look better than they are; the result says so.
    """
    config = config or FinetuneConfig()
    chosen = groups or ShotGroups()
    if len(pseudo) not in (0, 1, seeds):
        raise UsageError(f"{opt('pseudo')}: give one file, or one per seed ({seeds}), not {len(pseudo)}")
    test = store.split("test")
    counts = store.split("train").encoded_counts
    sizes = group_sizes(counts, chosen)
    heads: list[FinetunedHead] = []
    baselines: list[list[Measured]] = []
    runs: list[list[Measured]] = []
    epochs: list[list[int]] = []
    for seed in range(seeds):
        extra = pseudo[seed if len(pseudo) == seeds else 0] if pseudo else None
        watch = _BestEpochs(test, counts, chosen) if select_on_test else None
        tuned = finetune(store, extra, config=config, seed=seed, device=device, on_epoch=watch)
        if watch is None:
            runs.append(measure(tuned_variants(tuned), test, counts, chosen))
        else:
            tuned, measured = watch.finish(tuned)
            runs.append(measured)
            epochs.append(watch.epochs)
        # A stored baseline is the same for every seed: it is measured once and counts for each.
        if tuned.origin == "fitted" or not baselines:
            plain = plain_variants("baseline", tuned.baseline, counts, BASELINE_TAU)
            baselines.append(measure(plain, test, counts, chosen))
        else:
            baselines.append(baselines[0])
        heads.append(tuned)
    rows = result_rows(baselines) + result_rows(runs)
    figures: dict[str, Any] = {
        "seeds": list(range(seeds)),
        "selection": BEST_ON_TEST if select_on_test else LAST_EPOCH,
        "baseline_head": heads[0].origin,
        "groups": sizes,
        "encoded_rows": int(counts.sum()),
        "generated_rows": [head.generated for head in heads],
        "history": [head.history for head in heads],
    }
    if select_on_test:
        for at, row in enumerate(rows[2:]):
            row["epochs"] = [chosen_epochs[at] for chosen_epochs in epochs]
    return StageThree(heads, rows, figures)


class _BestEpochs:
    """Keeps, for each row of the table, the epoch with the best accuracy on the test split."""

    def __init__(self, test: Split, counts: npt.NDArray[np.int64], groups: ClassGroups) -> None:
        self.test, self.counts, self.groups = test, counts, groups
        self.snapshots: list[Head] = []
        self.epochs = [0, 0]

    def __call__(self, epoch: int, head: Head) -> None:
        """Keep a copy of the head after an epoch."""
        self.snapshots.append(copy.deepcopy(head).to("cpu").eval())

    def finish(self, last: FinetunedHead) -> tuple[FinetunedHead, list[Measured]]:
        """Return the head of the best epoch and the best measurement of each row."""
        tuned = [dataclasses.replace(last, head=head, selection=BEST_ON_TEST) for head in self.snapshots]
        variants: list[Variant] = [variant for head in tuned for variant in tuned_variants(head)]
        measured = measure(variants, self.test, self.counts, self.groups)
        best: list[Measured] = []
        for at in range(2):
            of_row = measured[at::2]
            winner = max(range(len(of_row)), key=lambda epoch: of_row[epoch].figures["all"] or 0.0)
            self.epochs[at] = winner + 1
            best.append(of_row[winner])
        return tuned[self.epochs[0] - 1], best
