"""How far could any linear head get on a store? Fitted to one half of the test rows, measured on the other.

    python benchmarks/lab/ceiling.py STORE... --out ceiling.json

No method may do this: it shows what an encoder's features leave to gain, and nothing is chosen by it. The
halves alternate within each class, both ways round. The head starts from the store's, as a half has few rows
of each class; 30 passes at three learning rates, of which the best is the ceiling.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from ldmlr import results
from ldmlr.config import plain
from ldmlr.files import write_text
from ldmlr.heads.config import FinetuneConfig
from ldmlr.heads.finetune import baseline_head, start_head
from ldmlr.heads.logits import head_logits
from ldmlr.heads.training import train_head
from ldmlr.heads.training_rows import TrainingRows
from ldmlr.metrics.accuracy import accuracy
from ldmlr.store import FeatureStore

RATES = (1e-3, 3e-3, 1e-2)


def ceiling(path: Path, rate: float) -> list[float]:
    """Return the accuracy in per cent on each half of the test rows of a head fitted to the other."""
    found = []
    config = FinetuneConfig(head="linear", epochs=30, lr=rate)
    with FeatureStore.open(path) as store:
        test, classes = store.split("test"), store.num_classes
        features, labels = test.float32(), np.asarray(test.labels).astype(np.int64)
        order = np.argsort(labels, kind="stable")
        for first in (0, 1):
            fit, rest = order[first::2], order[1 - first :: 2]
            rows = TrainingRows(features[fit], labels[fit], len(fit), classes, str(path))
            head = start_head(config, baseline_head(rows, store.head)[0], rows, 0)
            train_head(head, rows, config)
            counts = np.bincount(labels[fit], minlength=classes)
            found.append(accuracy(head_logits(head, features[rest]), labels[rest], counts)["all"] or 0.0)
    return found


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("stores", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, help="save the result document here (JSON)")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for path in options.stores:
        for rate in RATES:
            halves = ceiling(path, rate)
            rows.append(
                {
                    "method": "ceiling", "data": path.stem, "setting": f"rate {rate:g}", "adjustment": "none",
                    "all": results.spread(halves),
                }
            )  # fmt: skip
            print(
                f"{path.name:<34}{rate:<8g}{np.mean(halves):.2f}  (halves {halves[0]:.2f}, {halves[1]:.2f})"
            )
    if options.out:
        write_text(
            options.out, json.dumps(plain(results.document("ceiling", {}, rows=rows)), indent=2) + "\n"
        )


if __name__ == "__main__":
    main()
