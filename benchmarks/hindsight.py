"""Does ``--auto`` choose well? The method it takes without the test split, beside the best in hindsight.

Each SOURCE is a built-in set of features or a store with a test split whose encoder has not seen the training
rows; after ``--familiar`` come stores whose encoder has. ``--tables`` names sets of the KEEL collection
(``development``: the fifteen that everything is tuned on), each measured by two stratified folds, or
``--folds`` of them, which ``--fold-seed`` draws.

    python benchmarks/hindsight.py digits-pixels-lt cifar10-wide.h5 c10-by-c100.h5 --out hindsight.json
    python benchmarks/hindsight.py --familiar cifar10-lt-if100-features.h5 --seeds 2 --out hindsight.json
    python benchmarks/hindsight.py --tables development --out hindsight.json

Abroad all entrants of a contest try on held-out training rows, as ``ldmlr run --auto`` lets them, and one is
chosen. Then the heads of all are fitted to all rows, those too that were left because they cannot win, and
measured on the test split: mean over classes, over seeds. At home nothing can be held out, and the answer is
the recipe with label shift: beside it stand all rows of ``ldmlr compare``.

Printed and saved per source: what was chosen, the best in hindsight, and how far behind the choice is. The
test rows choose nothing. What the file has already is not measured again.

The best in hindsight is a maximum over methods of figures that are noisy where test rows are few. Two more
figures say how much of the distance that is (``hindsight_noise.py``): the distance at which even the truly
best method is expected, and that to the method which is best on one half of the test rows, measured on the
other. At home answers to single rows are not kept, and neither figure is there.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from hindsight_noise import class_weights, expected_lead, other_half

from ldmlr import progress, results
from ldmlr.config import plain
from ldmlr.data.featuresets import ready_source
from ldmlr.device import Machine, set_threads
from ldmlr.experiments.catalogue import CompareConfig
from ldmlr.experiments.compare import compare
from ldmlr.files import write_text
from ldmlr.heads.logits import head_logits
from ldmlr.run.auto import RECIPE_ROW, usual_entrants
from ldmlr.run.config import RunConfig, stage_tables
from ldmlr.select.auto import open_contest
from ldmlr.select.contest import Contest, Trial
from ldmlr.store import FeatureStore, SplitData

RECIPE = ("ldmlr", RECIPE_ROW)
Floats = np.ndarray[Any, np.dtype[np.float64]]


def answers(contest: Contest, trial: Trial, seed: int, rows: Any) -> np.ndarray[Any, Any]:
    """Return the classes that the head of a trial names for rows ``[N, D]``."""
    head, shift, _ = contest.head(trial, seed)
    guess: np.ndarray[Any, Any] = (head_logits(head, rows) - shift).argmax(axis=1)
    return guess


def abroad(stores: list[FeatureStore], seeds: int, threads: int) -> dict[str, Any]:
    """Measure the choice on one store, or on several whose test rows are counted together (folds).

    Folds choose by themselves: what is compared is the rule, with what it took in each.
    """
    machine, trials = Machine("cpu", threads), dict[str, list[list[np.ndarray[Any, Any]]]]()
    labels, took, chosen = [], [], []
    for store in stores:
        contest = open_contest(store, False, machine=machine)
        contest.enter(usual_entrants(contest.held.rows.features.size))
        won = contest.winner()
        took.append({"method": won.entrant.name, **won.chosen()})
        rows, own = store.split("test").float32(), np.asarray(store.split("test").labels)
        labels.append(own)
        for name, trial in contest.trials.items():
            right = [answers(contest, trial, seed, rows) == own for seed in range(seeds)]
            trials.setdefault(name, []).append(right)
        chosen.append(trials[won.entrant.name][-1])
    together = np.concatenate(labels)
    weights = class_weights(together)

    def figures(parts: list[list[np.ndarray[Any, Any]]]) -> list[float]:
        right = (np.concatenate([part[seed] for part in parts]) for seed in range(seeds))
        return [100 * float(one @ weights) for one in right]

    measured = {name: figures(parts) for name, parts in trials.items() if len(parts) == len(stores)}
    answered = {name: np.concatenate([np.mean(part, axis=0) for part in trials[name]]) for name in measured}
    taken = np.concatenate([np.mean(part, axis=0) for part in chosen])
    noise = {
        "expected_lead": round(expected_lead(answered, together), 4),
        "behind_on_other_half": round(other_half(answered, taken, together), 4),
    }
    return {"chosen": took, "values": figures(chosen), "methods": measured, "noise": noise}


def at_home(store: FeatureStore, seeds: int, threads: int) -> dict[str, Any]:
    """Measure the recipe beside every row of a comparison."""
    config = CompareConfig(encoder_trained_on_rows=True)
    found = compare(
        store, config, stage_tables({}, RunConfig()), seeds=seeds, device="cpu", threads=threads,
        report=lambda line: print(line, file=sys.stderr),
    )  # fmt: skip
    rows = {(row["method"], row["adjustment"]): row["balanced"]["values"] for row in found["rows"]}
    named = {name if shift == "none" else f"{name} + {shift}": rows[name, shift] for name, shift in rows}
    return {
        "chosen": [{"method": " + ".join(RECIPE)}], "values": rows[RECIPE], "methods": named, "noise": {},
    }  # fmt: skip


def table_stores(name: str, folder: Path, folds: int, seed: int) -> Iterator[FeatureStore]:
    """Yield a set of the KEEL collection as one store per fold."""
    from keel import load
    from sklearn.model_selection import StratifiedKFold

    rows, labels = load(name)
    splits = StratifiedKFold(folds, shuffle=True, random_state=seed).split(rows, labels)
    for number, (train, test) in enumerate(splits):
        path = folder / f"{name}-{number}.h5"
        kept, held = (
            SplitData(rows[index].astype(np.float32), labels[index].astype(np.int64))
            for index in (train, test)
        )
        FeatureStore.write(path, train=kept, test=held).close()
        yield FeatureStore.open(path)


def entry(name: str, place: str, found: dict[str, Any], seconds: float) -> dict[str, Any]:
    """Return the figures of a source: the choice, the best in hindsight, and the distance."""
    means = {method: float(np.mean(values)) for method, values in found["methods"].items()}
    best = max(means, key=lambda method: means[method])
    chosen = float(np.mean(found["values"]))
    return {
        "data": name, "place": place, "chosen": found["chosen"], "best": best,
        "behind": round(max(means[best] - chosen, 0.0), 4), **found["noise"], "seconds": round(seconds, 1),
        "balanced": results.spread(found["values"]), "best_balanced": results.spread(found["methods"][best]),
        "methods": {method: round(mean, 3) for method, mean in sorted(means.items(), key=lambda m: -m[1])},
    }  # fmt: skip


def rows_of(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the choice and the best in hindsight of every source as rows of a table."""
    return [
        {
            "method": method, "adjustment": "none", "data": one["data"], "setting": setting,
            "judged_by": results.BALANCED, results.BALANCED: one[figures],
        }
        for one in entries
        for setting, method, figures in (
            ("chosen", ", ".join(dict.fromkeys(took["method"] for took in one["chosen"])), "balanced"),
            ("best in hindsight", one["best"], "best_balanced"),
        )
    ]  # fmt: skip


