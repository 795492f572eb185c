"""The part ``store`` of ``ldmlr bench``: a feature store written, read, verified and iterated, beside a copy.

The peer of writing is a copy of the same file, flushed to the disk as a store is; that of the others is the
file's bytes read once. Files are read from the system's cache: what is compared is the work, not the disk.
"""

from __future__ import annotations

import functools
import os
import shutil
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from ldmlr.bench.folder import folder_of
from ldmlr.bench.parts import Row, Settings
from ldmlr.bench.timing import pair
from ldmlr.store import FeatureStore, SplitData, verify
from ldmlr.text import table

# Rows [N, D] of the store: 256 MB, and a quarter of that for a quick run.
ROWS, DIM, CLASSES = 1 << 17, 512, 100
QUICK_ROWS = 1 << 15
# Rows read at a time, as a training reads them.
BATCH = 512


class Files:
    """A store in a folder of its own, which goes with this object."""

    def __init__(self, rows: int) -> None:
        self.folder, self.rows = folder_of(self), rows
        random = np.random.default_rng(0)
        self.features = random.standard_normal((rows, DIM), np.float32)
        self.labels: npt.NDArray[np.int64] = np.sort(random.integers(0, CLASSES, rows))
        self.order = random.permutation(rows)
        self.path = self.folder / "store.h5"
        self.write()

    @property
    def megabytes(self) -> float:
        """Bytes of the features, in millions."""
        return self.features.nbytes * 1e-6

    def write(self) -> float:
        """Write the store anew and return the megabytes."""
        train = SplitData(self.features, self.labels)
        FeatureStore.write(self.path, train=train, num_classes=CLASSES, overwrite=True)
        return self.megabytes

    def copy(self) -> float:
        """Copy the file, flushed to the disk, and return the megabytes."""
        target = self.folder / "copy.h5"
        shutil.copyfile(self.path, target)
        with open(target, "rb+") as file:
            os.fsync(file.fileno())
        return self.megabytes

    def bytes(self) -> float:
        """Read the bytes of the file into memory, once."""
        assert np.fromfile(self.path, np.uint8).size
        return self.megabytes

    def read(self) -> float:
        """Open the store and read all rows into memory."""
        with FeatureStore.open(self.path) as store:
            assert store.split("train").float32().shape == self.features.shape
        return self.megabytes

    def verify(self) -> float:
        """Verify the store."""
        assert not verify(self.path).problems
        return self.megabytes

    def iterate(self) -> float:
        """Read all rows in batches, in their order."""
        with FeatureStore.open(self.path) as store:
            split = store.split("train")
            # A sum, so that a row that is mapped is read too.
            total = sum(float(features.sum(dtype=np.float64)) for features, _ in split.batches(BATCH))
        assert np.isfinite(total)
        return self.megabytes

    def shuffled(self) -> float:
        """Read all rows in batches, in a random order."""
        with FeatureStore.open(self.path) as store:
            split = store.split("train")
            for start in range(0, self.rows, BATCH):
                split.float32(self.order[start : start + BATCH])
        return self.megabytes


def jobs(settings: Settings) -> list[Callable[[], Row]]:
    """Return the measurements, each giving one row of the benchmark table."""
    files = functools.cache(lambda: Files(QUICK_ROWS if settings.quick else ROWS))
    repeats = min(settings.repeats, 3) if settings.quick else settings.repeats
    works: dict[str, tuple[Callable[[Files], float], Callable[[Files], float], str]] = {
        "write": (Files.write, Files.copy, "a copy"),
        "read": (Files.read, Files.bytes, "the bytes"),
        "verify": (Files.verify, Files.bytes, "the bytes"),
        "iterate": (Files.iterate, Files.bytes, "the bytes"),
        "iterate in random order": (Files.shuffled, Files.bytes, "the bytes"),
    }
    return [partial(_measured, name, *work, files, repeats) for name, work in works.items()]


def _measured(
    name: str,
    work: Callable[[Files], float],
    peer: Callable[[Files], float],
    against: str,
    files: Callable[[], Files],
    repeats: int,
) -> Row:
    there = files()
    found = pair(lambda: work(there), lambda: peer(there), repeats)
    row: dict[str, Any] = dict.fromkeys(
        ("isa", "hidden", "layers", "steps", "guidance", "gflop_per_s", "ceiling_gflop_per_s", "error")
    )
    return {
        "what": f"{name}, beside {against}", "backend": "store", "dtype": "float32", "dim": DIM,
        "rows": there.rows, "threads": 1, **row, "mb_per_s": found.first,
        "rows_per_s": found.first * 1e6 / (4 * DIM), "baseline_mb_per_s": found.second,
        "times": found.ratio, "fraction": found.ratio,
    }  # fmt: skip


def text(rows: list[Row]) -> str:
    """Return the table for people."""
    body = [
        [row["what"], f"{row['rows']:,} x {row['dim']}", f"{row['mb_per_s']:,.0f}",
         f"{row['baseline_mb_per_s']:,.0f}", f"{row['fraction']:.0%}"]
        for row in rows
    ]  # fmt: skip
    return table(["store", "rows", "MB/s", "peer MB/s", "share"], body)
