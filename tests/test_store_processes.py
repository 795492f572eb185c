"""`ldmlr.store` from several processes: forks, pickles, and loader workers."""

from __future__ import annotations

import multiprocessing
import operator
import pickle
import subprocess
import sys

import h5py
import numpy as np
import pytest

from ldmlr.errors import InputError
from ldmlr.store import FeatureStore, SplitData, shard_name, write_manifest

# Newer Pythons warn of every fork beside threads; other libraries' threads are no danger to these.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
RNG = np.random.default_rng(0)


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "store.h5"
    data = SplitData(RNG.random((200, 4)), np.arange(200) % 5, ids=[f"image {i}" for i in range(200)])
    FeatureStore.write(path, train=data)
    return path


def total(split, part):
    """Sum a part of the rows, read in three ways."""
    rows = np.arange(200)[part::4]
    read = split.float32(rows)
    assert np.array_equal(np.asarray(split.features[rows], np.float32), read)
    assert np.array_equal(split.rows[0:5], split.float32(slice(0, 5)))
    assert split.ids[3] == "image 3"
    return float(read.sum(dtype=np.float64))


def test_forked_processes_read_at_the_same_time(path):
    store = FeatureStore.open(path)
    expected = store.train.float32().sum(dtype=np.float64)
    assert isinstance(store.train.features, np.memmap)  # mapped before the fork
    with multiprocessing.get_context("fork").Pool(2) as pool:
        parts = pool.starmap_async(total, [(store.train, part) for part in range(4)]).get(timeout=60)
    assert np.isclose(sum(parts), expected)


def test_a_spawned_process_opens_the_file_itself(path):
    # A spawned process imports what it calls by name, so it is given a function of the library.
    train = FeatureStore.open(path).train
    rows = np.arange(3, 200, 7)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        read = pool.apply_async(operator.methodcaller("float32", rows), (train,)).get(timeout=60)
    assert np.array_equal(read, train.float32(rows))


def test_a_pickle_is_a_path_and_not_the_rows(path):
    store = FeatureStore.open(path)
    assert len(pickle.dumps(store.train)) < 1000
    assert len(pickle.dumps(store)) < 1000
    train = pickle.loads(pickle.dumps(store.train))
    assert np.array_equal(train.float32(), store.train.float32())
    assert pickle.loads(pickle.dumps(store)).fingerprint() == store.fingerprint()
    data = pickle.dumps(store.train)
    path.unlink()
    with pytest.raises(InputError, match="no such feature store"):
        pickle.loads(data)


def test_a_pickle_of_a_replaced_file_is_refused(path):
    data = pickle.dumps(FeatureStore.open(path).train)
    FeatureStore.write(path, train=SplitData(np.ones((3, 4)), [0, 1, 2]), overwrite=True)
    with pytest.raises(InputError, match="changed after it was opened"):
        pickle.loads(data)


def test_layout_keys_and_shards_survive_a_pickle(tmp_path):
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file.create_dataset("x", data=RNG.random((30, 4)), chunks=(7, 4), compression="gzip")
        file["y"] = np.arange(30) % 3
    other = FeatureStore.open(tmp_path / "other.h5", features_key="x", labels_key="y").train
    assert np.array_equal(pickle.loads(pickle.dumps(other)).features, other.features)
    for shard in range(3):
        data = SplitData(RNG.random((5, 4)), np.arange(5))
        FeatureStore.write(shard_name(tmp_path / "many", shard, 3), train=data)
    many = FeatureStore.open(write_manifest(tmp_path / "many")).train
    assert np.array_equal(pickle.loads(pickle.dumps(many)).float32(), many.float32())


# Two workers on a single core are slow, not wrong.
@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_loader_workers_of_torch(path):
    data = pytest.importorskip("torch.utils.data")
    split = FeatureStore.open(path).train
    for options in ({}, {"num_workers": 2, "multiprocessing_context": "fork"}):
        batches = list(data.DataLoader(split, batch_size=32, **options))
        assert np.array_equal(np.concatenate([labels.numpy() for _, labels in batches]), split.labels)
        assert np.array_equal(np.concatenate([rows.numpy() for rows, _ in batches]), split.float32())
    shuffled = data.DataLoader(split, batch_size=None, shuffle=True)  # row by row
    assert sorted(int(label) for _, label in shuffled) == sorted(split.labels)


def test_rows_of_a_split_come_with_their_labels(path):
    split = FeatureStore.open(path).train
    row, label = split[3]
    assert (row.shape, row.dtype, label) == (split.shape[1:], np.float32, split.labels[3])
    for key in (slice(2, 9, 3), [4, 0, -1], split.labels == 1):
        rows, labels = split[key]
        assert np.array_equal(rows, split.float32(key))
        assert np.array_equal(labels, split.labels[key])
    with pytest.raises(IndexError):
        split[len(split)]
    assert sum(1 for _ in split) == len(split)


@pytest.mark.parametrize("share", ["torch.from_dlpack(f)", "torch.from_numpy(f)", "torch.asarray(f)"])
@pytest.mark.parametrize("what", ["features", "views"])
def test_a_tensor_that_shares_mapped_rows_can_be_written_to(tmp_path, share, what):
    # In a process of its own: what is tested here once ended it.
    values = np.arange(24, dtype=np.float32).reshape(6, 4)
    path = tmp_path / "a.h5"
    FeatureStore.write(path, train=SplitData(values, [0, 1] * 3, views=values[None], view_kinds=["weak"]))
    program = f"""
import torch, numpy as np
from ldmlr import FeatureStore
train = FeatureStore.open({str(path)!r}).train
f = train.{what}
x = {share}
x -= 100
assert x.max() < 0
assert (np.asarray(train.{what}) >= 0).all() and (train.float32([0, 3]) >= 0).all()
try:
    f[0] = 1
except ValueError:
    print("fine")
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "fine\n"), done.stderr
    assert np.array_equal(FeatureStore.open(path).train.float32(), values)
