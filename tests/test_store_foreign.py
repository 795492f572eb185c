"""`ldmlr.store.convert` and what users bring: labels that are no numbering, tensors, shards by name,
folders, other working folders.
"""

from __future__ import annotations

import os
import pickle

import h5py
import numpy as np
import pytest
import torch

import ldmlr
from ldmlr.arguments import class_count
from ldmlr.errors import InputError, UsageError
from ldmlr.store import FeatureStore, SplitData, check_trainable, verify, write_manifest

RNG = np.random.default_rng(0)


def rows(count: int, dim: int = 3) -> np.ndarray:
    return RNG.standard_normal((count, dim)).astype(np.float32)


def plain(path, labels, features=None):
    with h5py.File(path, "w") as file:
        file["train/labels"] = np.asarray(labels)
        file["train/features"] = rows(len(labels)) if features is None else features
    return path


def one_line(done, status):
    assert done.returncode == status, done.stderr
    assert done.stderr.startswith("Error: ")
    assert done.stderr.count("\n") == 1
    return done.stderr


# --- labels ------------------------------------------------------------------------------------


def test_ids_are_no_labels(run_cli, tmp_path):
    path = plain(tmp_path / "ids.h5", [0, 1, 10**9])
    message = one_line(run_cli("store", "inspect", path), 1)
    assert f"{path}: /train/labels: label 1000000000 in row 2 stands for 1,000,000,001 classes" in message
    assert "let `ldmlr store import` map the labels" in message
    done = run_cli("store", "import", path, "--out", tmp_path / "ok.h5")
    assert done.returncode == 0, done.stderr
    assert FeatureStore.open(tmp_path / "ok.h5").train.labels.tolist() == [0, 1, 2]
    with pytest.raises(InputError, match="pseudo: label 10000000 in row 1"):
        ldmlr.finetune((rows(2), np.array([0, 1])), (rows(2), np.array([0, 10**7])), epochs=1)
    with pytest.raises(InputError, match=r"train/labels: label 10000000 in row 0.*np\.unique"):
        FeatureStore.write(tmp_path / "no.h5", train=SplitData(rows(1), np.array([10**7])))


def test_gaps_in_labels_of_a_small_set_are_allowed():
    assert class_count([("a", np.array([0, 99_999])), ("b", np.zeros(0, int))]) == 100_000
    assert class_count([]) == 1
    with pytest.raises(InputError, match="stands for 100,001 classes, but there are 2 rows"):
        class_count([("a", np.array([0, 100_000]))])


def test_labels_from_one_name_the_import(run_cli, tmp_path):
    path = plain(tmp_path / "one.h5", [1, 1, 2, 2])
    with pytest.raises(InputError) as error:
        check_trainable(FeatureStore.open(path))
    message = str(error.value)
    assert "/train/labels: start from 1, expected 0 .. C-1; `ldmlr store import`" in message
    assert run_cli("store", "import", path, "--out", tmp_path / "zero.h5").returncode == 0
    assert FeatureStore.open(tmp_path / "zero.h5").train.labels.tolist() == [0, 0, 1, 1]


def test_text_is_no_label(tmp_path):
    with pytest.raises(InputError, match=r"/train/labels: is <U1, expected whole numbers 0 \.\. C-1; number"):
        FeatureStore.write(tmp_path / "no.h5", train=SplitData(rows(2), np.array(["a", "b"])))
    assert list(tmp_path.iterdir()) == []


# --- rows --------------------------------------------------------------------------------------


def test_values_beyond_float32_are_not_finite(run_cli, tmp_path):
    features = rows(4).astype(np.float64)
    features[2, 1] = 1e300
    path = plain(tmp_path / "wide.h5", [0, 0, 1, 1], features)
    message = one_line(run_cli("store", "inspect", path), 1)
    assert "/train/features: rows with NaN or infinity: 1, the first is row 2" in message


def test_tensors_are_written_like_arrays(tmp_path):
    features, labels = torch.from_numpy(rows(6)).bfloat16(), torch.tensor([0, 0, 1, 1, 2, 2])
    FeatureStore.write(
        tmp_path / "tensors.h5",
        train=SplitData(
            features.requires_grad_(), labels, views=features.detach()[None], view_kinds=("weak",)
        ),
    )
    array = features.detach().float().numpy()
    FeatureStore.write(
        tmp_path / "arrays.h5",
        train=SplitData(array, labels.numpy(), views=array[None], view_kinds=("weak",)),
    )
    assert (tmp_path / "tensors.h5").read_bytes() == (tmp_path / "arrays.h5").read_bytes()


def test_batches_have_rows(tmp_path):
    train = FeatureStore.write(tmp_path / "s.h5", train=SplitData(rows(4), np.array([0, 0, 1, 1]))).train
    assert [len(labels) for _, labels in train.batches(3)] == [3, 1]
    for size in (0, -1):
        with pytest.raises(UsageError, match="batches: must have at least 1 row"):
            next(train.batches(size))


