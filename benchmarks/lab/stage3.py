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
from ldmlr.experiments.loop import Arm, Made, Seed, over_seeds
from ldmlr.experiments.methods import Bench, draw_rows
from ldmlr.files import write_text
from ldmlr.generation.config import GenerateConfig
from ldmlr.generation.plan import plan_from_config
from ldmlr.generation.train_rows import TrainRows, train_rows
from ldmlr.heads.config import FinetuneConfig
from ldmlr.heads.evaluation import tuned_variants
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


Rows = tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]


def draw(bench: Bench, seed: Seed, scale: float | None = None, times: int = 1) -> Rows:
    """Return generated rows and labels, widened by `scale` (None: the recipe's); drawn once per seed."""
    drawing = bench.tables.generate if scale is None else GenerateConfig(scale=scale)

    def make() -> Rows:
        own = bench.with_stages(bench.tables.diffuse, drawing, bench.plan * times)
        drawn = draw_rows("diffusion", own, seed)
        return drawn.features, drawn.labels

    return seed.shared.once((scale, times), make)


def tune(
    bench: Bench,
    seed: Seed,
    config: FinetuneConfig,
    generated: Rows,
    views: bool = False,
    on_epoch: Callable[[int, Head], None] | None = None,
) -> FinetunedHead:
    """Return a head of stage 3; `views` counts augmented views as encoded rows."""
    rows = bench.rows
    features, labels = rows.with_views() if views else (rows.features, rows.labels)
    merged = TrainingRows(
        np.concatenate([features, generated[0]]), np.concatenate([labels, generated[1]]),
        len(labels), rows.num_classes, rows.name,
    )  # fmt: skip
    config = config.settled(seed.baseline.kind)
    return tuned_head(
        merged, seed.baseline, seed.origin, config, seed.number, counts=rows.counts, on_epoch=on_epoch
    )


def recipe(bench: Bench, seed: Seed) -> FinetunedHead:
    """Return the head of the recipe, trained once per seed."""
    return seed.shared.once("recipe", lambda: tune(bench, seed, bench.tables.finetune, draw(bench, seed)))


def half(bench: Bench, seed: Seed, *, harder: bool) -> Rows:
    """Return, of twice the rows, the half of each class that the baseline finds harder (or easier).

    Hard are rows to which the baseline, with label shift, gives their own class least: a gate the other way
    round, as ADASYN prefers rows among those of other classes.
    """
    features, labels = draw(bench, seed, times=2)
    logits = torch.from_numpy(head_logits(seed.baseline, features) - log_prior(bench.rows.counts))
    own = torch.log_softmax(logits, dim=1).numpy()[np.arange(len(labels)), labels]
    order = np.lexsort((own if harder else -own, labels))
    # Of each class's rows, twice as many as the plan has, the first half.
    first = np.concatenate([[0], np.cumsum(2 * bench.plan)])[labels[order]]
    kept = np.sort(order[np.arange(len(order)) - first < bench.plan[labels[order]]])
    return features[kept], labels[kept]


def averaged(bench: Bench, seed: Seed) -> FinetunedHead:
    """Return the mean of the heads after each pass of the second half."""
    kept: list[Head] = []
    config = bench.tables.finetune
    tuned = tune(
        bench, seed, config, draw(bench, seed),
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


def arms(bench: Bench, spare: npt.NDArray[np.float32] | None) -> dict[str, Arm]:
    """Return every variant; `spare` is a view that nothing was trained on."""
    config, labels = bench.tables.finetune, bench.rows.labels
    found: dict[str, Callable[[Seed], FinetunedHead]] = {}
    for name, changes in SETTINGS.items():
        own = config.replace(**changes)
        found[name] = lambda seed, own=own: tune(bench, seed, own, draw(bench, seed))
    found["recipe"] = lambda seed: recipe(bench, seed)
    if spare is not None:
        for name in ("recipe", "norms at most their mean"):
            found[f"{name}, tau by a view"] = lambda seed, make=found[name]: shift_by_view(
                make(seed), spare, labels
            )
    other = discriminant(bench.rows)
    for share in (0.05, 0.2):
        found[f"plus {share:g} x the linear discriminant"] = lambda seed, share=share: with_discriminant(
            recipe(bench, seed), other, share
        )
    found["mean of the last six passes"] = lambda seed: averaged(bench, seed)
    # As many steps as the recipe, on four times the rows.
    longer = config.replace(epochs=max(1, config.epochs // 4))
    found["views as encoded rows"] = lambda seed: tune(
        bench, seed, longer, draw(bench, seed, times=4), views=True
    )
    for name, harder in (("the harder half", True), ("the easier half", False)):
        found[f"{name} of twice the rows"] = lambda seed, harder=harder: tune(
            bench, seed, config, half(bench, seed, harder=harder)
        )
    for scale in SCALES:
        found[f"widened by {scale:g}"] = lambda seed, scale=scale: tune(
            bench, seed, config, draw(bench, seed, scale)
        )
    return {name: functools.partial(_made, name, make) for name, make in found.items()}


def _made(name: str, make: Callable[[Seed], FinetunedHead], seed: Seed) -> Made:
    pair = tuned_variants(make(seed), "ldmlr")
    # Without label shift the head of such a line is that of another one.
    return Made(pair[1:] if name.endswith("tau by a view") else pair)


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
            encoded = known.training_rows()
            found = over_seeds(
                arms(Bench(known, plan, tables, threads=1), spare),
                store, lambda seed, encoded=encoded: encoded, tables.finetune, seeds=options.seeds,
            )  # fmt: skip
        for name, row in found.table:
            rows.append({"data": path.stem, "setting": name, **row})
            figures = row["all"]
            print(
                f"{path.name:<34}{name:<44}{row['adjustment']:<13}"
                f"{figures['mean']:.2f} +- {figures['std']:.2f}"
            )
    if options.out:
        document = results.document("stage3", {"seeds": options.seeds}, rows=rows)
        write_text(options.out, json.dumps(plain(document), indent=2) + "\n")


if __name__ == "__main__":
    main()
