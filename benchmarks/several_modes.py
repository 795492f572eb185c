"""Where diffusion pays: classes with several modes, LDMLR beside Gaussians, SMOTE and duplicated rows.

Settings, each with a long tail:

- ``cifar100-coarse``: the 20 coarse labels of CIFAR-100 over the features of an encoder of the 100 fine ones:
  five modes a class, of unequal size. ``cifar100-coarse-tail``: the same, thinned until the coarse classes
  fall off by 20.
- ``cifar10-pairs``: the classes of CIFAR-10-LT merged in pairs, 0 with 1 and so on.
- ``digits-even-odd``, ``digits-pairs``: the digits bundled with scikit-learn as 64 pixels, in two classes
  (even, odd) and in five (0 or 1, 2 or 3, ...). The training rows of the digits are made long-tailed.
- ``wine``, ``breast-cancer``: the tables bundled with scikit-learn, standardised by their training rows.

    python benchmarks/several_modes.py --cifar10 c10.h5 --cifar100 c100.h5 --out several-modes.json

The small sets are drawn anew for each of the five seeds (half of the rows of each class for testing, the
rest thinned to the long tail), so their standard deviations have the draw in them; the CIFAR stores are
what they are. The methods are those of ``ldmlr compare``. Twelve passes over a few hundred rows do not
move a head: on the small sets every class is filled up to 1,000 rows and the head takes 60 passes, with
all methods. A further LDMLR setting is for classes with several modes: no widening, no guidance, no mix,
and features standardised rather than whitened around the class mean, 2,000 iterations. No setting was
tuned on the test rows.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ldmlr import progress, results
from ldmlr.config import plain
from ldmlr.errors import InputError
from ldmlr.experiments.catalogue import COPIES, DIFFUSION, GAUSSIAN, INTERPOLATION, METHODS, CompareConfig
from ldmlr.experiments.compare import compare
from ldmlr.experiments.verdict import Duel
from ldmlr.files import write_text
from ldmlr.metrics.familiar import KEY, familiar
from ldmlr.run.config import RunConfig, StageTables, stage_tables
from ldmlr.store import FeatureStore, SplitData
from ldmlr.text import accuracy_cell, row_name, table

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]
Tables = dict[str, dict[str, Any]]

# The fine classes of each coarse class of CIFAR-100 (Krizhevsky, 2009), by name.
COARSE = {
    "aquatic mammals": "beaver dolphin otter seal whale",
    "fish": "aquarium_fish flatfish ray shark trout",
    "flowers": "orchid poppy rose sunflower tulip",
    "food containers": "bottle bowl can cup plate",
    "fruit and vegetables": "apple mushroom orange pear sweet_pepper",
    "household electrical devices": "clock keyboard lamp telephone television",
    "household furniture": "bed chair couch table wardrobe",
    "insects": "bee beetle butterfly caterpillar cockroach",
    "large carnivores": "bear leopard lion tiger wolf",
    "large man-made outdoor things": "bridge castle house road skyscraper",
    "large natural outdoor scenes": "cloud forest mountain plain sea",
    "large omnivores and herbivores": "camel cattle chimpanzee elephant kangaroo",
    "medium-sized mammals": "fox porcupine possum raccoon skunk",
    "non-insect invertebrates": "crab lobster snail spider worm",
    "people": "baby boy girl man woman",
    "reptiles": "crocodile dinosaur lizard snake turtle",
    "small mammals": "hamster mouse rabbit shrew squirrel",
    "trees": "maple_tree oak_tree palm_tree pine_tree willow_tree",
    "vehicles 1": "bicycle bus motorcycle pickup_truck train",
    "vehicles 2": "lawn_mower rocket streetcar tank tractor",
}  # fmt: skip
# Without labels of the store's own, classes are taken in the alphabetical order of their names, as published.
FINE = sorted(name for names in COARSE.values() for name in names.split())

FAMILIES = {"best Gaussian": GAUSSIAN, "best SMOTE or ADASYN": INTERPOLATION, "best copies": COPIES}
GENERATORS = (
    "baseline", "balanced-softmax",
    *(name for name, entry in METHODS.items() if entry.family in FAMILIES.values()),
    "ldmlr-plain", "ldmlr",
)  # fmt: skip
MODES = "ldmlr-modes"
MODES_TABLES: Tables = {
    "diffuse": {"transform": "standardised", "iterations": 2000},
    "generate": {"scale": 1.0, "guidance": 1.0},
    "finetune": {"mix": 1.0},
}
SMALL_TABLES: Tables = {"generate": {"target": 1000}, "finetune": {"epochs": 60}}


def coarse_of_fine(names: Sequence[str] | None = None) -> Labels:
    """Return the coarse class ``[100]`` of each fine class, five fine ones in each."""
    group = {fine: number for number, names in enumerate(COARSE.values()) for fine in names.split()}
    fine = list(names) if names and set(names) == set(group) else FINE
    found = np.array([group[name] for name in fine], np.int64)
    assert np.array_equal(np.bincount(found), np.full(20, 5)), "each coarse class has five fine ones"
    return found


def merged_store(path: Path, name: str, folder: Path) -> Path:
    """Write a store with merged classes, without its head of the unmerged ones; return its path."""
    target = folder / f"{name}.h5"
    wanted = 10 if name == "cifar10-pairs" else 100
    with FeatureStore.open(path) as store:
        if store.num_classes != wanted:
            raise InputError(f"{path}: has {store.num_classes} classes; {name} needs {wanted}")
        merged = np.arange(10) // 2 if wanted == 10 else coarse_of_fine(store.class_names)
        train, test = store.split("train"), store.split("test")
        labels = merged[train.labels]
        kept = long_tail(labels) if name.endswith("tail") else np.arange(len(labels))
        views = [train.float32(kept, view=number) for number in range(len(train.view_kinds or ()))]
        FeatureStore.write(
            target,
            train=SplitData(
                train.float32(kept), labels[kept],
                views=np.stack(views) if views else None, view_kinds=train.view_kinds,
            ),
            test=SplitData(test.float32(), merged[test.labels]),
            # The head told that the encoder has seen these rows, and is left out.
            config={KEY: familiar(store).trained_on_rows},
        )  # fmt: skip
    return target


def long_tail(labels: Labels, factor: float = 20.0) -> Labels:
    """Return the rows kept so that the classes, in the order of their sizes, fall off by `factor`."""
    counts = np.bincount(labels)
    order = np.argsort(-counts, kind="stable")
    random = np.random.default_rng(0)
    kept = []
    for place, number in enumerate(order):
        rows = random.permutation(np.flatnonzero(labels == number))
        kept.append(rows[: round(counts.max() * factor ** (-place / (len(order) - 1)))])
    return np.sort(np.concatenate(kept))


def thinned_store(
    features: Floats, modes: Labels, classes: Labels, keep: Sequence[int], seed: int, folder: Path
) -> Path:
    """Write a store of half of the rows for testing and a long tail of the others; return its path.

    Parameters
    ----------
    features, modes
        All rows and the mode (digit, kind of wine) of each.
    classes
        Class of each mode: modes that share one are merged.
    keep
        Training rows of each mode.
    seed
        Of the draw.
    folder
        Where it is written.
    """
    random = np.random.default_rng(seed)
    train, test = [], []
    for mode, wanted in enumerate(keep):
        rows = random.permutation(np.flatnonzero(modes == mode))
        test.append(rows[: len(rows) // 2])
        train.append(rows[len(rows) // 2 :][:wanted])
    first, second = np.concatenate(train), np.concatenate(test)
    mean, spread = features[first].mean(axis=0), features[first].std(axis=0)
    scaled = ((features - mean) / np.where(spread > 1e-6, spread, 1)).astype(np.float32)
    target = folder / f"draw-{seed}.h5"
    FeatureStore.write(
        target,
        train=SplitData(scaled[first], classes[modes[first]]),
        test=SplitData(scaled[second], classes[modes[second]]),
    )
    return target


def bundled(name: str, seed: int, folder: Path) -> Path:
    """Write the long-tailed store of a set bundled with scikit-learn; return its path."""
    from sklearn import datasets

    if name.startswith("digits"):
        data = datasets.load_digits()
        modes = np.arange(10)
        if name == "digits-even-odd":
            # 80 rows of each even digit, 5 of each odd one.
            classes, keep = modes % 2, [80 if mode % 2 == 0 else 5 for mode in modes]
        else:
            # From 80 rows of each of 0 and 1 to 4 of each of 8 and 9.
            classes, keep = modes // 2, [round(80 * 20 ** (-(mode // 2) / 4)) for mode in modes]
    else:
        data = {"wine": datasets.load_wine, "breast-cancer": datasets.load_breast_cancer}[name]()
        classes = np.arange(len(data.target_names))
        # The last class of wine and the malignant tumours are the rare ones.
        keep = [28, 12, 4] if name == "wine" else [8, 160]
    features = data.data.astype(np.float32)
    return thinned_store(features, data.target.astype(np.int64), classes.astype(np.int64), keep, seed, folder)


def tables(*given: Tables) -> StageTables:
    """Return the configurations of the stages; what is given later wins."""
    stages: Tables = {stage: {} for tables in given for stage in tables}
    for values in given:
        for stage, entries in values.items():
            stages[stage] = {**stages[stage], **entries}
    return stage_tables(stages, RunConfig())


def both(store: FeatureStore, seeds: int, *given: Tables) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Return the rows of the comparison, those of the further LDMLR setting among them, and the groups."""
    views = store.split("train").views is not None
    names = tuple(name for name in GENERATORS if views or not METHODS[name].needs_views)
    first = compare(store, CompareConfig(methods=names), tables(*given), seeds=seeds, threads=1)
    alone = CompareConfig(methods=("ldmlr",))
    second = compare(store, alone, tables(MODES_TABLES, *given), seeds=seeds, threads=1)
    more = [{**row, "method": MODES} for row in second["rows"]]
    return first["rows"] + more, first["groups"]


