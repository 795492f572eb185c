"""The part ``augment`` of ``ldmlr bench``: stores in, balanced stores out, from end to end.

Each store is opened, a model is trained on its rows, the rows that are missing are drawn and a new store is
written. Stores of 1,000 rows (D 64, ten classes, the largest with thirty times the rows of the smallest), the
recipe's settings, in turn on all threads and side by side; beside a store of the same rows by SMOTE.
"""

from __future__ import annotations

import functools
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from ldmlr.bench.folder import folder_of
from ldmlr.bench.parts import Row, Settings
from ldmlr.diffusion.config import DiffusionConfig
from ldmlr.engines.stores import augment_all
from ldmlr.errors import LdmlrError
from ldmlr.generation.augment import Job
from ldmlr.generation.config import GenerateConfig
from ldmlr.store import FeatureStore, SplitData
from ldmlr.text import table

ROWS, DIM, CLASSES, FACTOR = 1000, 64, 10, 30
# Stores that are done side by side, by thread.
STORES = 4


class Stores:
    """Stores in a folder of its own, which goes with this object."""

    def __init__(self, count: int) -> None:
        self.folder = folder_of(self)
        self.paths = [self._make(number) for number in range(count)]

    def _make(self, seed: int) -> Path:
        random = np.random.default_rng(seed)
        share = FACTOR ** -(np.arange(CLASSES) / (CLASSES - 1))
        counts = np.maximum(2, (ROWS * share / share.sum()).round()).astype(np.int64)
        labels = np.repeat(np.arange(CLASSES), counts)
        means = 2 * random.standard_normal((CLASSES, DIM))
        rows = (means[labels] + random.standard_normal((len(labels), DIM))).astype(np.float32)
        path = self.folder / f"store-{seed}.h5"
        FeatureStore.write(path, train=SplitData(rows, labels), num_classes=CLASSES)
        return path


def jobs(settings: Settings) -> list[Callable[[], Row]]:
    """Return the measurements, each giving one row of the benchmark table."""
    several = STORES * settings.threads if settings.threads > 1 and not settings.quick else 0
    stores = functools.cache(lambda: Stores(max(several, 1)))
    repeats = 1 if settings.quick else min(settings.repeats, 3)
    found = [
        partial(_measured, "one store", stores, 1, "diffusion", settings.threads, repeats),
        partial(_measured, "one store by SMOTE", stores, 1, "smote", settings.threads, repeats),
    ]
    if several:
        found.append(
            partial(_measured, "stores side by side", stores, several, "diffusion", settings.threads, 1)
        )
    return list(found)


def _measured(
    what: str, stores: Callable[[], Stores], count: int, generator: str, threads: int, repeats: int
) -> Row:
    paths = stores().paths[:count]
    seconds, generated, backend = [], 0, ""
    for _ in range(repeats):
        with tempfile.TemporaryDirectory(prefix="ldmlr-bench-") as folder:
            began = time.perf_counter()
            done = augmented(paths, Path(folder), generator, threads)
            seconds.append(time.perf_counter() - began)
        generated, backend = sum(figures["generated"] for figures in done), done[0]["backend"]
    middle, config = statistics.median(seconds), DiffusionConfig().for_rows(ROWS, DIM)
    trained = generator == "diffusion"
    return {
        "what": what, "backend": backend, "isa": None, "dtype": "float32", "dim": DIM,
        "hidden": config.hidden if trained else None, "layers": config.layers if trained else None,
        "steps": config.iterations if trained else None, "guidance": None, "threads": threads,
        "stores": count, "rows": ROWS, "rows_per_s": generated / middle, "stores_per_s": count / middle,
        "seconds": middle, "train_seconds": sum(figures["train_seconds"] for figures in done),
        "generate_seconds": sum(figures["generate_seconds"] for figures in done),
        "gflop_per_s": None, "ceiling_gflop_per_s": None, "fraction": None, "error": None,
    }  # fmt: skip


def augmented(paths: Sequence[Path], folder: Path, generator: str, threads: int) -> list[Row]:
    """Augment stores and return their figures."""
    todo = [Job(path, folder / path.name, generator) for path in paths]
    done = []
    for _, figures in augment_all(todo, DiffusionConfig(), GenerateConfig(), threads=threads):
        if isinstance(figures, LdmlrError):
            raise figures
        done.append(figures)
    return done


def text(rows: list[Row]) -> str:
    """Return the table for people."""
    body = [
        [row["what"], str(row["stores"]), str(row["threads"]), f"{row['seconds']:.2f}",
         f"{row['stores_per_s']:.2f}", f"{row['train_seconds']:.2f}", f"{row['generate_seconds']:.2f}"]
        for row in rows
    ]  # fmt: skip
    return table(["augment", "stores", "threads", "seconds", "stores/s", "training s", "drawing s"], body)
