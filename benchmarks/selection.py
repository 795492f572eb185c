"""What choosing on held-out rows gains or costs: fixed settings, chosen ones, and the choice taken over.

Each SOURCE is ``digits-lt`` or a feature store. Of a store only the *test* rows are used, which its encoder
never saw: half of them, thinned to a long tail, become training rows, the other half test rows, anew for
every draw. So features of training and test rows are equally wide, which is where a fixed widening ought
to be wrong.

    python benchmarks/selection.py digits-lt cifar10-lt-if100-features.h5 --draws 3 --out selection.json

Per draw: (a) the fixed settings on all training rows; (b) the same where a tenth is held out; (c) ``--auto``
on (b); (d) ``--refit`` of that choice on (a). The comparison that counts is (d) with (a); (c) with (b) shows
the choice alone. The test rows are read once per run, for its figures.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from ldmlr import progress, results
from ldmlr.config import plain
from ldmlr.data.longtail import hold_out, long_tailed_indices
from ldmlr.device import Machine
from ldmlr.files import write_text
from ldmlr.run.config import RunConfig, stage_tables
from ldmlr.run.pipeline import open_run
from ldmlr.select.choice import Choice
from ldmlr.store import FeatureStore, SplitData

SETTINGS = ("fixed", "fixed, a tenth held out", "auto", "refit")


def carve(store: FeatureStore, draw: int, factor: float, folder: Path) -> tuple[Path, Path]:
    """Write the store of all training rows and the one with a tenth held out; return both."""
    rows, labels = store.split("test").float32(), store.split("test").labels
    first, second = hold_out(labels, 0.5, draw)
    train = first[long_tailed_indices(labels[first], factor, draw)]
    kept, held = hold_out(labels[train], 0.1, draw)

    def split(index: np.ndarray) -> SplitData:
        return SplitData(rows[index], labels[index])

    paths = folder / f"full-{draw}.h5", folder / f"val-{draw}.h5"
    FeatureStore.write(paths[0], train=split(train), test=split(second))
    FeatureStore.write(paths[1], train=split(train[kept]), val=split(train[held]), test=split(second))
    return paths


def figures(
    source: str, root: Path, tables: dict[str, Any], choice: Path | None = None, **run: Any
) -> dict[str, Any]:
    """Do one run and return its accuracy and its choice."""
    config = RunConfig(seed=run.pop("seed"), refit=choice, auto=run.pop("auto", False))
    if choice is not None:
        loaded = Choice.load(choice)
        config, tables = config.replace(generator=loaded.generator), loaded.tables(tables)
    opened = open_run(source, config, stage_tables(tables, config), root, Machine(threads=1))
    done = opened.execute(lambda line: None)
    accuracy = {f"{row['method']} {row['adjustment']}": row["all"]["mean"] for row in done["rows"]}
    if config.auto:
        (root / "choice.json").write_text(json.dumps(done["choice"]))
    return {"accuracy": accuracy, "choice": done["choice"]}


def measure(source: str, draw: int, factor: float, folder: Path) -> dict[str, Any]:
    """Do the four runs of a draw."""
    held_out: dict[str, Any] = {"baseline": {"val_fraction": 0.1}} if source == "digits-lt" else {}
    full, val = source, source
    if source != "digits-lt":
        with FeatureStore.open(source) as store:
            full, val = map(str, carve(store, draw, factor, folder))
    fixed = figures(full, folder / "full", {}, seed=draw)
    less = figures(val, folder / "val", held_out, seed=draw)
    auto = figures(val, folder / "val", held_out, seed=draw, auto=True)
    refit = figures(full, folder / "full", {}, folder / "val" / "choice.json", seed=draw)
    chosen = auto["choice"]
    return {
        "data": Path(source).stem, "draw": draw,
        "fixed": fixed["accuracy"], "fixed, a tenth held out": less["accuracy"],
        "auto": auto["accuracy"], "refit": refit["accuracy"],
        "chosen": {**chosen["chosen"], **chosen["settings"]["finetune"]},
        "val_rows": chosen["stores"][0]["val_rows"],
        "k": chosen["evidence"]["scatter"]["k"], "groups": chosen["evidence"]["scatter"]["groups"],
        "candidates": chosen["evidence"]["generation"] + chosen["evidence"]["gate"],
    }  # fmt: skip


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("sources", nargs="+", metavar="SOURCE")
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--imbalance-factor", type=float, default=50.0)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    progress.silence(True)
    config = {"imbalance_factor": options.imbalance_factor, "draws": options.draws, "threads": 1}
    rows: list[dict[str, Any]] = []
    choices: list[dict[str, Any]] = []
    for source in options.sources:
        draws = []
        for draw in range(options.draws):
            folder = Path(tempfile.mkdtemp(prefix="ldmlr-selection-"))
            try:
                draws.append(measure(source, draw, options.imbalance_factor, folder))
            finally:
                shutil.rmtree(folder)
            report(source, draws)
            document = results.document(
                "selection", config, rows=rows + accuracies(draws), choices=choices + draws
            )
            write_text(options.out, json.dumps(plain(document), indent=1) + "\n")
        rows += accuracies(draws)
        choices += draws


def accuracies(draws: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows of a source over its draws."""
    rows = []
    for setting in SETTINGS:
        for name in draws[0][setting]:
            method, adjustment = name.split(" ")
            place = {"method": method, "data": draws[0]["data"], "setting": setting, "adjustment": adjustment}
            rows.append({**place, "all": results.spread([draw[setting][name] for draw in draws])})
    return rows


def report(source: str, draws: list[dict[str, Any]]) -> None:
    """Print means and differences so far."""
    print(f"{Path(source).name}: {len(draws)} draws", file=sys.stderr)
    for row in ("ldmlr none", "ldmlr label-shift"):
        parts = {name: np.array([draw[name][row] for draw in draws]) for name in SETTINGS}
        gain = parts["refit"] - parts["fixed"]
        means = "  ".join(f"{name} {values.mean():.2f}" for name, values in parts.items())
        print(
            f"  {row:<18} {means}  refit - fixed {gain.mean():+.2f} (per draw {np.round(gain, 2)})",
            file=sys.stderr,
        )
    print(f"  chosen {draws[-1]['chosen']}", file=sys.stderr)


if __name__ == "__main__":
    main()