def summary(entries: list[dict[str, Any]]) -> str:
    """Return a line per source, and how far behind the choice is on average and at worst."""
    lines = [
        f"{one['data']:<32}{', '.join(dict.fromkeys(took['method'] for took in one['chosen'])):<40}"
        f"{one['balanced']['mean']:7.2f}  best {one['best']} {one['best_balanced']['mean']:.2f}  "
        f"behind {one['behind']:.2f}"
        for one in entries
    ]
    said = {
        "behind": "behind the best in hindsight",
        "expected_lead": "where even the truly best method is expected, as the maximum is over noise",
        "behind_on_other_half": "behind the best of one half of the test rows, on the other half",
    }
    for figure, words in said.items():
        gaps = [one[figure] for one in entries if figure in one]
        if gaps:
            lines.append(f"{words}: on average {np.mean(gaps):.2f}, at worst {max(gaps):.2f}")
    return "\n".join(lines)


def main() -> None:
    """Measure what is missing in the file and print all of it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sources", nargs="*", metavar="SOURCE")
    parser.add_argument("--familiar", nargs="*", default=[], metavar="STORE")
    parser.add_argument("--tables", default="", help="development, or names with commas")
    parser.add_argument("--folds", type=int, default=2, help="of each table")
    parser.add_argument("--fold-seed", type=int, default=0, help="of the folds of tables")
    parser.add_argument("--seeds", type=int, default=1, help="of the heads that are measured")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True, help="JSON file, continued if it is there")
    given = parser.parse_args()
    progress.silence(True)
    set_threads(given.threads)
    config = {
        "seeds": given.seeds, "threads": given.threads, "folds_of_tables": given.folds,
        "fold_seed": given.fold_seed,
    }  # fmt: skip
    before = json.loads(given.out.read_text()) if given.out.exists() else {"config": config, "sources": []}
    entries = before["sources"]
    if before["config"] != config:
        raise SystemExit(f"{given.out}: was measured with {before['config']}; name another file")
    tables: list[str] = []
    if given.tables:
        from keel import set_names

        tables = set_names(given.tables)
    with tempfile.TemporaryDirectory(prefix="ldmlr-hindsight-") as temporary:
        folder = Path(temporary)
        wanted = [
            *((Path(source).stem, "abroad", source) for source in given.sources),
            *((Path(source).stem, "home", source) for source in given.familiar),
            *((name, "table", name) for name in tables),
        ]
        for name, place, source in wanted:
            if any((one["data"], one["place"]) == (name, place) for one in entries):
                continue
            began = time.perf_counter()
            if place == "table":
                folds = table_stores(source, folder, given.folds, given.fold_seed)
                found = abroad(list(folds), given.seeds, given.threads)
            else:
                with ready_source(source, folder).open() as store:
                    measure = at_home if place == "home" else lambda s, *more: abroad([s], *more)
                    found = measure(store, given.seeds, given.threads)
            entries.append(entry(name, place, found, time.perf_counter() - began))
            document = results.document("hindsight", config, rows=rows_of(entries), sources=entries)
            write_text(given.out, json.dumps(plain(document), indent=1) + "\n", overwrite=True)
            print(summary(entries[-1:]).splitlines()[0], flush=True)
    print(summary(entries))


if __name__ == "__main__":
    main()
