"""Rows and stores of three classes for stage 3."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ldmlr.heads.modules import to_stored
from ldmlr.heads.training_rows import gather_rows
from ldmlr.heads.tuned import fit_baseline
from ldmlr.store import FeatureStore, SplitData
from support.axes import COUNTS, draw


def natural_rows():
    """Return encoded rows, features and labels."""
    return draw(COUNTS)


def generated_rows():
    """Return rows that balance them."""
    return draw((0, 180, 228), seed=7)


def biased_head(rows=None):
    return to_stored(fit_baseline(gather_rows(rows or draw(COUNTS)), seed=0))


def accuracy_of(logits, labels):
    return float((logits.argmax(axis=1) == labels).mean())


def write_stores(path: Path) -> Path:
    """Write a store with a head, pseudo-features, and both in one balanced store."""
    natural, generated = natural_rows(), generated_rows()
    test, head = SplitData(*draw((100, 100, 100), seed=3)), biased_head(natural)
    names = ["dog", "cat", "emu"]
    FeatureStore.write(
        path / "features.h5", train=SplitData(*natural), test=test, head=head, class_names=names
    )
    marked = SplitData(*generated, source=np.ones(len(generated[1]), np.uint8))
    FeatureStore.write(path / "pseudo.h5", train=marked, num_classes=3)
    merged = SplitData(
        np.concatenate([natural[0], generated[0]]),
        np.concatenate([natural[1], generated[1]]),
        source=np.repeat(np.uint8([0, 1]), [len(natural[1]), len(generated[1])]),
    )
    FeatureStore.write(path / "balanced.h5", train=merged, test=test, head=head)
    FeatureStore.write(path / "headless.h5", train=SplitData(*natural), test=test)
    FeatureStore.write(path / "no-test.h5", train=SplitData(*natural), head=head)
    return path
