"""What each training option of stage 1 gains on the built-in digits, at equal work.

Every variant differs from the preset ``digits`` by the options that are named, and trains for 40 epochs,
or for 20 with two views (twice the work). A teacher or first weights are those of another variant and the
same seed; that training comes on top, hence the variants of 80 epochs beside them. With ``--ldmlr`` stages 2
and 3 follow as in ``ldmlr run``, with the head of the variant in stage 3. The same seeds for all, last
epoch; nothing is chosen by the figures.
The folder of runs is reused, so an interrupted table goes on.

    python benchmarks/training_options.py --folder runs/options --out training-options.json
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from ldmlr import results
from ldmlr.config import plain
from ldmlr.device import Machine
from ldmlr.files import write_text
from ldmlr.run.config import RunConfig, stage_tables
from ldmlr.run.pipeline import Run, open_run
from ldmlr.text import accuracy_table

EPOCHS = 40
MIXED = {"mixup": 1.0, "cutmix": 1.0}
VARIANTS: dict[str, dict[str, Any]] = {
    "preset": {},
    "weight decay 5e-3": {"weight_decay": 5e-3},
    "mixup": {"mixup": 1.0},
    "CutMix": {"cutmix": 1.0},
    "mixup or CutMix": MIXED,
    "two mixed views": {**MIXED, "consistency": 1e-9},
    "two mixed views, consistency 1": {**MIXED, "consistency": 1.0},
    "two mixed views, consistency 4": {**MIXED, "consistency": 4.0},
    "balanced softmax": {"loss": "balanced-softmax"},
    "weighted": {"loss": "weighted"},
    "cumulative weighted": {"loss": "weighted", "cumulative": True},
    "cosine head": {"head": "cosine"},
    "cosine head, LDAM": {"head": "cosine", "loss": "ldam"},
    "WCDAS head": {"head": "wcdas"},
    "WCDAS head, head step": {"head": "wcdas", "head_epochs": 10},
    "head step": {"head_epochs": 10},
    "MaxNorm 1": {"max_norm": 1.0},
    "MaxNorm 1, head step": {"max_norm": 1.0, "head_epochs": 10},
    "GLMC": {**MIXED, "consistency": 4.0, "loss": "weighted", "weight_power": 1.2, "cumulative": True},
    "GLMC, balanced softmax": {
        **MIXED, "consistency": 1.0, "loss": "balanced-softmax", "cumulative": True,
    },
    "80 epochs": {"epochs": 80},
    "80 epochs, balanced softmax": {"loss": "balanced-softmax", "epochs": 80},
    "balanced softmax, restart": {"loss": "balanced-softmax", "init": "balanced softmax"},
    "balanced softmax, taught": {"loss": "balanced-softmax", "teacher": "balanced softmax"},
    "balanced softmax, restart, taught": {
        "loss": "balanced-softmax", "init": "balanced softmax", "teacher": "balanced softmax",
    },
    "balanced softmax, taught by 80 epochs": {
        "loss": "balanced-softmax", "teacher": "80 epochs, balanced softmax",
    },
}  # fmt: skip
# Options whose value here is the name of another variant: its model is meant.
MODELS = ("init", "teacher")


def measure(name: str, seeds: int, folder: Path, ldmlr: bool) -> list[dict[str, Any]]:
    """Return the accuracy rows of a variant: of the baseline, and with `ldmlr` those of all stages."""
    found = []
    for seed in range(seeds):
        run = prepare(name, seed, folder)
        found.append(run.execute(lambda line: None)["rows"] if ldmlr else train(run)["rows"])
    return [
        results.accuracy_row(
            rows[0]["method"], rows[0]["adjustment"],
            [{column: _value(row[column]) for column in results.GROUP_COLUMNS} for row in rows],
        )
        for rows in zip(*found, strict=True)
    ]  # fmt: skip


def prepare(name: str, seed: int, folder: Path) -> Run:
    """Return the run of a variant and seed, once the models that it names are trained."""
    options = dict(VARIANTS[name])
    for key in MODELS:
        if key in options:
            before = prepare(options[key], seed, folder)
            train(before)
            trained = before.plan.steps(seed).baseline
            assert trained is not None
            options[key] = str(trained.output)
    # Two views are twice the work of one.
    epochs = EPOCHS // 2 if options.get("consistency") else EPOCHS
    config = RunConfig(seed=seed, preset="digits")
    tables = stage_tables(
        {"baseline": {"epochs": epochs, **options}, "finetune": {"head": options.get("head", "linear")}},
        config,
    )
    return open_run("digits-lt", config, tables, folder, Machine(device="cpu", threads=1))


def train(run: Run) -> dict[str, Any]:
    """Return the figures of stage 1 of a run, trained now or found in its folder."""
    steps = run.plan.steps(run.plan.config.seed_list[0])
    assert steps.baseline is not None
    figures: dict[str, Any] = steps.baseline.run(run.work(steps.baseline, steps))["figures"]
    return figures


def _value(entry: dict[str, Any] | None) -> float | None:
    return None if entry is None else entry["values"][0]


def main() -> None:
    """Run, print and save the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", action="append", choices=VARIANTS, help="only this variant (repeatable)")
    parser.add_argument("--ldmlr", action="store_true", help="stages 2 and 3 too")
    parser.add_argument("--folder", type=Path, default=Path("runs/options"))
    parser.add_argument("--out", type=Path, help="save the result document here (JSON)")
    arguments = parser.parse_args()
    found: list[dict[str, Any]] = []
    for name in arguments.only or VARIANTS:
        rows = measure(name, arguments.seeds, arguments.folder, arguments.ldmlr)
        found += [{"data": "digits-lt", "setting": name, **row} for row in rows]
        print(f"{name}\n{accuracy_table(rows)}\n", flush=True)
    if arguments.out:
        document = results.document(
            "training-options",
            {
                "source": "digits-lt",
                "seeds": arguments.seeds,
                "epochs": EPOCHS,
                "ldmlr": arguments.ldmlr,
                "variants": VARIANTS,
            },
            rows=found,
        )
        write_text(arguments.out, json.dumps(plain(document), indent=2) + "\n")


if __name__ == "__main__":
    main()
