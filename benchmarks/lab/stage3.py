"""Variants of stage 3 on one diffusion model per seed, the losers included.

    python benchmarks/lab/stage3.py cifar10-lt-if100-features.h5 cifar100-lt-if100-features.h5 --out lab.json

Every variant starts from the recipe and changes one thing. Test figures: they show where the limit of a
frozen encoder lies, and none of them chooses a default. With two strong views in the store, stage 2 trains
on the first, and the variants that choose the strength of the label shift look at the last.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ldmlr import results
from ldmlr.config import plain
from ldmlr.experiments.loop import Made, Seed, over_seeds
from ldmlr.experiments.methods import Bench, draw_rows
from ldmlr.files import write_text
from ldmlr.generation.config import GenerateConfig
from ldmlr.generation.plan import plan_from_config
from ldmlr.generation.train_rows import TrainRows, train_rows
from ldmlr.heads.config import FinetuneConfig
from ldmlr.heads.evaluation import Variant, tuned_variants
from ldmlr.heads.finetune import tuned_head
from ldmlr.heads.headfile import FinetunedHead
from ldmlr.heads.logits import head_logits
from ldmlr.heads.losses import log_prior
from ldmlr.heads.modules import Head, LinearHead
from ldmlr.heads.training_rows import TrainingRows
from ldmlr.metrics.accuracy import accuracy
from ldmlr.run.config import RunConfig, stage_tables
from ldmlr.store import FeatureStore

TAUS = tuple(round(0.05 * step, 2) for step in range(31))
SETTINGS: dict[str, dict[str, Any]] = {
    "recipe": {},
    "norms at most their mean": {"norm_limit": 1.0},
    "norms at most 1.1 means": {"norm_limit": 1.1},
    "cosine head": {"head": "cosine"},
    "WCDAS head": {"head": "wcdas"},
    "24 passes": {"epochs": 24},
    "three times the rate": {"lr": 3e-3},
    "no mix": {"mix": 1.0},
    "mix from 0": {"mix": 0.0},
    "mix from 0.25": {"mix": 0.25},
    "mix from 0.75": {"mix": 0.75},
}
SCALES = (1.0, 1.2, 1.7)


@dataclasses.dataclass
class Lab:
    """What the variants of a seed share."""

    seed: Seed
    bench: Bench

    def draw(self, scale: float | None = None, times: int = 1) -> tuple[Any, Any]:
        """Return generated rows and labels, widened by `scale` (None: the recipe's)."""
        tables = self.bench.tables
        drawing = tables.generate if scale is None else GenerateConfig(scale=scale)
        own = self.bench.with_stages(tables.diffuse, drawing, self.bench.plan * times)
        drawn = draw_rows("diffusion", own, self.seed)
        return drawn.features, drawn.labels

    def tune(
        self,
        config: FinetuneConfig,
        generated: tuple[Any, Any],
        views: bool = False,
        on_epoch: Callable[[int, Head], None] | None = None,
    ) -> FinetunedHead:
        """Return a head of stage 3; `views` counts augmented views as encoded rows."""
        rows, seed = self.bench.rows, self.seed
        features, labels = rows.with_views() if views else (rows.features, rows.labels)
        merged = TrainingRows(
            np.concatenate([features, generated[0]]), np.concatenate([labels, generated[1]]),
            len(labels), rows.num_classes, rows.name,
        )  # fmt: skip
        return tuned_head(
            merged, seed.baseline, seed.origin, config.settled(seed.baseline.kind), seed.number,
            counts=rows.counts, on_epoch=on_epoch,
        )  # fmt: skip


def half(lab: Lab, *, harder: bool) -> tuple[Any, Any]:
    """Return, of twice the rows, the half of each class that the baseline finds harder (or easier).

    Hard are rows to which the baseline, with label shift, gives their own class least: a gate the other way
    round, as ADASYN prefers rows among those of other classes.
    """
    features, labels = lab.draw(times=2)
    logits = torch.from_numpy(head_logits(lab.seed.baseline, features) - log_prior(lab.bench.rows.counts))
    own = torch.log_softmax(logits, dim=1).numpy()[np.arange(len(labels)), labels]
    order = np.lexsort((own if harder else -own, labels))
    # Of each class's rows, twice as many as the plan has, the first half.
    first = np.concatenate([[0], np.cumsum(2 * lab.bench.plan)])[labels[order]]
    kept = np.sort(order[np.arange(len(order)) - first < lab.bench.plan[labels[order]]])
    return features[kept], labels[kept]


def averaged(lab: Lab, config: FinetuneConfig, generated: tuple[Any, Any]) -> FinetunedHead:
    """Return the mean of the heads after each pass of the second half."""
    kept: list[Head] = []
    tuned = lab.tune(
        config, generated,
        on_epoch=lambda epoch, head: kept.append(copy.deepcopy(head)) if 2 * epoch > config.epochs else None,
    )  # fmt: skip
    with torch.no_grad():
        for name, value in tuned.head.named_parameters():
            value.copy_(torch.stack([head.get_parameter(name) for head in kept]).mean(0))
    return tuned


def discriminant(rows: TrainRows) -> LinearHead:
    """Return the linear discriminant of the rows and views, with the recipe's weighted covariance."""
    features, labels = rows.with_views()
    counts = np.bincount(labels, minlength=rows.num_classes)
    means = np.stack([features[labels == c].mean(axis=0, dtype=np.float64) for c in range(rows.num_classes)])
    residuals, weight = features - means[labels], counts[labels] ** -0.5
    covariance = (residuals * weight[:, None]).T @ residuals / weight.sum()
    covariance += 1e-2 * np.diag(covariance).mean() * np.eye(len(covariance))
    head = LinearHead(features.shape[1], rows.num_classes)
    directions = np.linalg.solve(covariance, means.T).T
    assert head.bias is not None
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(directions))
        head.bias.copy_(torch.from_numpy(-0.5 * (directions * means).sum(axis=1)))
    return head


