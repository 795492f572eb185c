"""What each training option of stage 1 gains on the built-in digits, at equal work.

Every variant differs from the preset ``digits`` by the options that are named, and trains for 40 epochs
(``--epochs``), or for half as many with two views (twice the work). A teacher or first weights are those of
another variant and the same seed; that training comes on top, hence the variants of 80 epochs beside them.
With ``--ldmlr`` stages 2 and 3 follow as in ``ldmlr run``, with the head of the variant in stage 3. The same
seeds for all, last epoch; nothing is chosen by the figures.
The folder of runs is reused, so an interrupted table goes on.

To choose by figures, ``--validation`` keeps 30 of the 120 images of each class back before the long-tailed
draw: all stages run on the rest, and every head is measured on those images (``digits-lt-val``) beside the
test images (``digits-lt-test``).

    python benchmarks/training_options.py --folder runs/options --out training-options.json
    python benchmarks/training_options.py --levers --validation --epochs 80 --folder runs/levers --out l.json
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ldmlr import results
from ldmlr.config import plain
from ldmlr.data.digits import IMBALANCE_FACTOR, TRAIN_PER_CLASS, read_digits
from ldmlr.data.longtail import hold_out
from ldmlr.device import Machine
from ldmlr.files import write_text
from ldmlr.heads.evaluation import evaluate_store
from ldmlr.heads.headfile import FinetunedHead
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
# What the strongest published recipes are made of, one at a time on balanced softmax or on the binary loss,
# and together: what is after BCL (Zhu et al., CVPR 2022) and BCE3S (Fan et al., AAAI 2026) has their weights.
BINARY = {"loss": "binary"}
BALANCED = {"loss": "balanced-softmax"}
LEVERS: dict[str, dict[str, Any]] = {
    "balanced softmax": BALANCED,
    "balanced softmax, plain momentum": {**BALANCED, "nesterov": False},
    "balanced softmax, uniformity": {**BALANCED, "uniformity": 1.0},
    "balanced softmax, monotone norms": {**BALANCED, "finetune": {"monotone_norms": True}},
    "binary": BINARY,
    "binary, no margins": {**BINARY, "tau": 0.0},
    "binary, uniformity": {**BINARY, "uniformity": 1.0},
    "two views, balanced softmax": {**BALANCED, "contrast": 1e-9},
    "two views, supervised contrast": {**BALANCED, "contrast": 0.6},
    "two views, balanced contrast": {**BALANCED, "contrast": 0.6, "contrast_loss": "balanced"},
    "two views, binary contrast": {**BALANCED, "contrast": 0.1, "contrast_loss": "binary"},
    "two views, binary": {**BINARY, "contrast": 1e-9},
    "two views, binary, contrast and uniformity": {
        **BINARY, "contrast": 0.1, "contrast_loss": "binary", "uniformity": 1.0,
    },
    "after BCE3S": {
        **BINARY, **MIXED, "tau": 0.0, "contrast": 0.1, "contrast_loss": "binary",
        "contrast_temperature": 1.0,
        "uniformity": 1.0, "max_norm": 1.0,
    },
}  # fmt: skip
VARIANTS |= LEVERS
HELD_BACK = 30
# Options whose value here is the name of another variant: its model is meant.
MODELS = ("init", "teacher")


@dataclasses.dataclass(frozen=True)
class Table:
    """What the variants are trained on, how long, and where.

    Attributes
    ----------
    folder
        Of the runs.
    epochs
        Of a variant with one view.
    ldmlr
        Stages 2 and 3 too.
    validation
        Whether images are kept back to choose by; then all stages run.
    """

    folder: Path
    epochs: int = EPOCHS
    ldmlr: bool = False
    validation: bool = False

    @property
    def whole(self) -> bool:
        """Whether all stages run."""
        return self.ldmlr or self.validation

    def name(self, split: str) -> str:
        """Return what the data are called in the table."""
        return f"digits-lt-{split}" if self.validation else "digits-lt"

    def source(self) -> str:
        """Return the image set: the built-in one, or a file of it with images kept back."""
        if not self.validation:
            return "digits-lt"
        path = self.folder / "digits-val.h5"
        if not path.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            splits, _ = read_digits()
            pool = splits["train"]
            kept, held = hold_out(pool.labels, HELD_BACK / TRAIN_PER_CLASS, 0)
            with h5py.File(path, "w") as file:
                for split, images in (
                    ("train", pool.subset(kept)), ("val", pool.subset(held)), ("test", splits["test"]),
                ):  # fmt: skip
                    file[f"{split}/images"] = images.load(np.arange(len(images)))
                    file[f"{split}/labels"] = images.labels
        return str(path)


def measure(name: str, seeds: int, table: Table) -> list[dict[str, Any]]:
    """Return the accuracy rows of a variant: of the baseline, or of all stages; of each split by itself."""
    found: dict[str, list[list[dict[str, Any]]]] = {}
    for seed in range(seeds):
        run = prepare(name, seed, table)
        rows = run.execute(lambda line: None)["rows"] if table.whole else train(run)["rows"]
        found.setdefault("test", []).append(rows)
        if table.validation:
            found.setdefault("val", []).append(held_back(run, seed))
    return [
        {"data": table.name(split), "setting": name, **row}
        for split, runs in found.items()
        for row in over_seeds(runs)
    ]


def held_back(run: Run, seed: int) -> list[dict[str, Any]]:
    """Return the accuracy rows of all heads of a run on the images that were kept back."""
    steps = run.plan.steps(seed)
    with steps.store.open() as store:
        heads = [("ldmlr", FinetunedHead.load(steps.last.output))]
        measured, _ = evaluate_store(store, heads, split="val")
    return results.accuracy_rows([[entry.entry for _, entry in measured]])


def over_seeds(runs: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Return one table of the tables of single seeds."""
    return [
        results.accuracy_row(
            rows[0]["method"], rows[0]["adjustment"],
            [{column: _value(row[column]) for column in results.GROUP_COLUMNS} for row in rows],
        )
        for rows in zip(*runs, strict=True)
    ]  # fmt: skip