def pooled(draws: Sequence[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Return the table over several draws from one table of a single seed each."""
    found = []
    for entries in zip(*draws, strict=True):
        row = dict(entries[0])
        for column in (*results.GROUP_COLUMNS, "balanced", "seconds"):
            values = [entry[column]["values"][0] if entry[column] else None for entry in entries]
            row[column] = results.spread(values)
        row["generated"] = [entry["generated"][0] for entry in entries]
        found.append(row)
    return found


def duels(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return every LDMLR setting against the best Gaussian, the best SMOTE and the best copies.

    Three times: without label shift, with it, and each method at its better row. The best of a family and
    the better row are picked by these very test figures; the first favours the family, the second no one.
    """
    found = []
    for adjustment in ("none", "label-shift", "any"):
        here = [row for row in rows if row["adjustment"] == adjustment]
        if adjustment == "any":
            names = dict.fromkeys(row["method"] for row in rows)
            here = [max((row for row in rows if row["method"] == name), key=_mean) for name in names]
        for row in here:
            if row["family"] != DIFFUSION:
                continue
            for question, family in FAMILIES.items():
                duel = Duel(row, max((other for other in here if other["family"] == family), key=_mean))
                pairs = np.subtract(duel.first["all"]["values"], duel.second["all"]["values"])
                entry = duel.document(question, adjustment)
                entry["paired_std"] = float(pairs.std(ddof=1)) if len(pairs) > 1 else None
                entry["seeds_ahead"] = int((pairs > 0).sum())
                found.append(entry)
    return found


def _mean(row: Mapping[str, Any]) -> float:
    return float(row["all"]["mean"])


def text(name: str, rows: Sequence[dict[str, Any]]) -> str:
    """Return a setting's table and its comparisons."""
    body = [
        [row_name(row), *(accuracy_cell(row[c]) for c in ("all", "many", "medium", "few"))] for row in rows
    ]
    lines = [f"\n{name}", table(["top-1 %", "all", "many", "medium", "few"], body)]
    for entry in duels(rows):
        error = "-" if entry["error"] is None else f"{entry['error']:.2f}"
        lines.append(
            f"  {entry['adjustment']}: {entry['first']} - {entry['second']} ({entry['question']}): "
            f"{entry['difference']:+.2f} points, standard error {error}, "
            f"ahead in {entry['seeds_ahead']} seeds: {entry['outcome']}"
        )
    return "\n".join(lines)


def run(
    name: str, store: Path | None, seeds: int, quick: Tables
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return the rows of a setting and its classes; `store` has classes to be merged, None: a bundled set."""
    with tempfile.TemporaryDirectory(prefix="ldmlr-modes-") as temporary:
        folder = Path(temporary)
        if store is not None:
            with FeatureStore.open(merged_store(store, name, folder)) as opened:
                rows, groups = both(opened, seeds, quick)
                counts = np.bincount(opened.split("train").labels)
        else:
            draws = []
            for seed in range(seeds):
                with FeatureStore.open(bundled(name, seed, folder)) as opened:
                    figures, groups = both(opened, 1, SMALL_TABLES, quick)
                    counts = np.bincount(opened.split("train").labels)
                draws.append(figures)
            rows = pooled(draws)
    rows = [{"data": name, **row} for row in rows]
    return rows, {"data": name, "groups": groups, "train_rows": counts.tolist()}


SMALL = ("digits-even-odd", "digits-pairs", "wine", "breast-cancer")
MERGED = {"cifar10-pairs": "cifar10", "cifar100-coarse": "cifar100", "cifar100-coarse-tail": "cifar100"}
SETTINGS = (*SMALL, *MERGED)


def main() -> None:
    """Measure, print and save after every setting."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("settings", nargs="*", choices=[[], *SETTINGS], help="default: all that can be run")
    parser.add_argument("--cifar10", type=Path, metavar="STORE", help="features of CIFAR-10-LT")
    parser.add_argument(
        "--cifar100", type=Path, metavar="STORE", help="features of CIFAR-100-LT, fine classes"
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="few iterations, to see that it runs")
    parser.add_argument("--out", type=Path, help="save the result document here (JSON)")
    options = parser.parse_args()
    progress.silence(True)
    quick: Tables = {}
    if options.quick:
        quick = {"diffuse": {"iterations": 20, "hidden": 16}, "finetune": {"epochs": 2}}
    stores = {name: getattr(options, MERGED[name]) if name in MERGED else None for name in SETTINGS}
    names = options.settings or [name for name in SETTINGS if name in SMALL or stores[name] is not None]
    for name in names:
        if name in MERGED and stores[name] is None:
            parser.error(f"{name} needs --{MERGED[name]} STORE")
    config = {"seeds": options.seeds, "quick": options.quick, "modes": MODES_TABLES, "small": SMALL_TABLES}
    found: dict[str, tuple[list[dict[str, Any]], dict[str, Any]]] = {}
    if options.out and options.out.exists():
        before = json.loads(options.out.read_text(encoding="utf-8"))
        # What was measured before in the same way stays in the file.
        for entry in before["data"] if before["config"] == plain(config) else []:
            found[entry["data"]] = [row for row in before["rows"] if row["data"] == entry["data"]], entry
    for name in names:
        found[name] = run(name, stores[name], options.seeds, quick)
        print(text(name, found[name][0]), flush=True)
        if options.out:
            document = results.document(
                "several-modes", config,
                rows=[row for rows, _ in found.values() for row in rows],
                data=[entry for _, entry in found.values()],
                comparisons=[
                    {"data": name, **entry} for name, (rows, _) in found.items() for entry in duels(rows)
                ],
            )  # fmt: skip
            write_text(options.out, json.dumps(plain(document), indent=1) + "\n")


if __name__ == "__main__":
    main()