def with_discriminant(tuned: FinetunedHead, other: LinearHead, share: float) -> FinetunedHead:
    """Return a head whose logits have a share of the discriminant's added."""
    head = copy.deepcopy(tuned.head)
    with torch.no_grad():
        head.get_parameter("weight").add_(other.weight, alpha=share)
        head.get_parameter("bias").add_(other.get_parameter("bias"), alpha=share)
    return dataclasses.replace(tuned, head=head)


def shift_by_view(tuned: FinetunedHead, view: npt.NDArray[np.float32], labels: Any) -> FinetunedHead:
    """Return the head with the label shift of the best class-balanced accuracy on a view."""
    unshifted = dataclasses.replace(tuned, config=tuned.config.replace(tau_shift=0.0))
    logits, prior = head_logits(unshifted.label_shifted(), view), log_prior(tuned.counts)
    scores = [accuracy(logits - tau * prior, labels, tuned.counts)["balanced"] or 0.0 for tau in TAUS]
    return dataclasses.replace(tuned, config=tuned.config.replace(tau_shift=TAUS[int(np.argmax(scores))]))


def variants(bench: Bench, spare: npt.NDArray[np.float32] | None, seed: Seed) -> Made:
    """Return every variant of a seed."""
    lab = Lab(seed, bench)
    config, generated = bench.tables.finetune, lab.draw()
    found: list[Variant] = []

    def add(name: str, tuned: FinetunedHead) -> None:
        found.extend(tuned_variants(tuned, name))

    for name, changes in SETTINGS.items():
        tuned = lab.tune(config.replace(**changes), generated)
        add(name, tuned)
        if spare is not None and name in ("recipe", "norms at most their mean"):
            shifted = shift_by_view(tuned, spare, bench.rows.labels)
            found += tuned_variants(shifted, f"{name}, tau by a view")[1:]
        if name == "recipe":
            other = discriminant(bench.rows)
            for share in (0.05, 0.2):
                add(f"plus {share:g} x the linear discriminant", with_discriminant(tuned, other, share))
    add("mean of the last six passes", averaged(lab, config, generated))
    # As many steps as the recipe, on four times the rows.
    longer = config.replace(epochs=max(1, config.epochs // 4))
    add("views as encoded rows", lab.tune(longer, lab.draw(times=4), views=True))
    for name, harder in (("the harder half", True), ("the easier half", False)):
        add(f"{name} of twice the rows", lab.tune(config, half(lab, harder=harder)))
    for scale in SCALES:
        add(f"widened by {scale:g}", lab.tune(config, lab.draw(scale)))
    return Made(found)


def main() -> None:
    """Run, print and save the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("stores", type=Path, nargs="+")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--iterations", type=int, help="training steps of the diffusion model")
    parser.add_argument("--out", type=Path, help="save the result document here (JSON)")
    options = parser.parse_args()
    given = {} if options.iterations is None else {"diffuse": {"iterations": options.iterations}}
    tables = stage_tables(given, RunConfig())
    rows: list[dict[str, Any]] = []
    for path in options.stores:
        with FeatureStore.open(path) as store:
            known = train_rows(store, tables.diffuse.weak_views, tables.diffuse.strong_views)
            strong = [i for i, kind in enumerate(store.split("train").view_kinds) if "strong" in kind]
            spare = None
            if len(strong) > tables.diffuse.strong_views:
                spare = store.split("train").float32(view=strong[-1])
            plan = plan_from_config(known.counts, tables.generate, store.class_names)
            arm = functools.partial(variants, Bench(known, plan, tables, threads=1), spare)
            found = over_seeds(
                {"stage 3": arm}, store, known.training_rows(), tables.finetune,
                seeds=options.seeds, label=path.name,
            )  # fmt: skip
        for row in found.rows:
            rows.append({**row, "store": path.name})
            figures = row["all"]
            print(
                f"{path.name:<34}{row['method']:<44}{row['adjustment']:<13}"
                f"{figures['mean']:.2f} +- {figures['std']:.2f}"
            )
    if options.out:
        document = results.document("stage3", {"seeds": options.seeds}, rows=rows)
        write_text(options.out, json.dumps(plain(document), indent=2) + "\n")


if __name__ == "__main__":
    main()