def prepare(name: str, seed: int, table: Table) -> Run:
    """Return the run of a variant and seed, once the models that it names are trained."""
    options = dict(VARIANTS[name])
    for key in MODELS:
        if key in options:
            before = prepare(options[key], seed, table)
            train(before)
            trained = before.plan.steps(seed).baseline
            assert trained is not None
            options[key] = str(trained.output)
    finetune = {"head": options.get("head", "linear"), **options.pop("finetune", {})}
    # Two views are twice the work of one.
    two = options.get("consistency") or options.get("contrast")
    epochs = table.epochs // 2 if two else table.epochs
    config = RunConfig(seed=seed, preset="digits")
    if table.validation:
        config = config.replace(imbalance_factor=IMBALANCE_FACTOR, baselines="per-seed")
    tables = stage_tables({"baseline": {"epochs": epochs, **options}, "finetune": finetune}, config)
    machine = Machine(device="cpu", threads=1)
    return open_run(table.source(), config, tables, table.folder, machine)


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
    parser.add_argument("--levers", action="store_true", help="the variants of the strongest recipes alone")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="epochs with one view (default: 40)")
    parser.add_argument("--ldmlr", action="store_true", help="stages 2 and 3 too")
    parser.add_argument("--validation", action="store_true", help="keep images back to choose by; all stages")
    parser.add_argument("--folder", type=Path, default=Path("runs/options"))
    parser.add_argument("--out", type=Path, help="save the result document here (JSON)")
    arguments = parser.parse_args()
    table = Table(arguments.folder, arguments.epochs, arguments.ldmlr, arguments.validation)
    names = arguments.only or list(LEVERS if arguments.levers else VARIANTS)
    found: list[dict[str, Any]] = []
    for name in names:
        rows = measure(name, arguments.seeds, table)
        found += rows
        for data in dict.fromkeys(row["data"] for row in rows):
            own = [row for row in rows if row["data"] == data]
            print(f"{name}, {data}\n{accuracy_table(own)}\n", flush=True)
        if arguments.out:
            document = results.document(
                "training-options",
                {
                    "source": "digits-lt",
                    "seeds": arguments.seeds,
                    "epochs": arguments.epochs,
                    "ldmlr": table.whole,
                    "held_back": HELD_BACK if table.validation else 0,
                    "variants": {name: VARIANTS[name] for name in names},
                },
                rows=found,
            )
            write_text(arguments.out, json.dumps(plain(document), indent=2) + "\n")


if __name__ == "__main__":
    main()