def test_encoded_rows_are_no_pseudo_features(run_cli, tmp_path):
    store, copy = tmp_path / "s.h5", tmp_path / "t.h5"
    for path in (store, copy):
        split = SplitData(rows(6), np.repeat([0, 1], 3))
        FeatureStore.write(path, train=split, test=split)
    message = one_line(run_cli("finetune", store, "--pseudo", copy, "--out", tmp_path / "h"), 1)
    assert f"{copy}: holds encoded rows (no /train/source); give the output of generate" in message
    # A plain file says nothing of itself.
    done = run_cli(
        "finetune", store, "--pseudo", plain(tmp_path / "p.h5", [0, 1]), "--out", tmp_path / "h",
        "--epochs", 1, "--seeds", 1, "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


# --- files -------------------------------------------------------------------------------------


def test_a_store_is_found_from_another_folder(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "data")
    labels = np.repeat([0, 1], 4)
    FeatureStore.write("s.h5", train=SplitData(rows(8), labels, ids=[f"é{i}" for i in range(8)]))
    with h5py.File("chunked.h5", "w") as file:
        file.create_dataset("train/features", data=rows(8), chunks=(4, 3), compression="gzip")
        file["train/labels"] = labels
    for index in range(2):
        FeatureStore.write(f"p-0000{index}-of-00002.h5", train=SplitData(rows(4), labels[::2]))
    write_manifest("p")
    stores = {name: FeatureStore.open(name) for name in ("s.h5", "chunked.h5", "p.json")}
    before = {name: store.train.float32() for name, store in FeatureStore_reopened(stores).items()}
    monkeypatch.chdir(tmp_path / "elsewhere")
    for name, store in stores.items():
        assert str(store.path) == name
        np.testing.assert_array_equal(store.train.float32(), before[name])
        again = pickle.loads(pickle.dumps(store))
        np.testing.assert_array_equal(again.train.float32(), before[name])
        assert again.fingerprint() == store.fingerprint()
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(store.train)).float32(), before[name])
    assert stores["s.h5"].train.ids[7] == "é7"
    os.remove(tmp_path / "data" / "s.h5")
    with pytest.raises(InputError, match=r"^s\.h5: no such"):
        stores["s.h5"].train.rows.float32(slice(0, 1))


def FeatureStore_reopened(stores):
    """The same stores opened afresh, so that nothing of the first ones has been read yet."""
    return {name: FeatureStore.open(name) for name in stores}


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([0, 2], "p-00001-of-00003.h5: this shard is not among those named (2 of 3); name all of them"),
        ([2, 0, 1], "p: its shards are named twice or out of order; name 3 of them, from 00000 on"),
        ([0, 0, 1, 2], "named twice or out of order"),
    ],
)
@pytest.mark.parametrize("out", ["p.json", "whole.h5"])
def test_shards_are_merged_all_and_in_order(run_cli, tmp_path, names, message, out):
    for index in range(3):
        path = tmp_path / f"p-0000{index}-of-00003.h5"
        FeatureStore.write(path, train=SplitData(np.full((2, 1), index), np.array([0, 1])))
    shards = [tmp_path / f"p-0000{index}-of-00003.h5" for index in names]
    assert message in one_line(run_cli("store", "merge", *shards, "--out", tmp_path / out), 2)
    assert not (tmp_path / out).exists()
    done = run_cli("store", "merge", *sorted(tmp_path.glob("p-*")), "--out", tmp_path / out)
    assert done.returncode == 0, done.stderr
    assert FeatureStore.open(tmp_path / out).train.float32()[:, 0].tolist() == [0, 0, 1, 1, 2, 2]


def test_a_store_is_named_like_one(run_cli, tmp_path):
    FeatureStore.write(tmp_path / "s.h5", train=SplitData(rows(2), np.array([0, 1])))
    for name in ("t.npz", "t.parquet", "t.safetensors"):
        done = run_cli("store", "import", tmp_path / "s.h5", "--out", tmp_path / name)
        assert "a feature store is an HDF5 file; name it t.h5" in one_line(done, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["s.h5"]


def test_folders_and_pipes_are_no_stores(run_cli, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder.h5").mkdir()
    for name, words in (("pipe", "is a device or a pipe"), ("folder.h5", "is a folder, not a feature store")):
        with pytest.raises(InputError, match=words):
            FeatureStore.open(tmp_path / name)
        done = run_cli("store", "verify", tmp_path / name)
        assert (done.returncode, words in done.stderr + done.stdout) == (1, True)
        assert "Traceback" not in done.stderr


def test_names_that_two_classes_share_are_told(tmp_path):
    FeatureStore.write(
        tmp_path / "s.h5", train=SplitData(rows(4), np.array([0, 1, 2, 2])), class_names=["a", "b", "a"]
    )
    assert FeatureStore.open(tmp_path / "s.h5").class_names == ("a", "b", "a")
    found = verify(tmp_path / "s.h5")
    assert found.problems == []
    assert (
        f"{tmp_path / 's.h5'}: /class_names: classes 0 and 2 are both named 'a'; rename one" in found.warnings
    )
