"""Data sets for PyTorch that draw generated rows while they are read."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from support.stage3 import write_stores
from torch.utils.data import DataLoader

import ldmlr
from ldmlr.errors import InputError, UsageError

BATCH = 32


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("torch")
    store = ldmlr.FeatureStore.open(write_stores(folder) / "features.h5")
    model = ldmlr.LatentDiffusion(hidden=8, layers=1, iterations=5).fit_store(store)
    model.save(folder / "model.safetensors")
    return store, model, folder


def rows_of(loader):
    """Return all rows and labels of a pass, in the order of the pass."""
    features, labels = zip(*loader, strict=True)
    return torch.cat(features).numpy(), torch.cat([torch.as_tensor(part) for part in labels]).numpy()


def in_one_order(rows, labels):
    order = np.lexsort((*rows.T, labels))
    return rows[order], labels[order]


def test_real_rows_come_first_and_classes_are_level(made):
    store, model, _ = made
    data = ldmlr.torch.BalancedFeatures(store, model)
    real = len(store.train.labels)
    assert np.array_equal(data.labels[:real], store.train.labels)
    assert len(set(np.bincount(data.labels).tolist())) == 1
    assert data.generated_mask.sum() == len(data) - real
    features, label = data[3]
    assert np.array_equal(features.numpy(), store.train.float32([3])[0])
    assert label == store.train.labels[3]
    assert data[-1][1] == data.labels[-1]
    with pytest.raises(IndexError, match="there are"):
        data[len(data)]


def test_generated_rows_are_those_of_the_model(made):
    store, model, _ = made
    data = ldmlr.torch.BalancedFeatures(store, model, seed=5, steps=4)
    real, count = len(store.train.labels), int(data.generated_mask.sum())
    for epoch in (0, 3):
        data.set_epoch(epoch)
        found = torch.stack([item[0] for item in data.__getitems__(range(real, len(data)))]).numpy()
        expected = model.sample(data.labels[real:], seed=5, steps=4, first_row=epoch * count)
        assert np.array_equal(found, expected)


@pytest.mark.parametrize("kind", ["BalancedFeatures", "BalancedBatches"])
@pytest.mark.parametrize("start", [None, "fork", "spawn", "forkserver"])
def test_workers_give_the_same_rows(made, kind, start):
    store, model, folder = made
    # One of them by paths: everything goes to the workers by value or by name.
    data = getattr(ldmlr.torch, kind)(str(store.path), str(folder / "model.safetensors"), seed=1)
    data.set_epoch(2)
    size = {"batch_size": BATCH} if kind == "BalancedFeatures" else {"batch_size": None}
    workers = {} if start is None else {"num_workers": 2, "multiprocessing_context": start}
    model.sample([0, 1])  # a parent that has drawn before must not leave its children without threads
    found = in_one_order(*rows_of(DataLoader(data, **size, **workers)))
    plain = getattr(ldmlr.torch, kind)(store, model, seed=1)
    plain.set_epoch(2)
    expected = in_one_order(*rows_of(DataLoader(plain, **size)))
    assert np.array_equal(found[0], expected[0])
    assert np.array_equal(found[1], expected[1])


def test_workers_that_live_on_see_the_next_epoch(made):
    store, model, _ = made
    data = ldmlr.torch.BalancedFeatures(store, model)
    loader = DataLoader(data, batch_size=BATCH, num_workers=1, persistent_workers=True)
    passes = []
    for epoch in (0, 1, 0):
        data.set_epoch(epoch)
        passes.append(rows_of(loader)[0])
    assert np.array_equal(passes[0], passes[2])
    same = (passes[0] == passes[1]).all(axis=1)
    assert np.array_equal(same, ~data.generated_mask)


def test_a_small_cache_gives_the_same_rows(made):
    store, model, _ = made
    small = ldmlr.torch.BalancedFeatures(store, model, cache_bytes=1)
    whole = ldmlr.torch.BalancedFeatures(store, model)
    order = np.random.default_rng(0).permutation(len(whole))
    for places in np.array_split(order, 7):
        one, other = (data.__getitems__(places.tolist()) for data in (small, whole))
        assert all(torch.equal(a[0], b[0]) and a[1] == b[1] for a, b in zip(one, other, strict=True))


def test_batches_hold_every_real_row_once_and_the_plan(made):
    store, model, _ = made
    data = ldmlr.torch.BalancedBatches(store, model, batch_size=BATCH, strategy={0: 0, 1: 7}, seed=3)
    batches = list(data)
    assert len(batches) == len(data)
    assert {len(labels) for _, labels in batches[:-1]} == {BATCH}
    rows, labels = rows_of(batches)
    counts = np.bincount(store.train.labels, minlength=store.num_classes)
    assert np.array_equal(np.bincount(labels), counts + np.eye(store.num_classes, dtype=int)[1] * 7)
    there = {row.tobytes() for row in rows}
    assert all(row.tobytes() in there for row in store.train.float32(np.arange(len(store.train.labels))))
    assert rows.flags.writeable  # a copy: the file is never written to
    again, _ = rows_of(data)
    assert np.array_equal(rows, again)
    data.set_epoch(1)
    assert not np.array_equal(rows_of(data)[0], rows)


def test_without_a_model_there_are_real_rows_only(made):
    store, _, _ = made
    data = ldmlr.torch.BalancedFeatures(store, None)
    assert len(data) == len(store.train.labels)
    sampler = ldmlr.torch.balanced_sampler(store.train.labels, rows=4000, seed=0)
    drawn = np.bincount(data.labels[list(sampler)], minlength=store.num_classes)
    # Four standard deviations of a class's 4000 / C draws.
    expected = 4000 / store.num_classes
    assert np.abs(drawn - expected).max() < 4 * np.sqrt(expected)
    flat = ldmlr.torch.balanced_sampler(store.train.labels, power=0.0, seed=0)
    assert len(set(flat.weights.tolist())) == 1


def test_data_sets_are_pickled_without_what_was_drawn(made):
    store, model, _ = made
    data = ldmlr.torch.BalancedFeatures(store, model)
    small = len(pickle.dumps(data))
    data.__getitems__(range(len(data)))
    assert len(pickle.dumps(data)) == small
    assert torch.equal(pickle.loads(pickle.dumps(data))[-1][0], data[-1][0])


def test_what_is_wrong_is_said_at_once(made):
    store, _, _ = made
    other = ldmlr.LatentDiffusion(hidden=8, layers=1, iterations=2).fit(np.eye(6)[:, :3], [0, 1] * 3)
    with pytest.raises(InputError, match=r"the model 3 and 2; use the model that was trained on it"):
        ldmlr.torch.BalancedFeatures(store, other)
    model = ldmlr.LatentDiffusion(hidden=8, layers=1, iterations=2).fit_store(store)
    with pytest.raises(UsageError, match="batch_size: must be a whole number from 1"):
        ldmlr.torch.BalancedBatches(store, model, batch_size=0)
    with pytest.raises(UsageError, match="epoch: must be a whole number"):
        ldmlr.torch.BalancedBatches(store, model).set_epoch(-1)
    with pytest.raises(UsageError, match="power: must be from 0 to 1"):
        ldmlr.torch.balanced_sampler([0, 1], power=2)
    with pytest.raises(UsageError, match="solver: unknown value"):
        ldmlr.torch.BalancedFeatures(store, model, solver="euler")
