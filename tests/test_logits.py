"""`ldmlr.heads.logits`: logits are held for a few rows at a time, and what is measured does not depend on
how many.
"""

from __future__ import annotations

import weakref

import numpy as np
import pytest
import torch
from support.axes import COUNTS, draw

import ldmlr
from ldmlr.diffusion.config import DiffusionConfig
from ldmlr.experiments import baselines
from ldmlr.generation.config import GenerateConfig
from ldmlr.generation.train_rows import TrainRows
from ldmlr.heads import evaluation
from ldmlr.heads import logits as blockwise
from ldmlr.heads.config import FinetuneConfig
from ldmlr.heads.evaluation import measure, plain_variants, tuned_variants
from ldmlr.heads.logits import block_rows, head_logits
from ldmlr.heads.losses import log_prior
from ldmlr.heads.modules import LinearHead
from ldmlr.select.choose import Seed, Settings
from ldmlr.store import FeatureStore, SplitData

LIMIT = 90  # numbers: 30 rows of three classes


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("logits") / "features.h5"
    test, val = SplitData(*draw((70, 70, 71), seed=3)), SplitData(*draw((40, 30, 25), seed=4))
    return FeatureStore.write(path, train=SplitData(*draw(COUNTS)), test=test, val=val)


@pytest.fixture(scope="module")
def tuned(store):
    return ldmlr.finetune(store, draw((0, 180, 228), seed=7), epochs=2)


@pytest.fixture
def held(monkeypatch):
    """Bound the logits, and list the shape of each block and how many earlier ones were alive beside it."""
    seen, blocks = [], []

    def watched(head, features):
        alive = sum(block() is not None for block in blocks)
        logits = head_logits(head, features)
        seen.append((*logits.shape, alive))
        blocks.append(weakref.ref(logits))
        return logits

    monkeypatch.setattr(blockwise, "LOGITS", LIMIT)
    for module in (evaluation, blockwise):
        monkeypatch.setattr(module, "head_logits", watched)
    return seen


def test_the_rows_of_a_block_follow_from_the_classes():
    assert [block_rows(classes, 8192) for classes in (2, 1000, 2048)] == [8192] * 3
    assert [block_rows(classes) for classes in (1024, 10_000, 10**9)] == [16384, 1677, 1]


def test_a_measurement_holds_one_head_and_a_few_rows(store, tuned, held, monkeypatch):
    variants = [*plain_variants("baseline", tuned.baseline, tuned.counts), *tuned_variants(tuned)]
    found = measure(variants, store.test, tuned.counts, confusion=True)
    assert len(held) == 3 * 8  # of four variants, two share a head
    assert all(rows * classes <= LIMIT and not alive for rows, classes, alive in held)
    monkeypatch.undo()
    for one, other in zip(found, measure(variants, store.test, tuned.counts, confusion=True), strict=True):
        assert one.figures == pytest.approx(other.figures, rel=1e-9)
        np.testing.assert_array_equal(one.confusion, other.confusion)


def test_variants_of_one_head_may_stand_apart(store, tuned, held):
    first, second = (plain_variants(name, tuned.baseline, tuned.counts) for name in ("a", "b"))
    found = measure([first[0], *tuned_variants(tuned), second[0]], store.test, tuned.counts)
    assert found[0].figures == found[3].figures
    assert len(held) == 3 * 8


def test_the_choice_of_tau_holds_a_few_rows(held, monkeypatch):
    features, labels = draw(COUNTS)
    noise = np.random.default_rng(1).normal(size=(2, *features.shape)).astype(np.float32)
    rows = TrainRows(features, labels, tuple(features + noise), ("strong", "strong"), 3, "")
    head = LinearHead(6, 3)
    with torch.no_grad():
        head.weight.copy_(torch.diag(torch.tensor([3.0, 1.0, 0.3])) @ torch.eye(3, 6))
        head.bias.zero_()
    tau = baselines.choose_tau(head, rows)
    assert 0 < tau < 2
    assert all(count * classes <= LIMIT for count, classes, _ in held)
    assert len(held) == len(baselines.TAUS) * 21
    monkeypatch.undo()
    assert baselines.choose_tau(head, rows) == tau


def test_a_selection_holds_a_few_rows(store, tuned, held):
    settings = Settings(DiffusionConfig(), GenerateConfig(), FinetuneConfig())
    seed = Seed(0, store, None, settings)
    val, labels, prior = store.val.float32(), store.val.labels, log_prior(tuned.counts)
    old, new = head_logits(tuned.baseline, val), head_logits(tuned.head, val)
    shifts = [(0.75, 0.5), (1.0, 0.0)]
    shifted = seed.shifted(tuned, shifts)
    assert list(shifted) == shifts
    np.testing.assert_array_equal(seed.right(tuned.head), new.argmax(axis=1) == labels)
    np.testing.assert_array_equal(seed.right(tuned.head, prior), (new - prior).argmax(axis=1) == labels)
    for (tau, share), right in shifted.items():
        logits = share * old + (1 - share) * new - tau * prior
        np.testing.assert_array_equal(right, logits.argmax(axis=1) == labels)
    assert len(held) == 4 * 4
    assert all(count * classes <= LIMIT for count, classes, _ in held)
