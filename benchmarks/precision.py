"""Accuracy of stage 3 when the rows are drawn in bfloat16 or int8 instead of float32.

One model per seed; its rows are drawn by the native sampler with every type of weights from the
same noise, and by the reference; a head is fine-tuned on each. The recipe's settings, last
epoch. Also the other way to fewer operations: smaller widths and fewer steps.

    python benchmarks/precision.py cifar10-lt-if100-features.h5 --seeds 5 --out precision.json
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ldmlr import isa as cpu
from ldmlr import results
from ldmlr.config import plain
from ldmlr.experiments.loop import Arm, Made, Seed, over_seeds
from ldmlr.experiments.methods import Bench, Drawn, with_rows
from ldmlr.files import write_text
from ldmlr.generation.config import SampleConfig
from ldmlr.generation.latent import LatentDiffusion
from ldmlr.generation.plan import labels_of, plan
from ldmlr.generation.train_rows import train_rows
from ldmlr.processor import number_type
from ldmlr.run.config import RunConfig, stage_tables
from ldmlr.sampler import reference
from ldmlr.sampler.cpu.sampler import NativeSampler
from ldmlr.sampler.spec import SamplerSpec
from ldmlr.store import FeatureStore

Variant = tuple[str, int, int, str]
# (hidden, steps) beside the recipe's 128 and 10.
CHEAPER = ((128, 10), (128, 7), (128, 5), (64, 10), (64, 7), (64, 5), (32, 10))


def draw(spec: SamplerSpec, labels: np.ndarray[Any, np.dtype[np.int64]], how: str) -> Any:
    """Return rows for labels, drawn as `how` says."""
    if how == "reference":
        return reference.sample(spec, labels).numpy()
    return NativeSampler(spec, weights=how)(labels, threads=torch.get_num_threads())


def variants(full: bool) -> Iterator[Variant]:
    """Yield how, hidden width, steps and a name."""
    chosen = cpu.choose()
    types = ["reference", "float32", *(name for name in ("bfloat16", "int8") if getattr(chosen, name))]
    for how in types:
        yield how, 128, 10, f"{how}, H 128, 10 steps"
    usual = number_type(chosen).name
    for hidden, steps in CHEAPER[1:] if full else ():
        yield usual, hidden, steps, f"{usual}, H {hidden}, {steps} steps"


def arm(bench: Bench, store: FeatureStore, how: str, hidden: int, steps: int) -> Arm:
    """Return what makes a seed's heads from rows drawn as `how` says; a model of a width is trained once."""
    labels = labels_of(bench.plan, 0, int(bench.plan.sum()))

    def make(seed: Seed) -> Made:
        model = seed.shared.once(
            hidden, lambda: LatentDiffusion(hidden=hidden, seed=seed.number).fit_store(store)
        )
        drawn = draw(model.spec(SampleConfig(steps=steps), seed.number), labels, how)
        return with_rows("ldmlr", bench, seed, Drawn(drawn, labels), seed.tuning)

    return make


def main() -> None:
    """Run, print and save the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("stores", type=Path, nargs="+")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--cheaper", action="store_true", help="smaller widths and fewer steps too")
    parser.add_argument("--out", type=Path, help="save the result document here (JSON)")
    options = parser.parse_args()
    tables = stage_tables({}, RunConfig())
    rows: list[dict[str, Any]] = []
    for path in options.stores:
        with FeatureStore.open(path) as store:
            known = train_rows(store, tables.diffuse.weak_views, tables.diffuse.strong_views)
            bench = Bench(known, plan(known.counts), tables)
            encoded = known.training_rows()
            found = over_seeds(
                {name: arm(bench, store, *place) for *place, name in variants(options.cheaper)},
                store, lambda seed, encoded=encoded: encoded, tables.finetune, seeds=options.seeds,
            )  # fmt: skip
        for name, row in found.table:
            rows.append({"data": path.stem, "setting": name, **row})
            figures = row["all"]
            print(
                f"{path.name:<34}{name:<32}{row['adjustment']:<13}"
                f"{figures['mean']:.2f} +- {figures['std']:.2f}"
            )
    if options.out:
        config = {"seeds": options.seeds, "isa": cpu.choose().name}
        document = results.document("precision", config, rows=rows)
        write_text(options.out, json.dumps(plain(document), indent=2) + "\n")


if __name__ == "__main__":
    main()
