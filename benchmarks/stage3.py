"""Stage 3 on a made-up set of ImageNet-LT's size: seconds, peak memory and accuracy.

1,000 classes of 1,280 to 5 encoded rows with 512 numbers, filled up with generated ones. The recipe's
passes as they run, with products of float32, and by autograd; and a linear head solved with its weight decay
chosen on held-out rows. Each runs in a process of its own, so that its peak memory is its own.

    python benchmarks/stage3.py --out stage3.json
    python benchmarks/stage3.py --rows 20000 --generated 50000 --epochs 1 --out small.json
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from ldmlr import results
from ldmlr.config import plain
from ldmlr.device import set_threads
from ldmlr.files import write_text
from ldmlr.heads import training
from ldmlr.heads.config import FinetuneConfig
from ldmlr.heads.finetune import finetune
from ldmlr.heads.logits import head_logits
from ldmlr.heads.training import fresh_head, train_head
from ldmlr.heads.training_rows import TrainingRows

WHAT = ("recipe", "recipe, float32", "recipe, by autograd", "tuned")
TEST_ROWS = 10_000


def class_counts(rows: int, classes: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return rows per class that fall off exponentially from about the most to a 256th of it."""
    share = 256.0 ** -np.linspace(0, 1, classes)
    return np.maximum(1, np.round(rows * share / share.sum())).astype(np.int64)


def made_up(args: argparse.Namespace) -> tuple[TrainingRows, tuple[Any, Any]]:
    """Return encoded and generated rows, and test rows, of classes that overlap."""
    random = np.random.default_rng(0)
    means = random.normal(size=(args.classes, args.dim)).astype(np.float32)
    counts = class_counts(args.rows, args.classes)
    encoded = np.repeat(np.arange(args.classes), counts)
    lacking = counts.max() - counts
    generated = random.choice(args.classes, args.generated, p=lacking / lacking.sum())
    labels = np.concatenate([encoded, generated])

    def draw(labels: Any) -> Any:
        rows = random.standard_normal((len(labels), args.dim), dtype=np.float32)
        rows *= 4
        rows += means[labels]
        return rows

    test = np.arange(TEST_ROWS) % args.classes
    rows = TrainingRows(draw(labels), labels, len(encoded), args.classes, "made up")
    return rows, (draw(test), test)


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Run one of `WHAT` and return its figures."""
    threads = set_threads(args.threads)
    rows, (test, labels) = made_up(args)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    settled: dict[str, Any] = {}
    if args.what == "tuned":
        tuned = finetune(
            (rows.features[: rows.encoded], rows.labels[: rows.encoded]), fit="tuned", head="linear", seed=0
        )
        guess, settled = tuned.predict(test), {"weight_decay": (tuned.chosen or {})["weight_decay"]}
    else:
        if args.what.endswith("autograd"):
            training.LONG_STEP = sys.maxsize
        head = fresh_head("linear", rows.dim, rows.num_classes, 0)
        precision = "float32" if args.what.endswith("float32") else "auto"
        history = train_head(head, rows, FinetuneConfig(epochs=args.epochs, precision=precision), seed=0)
        settled = {"precision": history[-1]["precision"]}
        guess = head_logits(head, test).argmax(axis=1)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "what": args.what, "rows": len(rows.labels), "dim": rows.dim, "classes": rows.num_classes,
        "threads": threads, "seconds": round(seconds, 2), "accuracy": 100 * float((guess == labels).mean()),
        "rows_mb": rows.features.nbytes / 2**20, "peak_mb_before": before / 2**10, "peak_mb": peak / 2**10,
        **settled,
    }  # fmt: skip


def main() -> None:
    """Measure each in a process of its own and write the document."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--rows", type=int, default=115_622)
    parser.add_argument("--generated", type=int, default=884_378)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--what", choices=WHAT, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=Path("stage3.json"))
    args = parser.parse_args()
    if args.what:
        print(json.dumps(measure(args)))
        return
    rows = []
    for what in WHAT:
        done = subprocess.run(
            [sys.executable, *sys.argv, "--what", what], capture_output=True, text=True, check=True
        )
        rows.append(json.loads(done.stdout))
        print(rows[-1], flush=True)
    config = {name: value for name, value in vars(args).items() if name not in ("what", "out")}
    document = results.document("stage3", config, rows=rows)
    write_text(args.out, json.dumps(plain(document), indent=2) + "\n")


if __name__ == "__main__":
    main()
