"""`ldmlr.store.layout` and `reading`, the format: what any h5py user finds in a file, and plain files that
open too.
"""

from __future__ import annotations

import errno
import hashlib
import json
import mmap
import os

import h5py
import numpy as np
import pytest

import ldmlr
from ldmlr.errors import InputError, UsageError
from ldmlr.floats import encode, from_bfloat16
from ldmlr.store import FeatureStore, SplitData, StoredHead, StoreWriter, check_trainable, verify

RNG = np.random.default_rng(0)


def split(rows=7, dim=3, classes=3, **more):
    return SplitData(RNG.random((rows, dim), dtype=np.float32), np.arange(rows) % classes, **more)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "features.h5"


def test_a_written_file_is_what_the_contract_says(path):
    train = split(
        views=RNG.random((2, 7, 3)), view_kinds=("weak", "strong"), ids=np.arange(7), source=np.ones(7)
    )
    head = StoredHead("linear", RNG.random((3, 3)).astype("f4"), RNG.random(3).astype("f4"))
    FeatureStore.write(
        path, train=train, test=split(5), head=head, class_names=["a", "bé", "c"], encoder="resnet32",
        config={"seed": 0},
    )  # fmt: skip
    with h5py.File(path) as file:
        assert file.attrs["format"] == "ldmlr-features"
        assert file.attrs["schema_version"] == 1
        assert bool(file.attrs["complete"]) is True
        assert (file.attrs["num_classes"], file.attrs["dim"]) == (3, 3)
        assert file.attrs["encoder"] == "resnet32"
        assert file.attrs["created_with"] == f"ldmlr {ldmlr.__version__}"
        assert json.loads(file.attrs["config"]) == {"seed": 0}
        assert file["train/features"].dtype == np.float32
        assert file["train/labels"].dtype == np.int64
        assert file["train/source"].dtype == np.uint8
        assert file["train/views"].attrs["kinds"].tolist() == [b"weak", b"strong"]
        assert file["class_names"].asstr()[:].tolist() == ["a", "bé", "c"]
        assert file["head/weight"].shape == (3, 3)
        assert file["head"].attrs["kind"] == "linear"
        for name in ("train/features", "train/labels", "train/views", "test/features", "head/bias"):
            dataset = file[name]
            stored = np.ascontiguousarray(dataset[...]).tobytes()
            assert dataset.attrs["sha256"] == hashlib.sha256(stored).hexdigest()
            assert dataset.chunks is None
        offset, shape = file["train/features"].id.get_offset(), file["train/features"].shape
    mapped = np.memmap(path, np.float32, "r", offset, shape)
    assert np.array_equal(mapped, train.features)
    assert offset % 64 == 0


def test_large_arrays_are_memory_maps_and_opening_does_not_load_them(path):
    store = FeatureStore.write(path, train=split())
    assert isinstance(store.train.features, np.memmap)
    assert not store.train.features.flags.writeable
    assert store.train.float32().flags.writeable
    with FeatureStore.open(path) as again:
        assert again.train.rows._map is None
        assert repr(again).startswith("FeatureStore(")
        assert repr(again.train) == "Split('train', 7 x 3 float32)"


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_element_types_round_to_nearest(path, dtype):
    values = np.array([[1.0, 1.00390625, 3.1415927], [0.0, -2.5, 65504.0]], np.float32)
    store = FeatureStore.write(path, train=SplitData(values, [0, 1]), dtype=dtype)
    with h5py.File(path) as file:
        kind = {"float32": "f4", "float16": "f2", "bfloat16": "u2"}[dtype]
        assert file["train/features"].dtype == np.dtype(kind)
        assert file["train/features"].attrs.get("dtype", "") == ("bfloat16" if dtype == "bfloat16" else "")
    epsilon = {"float32": 0.0, "float16": 2**-11, "bfloat16": 2**-8}[dtype]
    assert np.all(abs(store.train.float32() - values) <= epsilon * abs(values))
    assert np.array_equal(np.asarray(store.train.features, np.float32), store.train.float32())


def test_bfloat16_agrees_with_torch():
    torch = pytest.importorskip("torch")
    values = np.concatenate([RNG.normal(size=2000), [0, -0.0, 1e-40, 3e38, 1.00390625]]).astype("f4")
    expected = torch.from_numpy(values).to(torch.bfloat16).to(torch.float32).numpy()
    assert np.array_equal(from_bfloat16(encode(values, "bfloat16")), expected)


def test_a_plain_file_opens_with_derived_attributes(path):
    with h5py.File(path, "w") as file:
        file["train/features"] = RNG.random((4, 2)).astype("f4")
        file["train/labels"] = np.array([0, 2, 1, 2])
    store = FeatureStore.open(path)
    assert (store.dim, store.num_classes, store.head, store.class_names) == (2, 3, None, None)
    assert store.train.counts.tolist() == [1, 1, 2]
    assert store.test is None
    found = verify(path)
    assert not found.problems
    assert "plain file" in found.warnings[0]


def test_a_compressed_file_reads_the_same(path, tmp_path):
    values, views = RNG.random((50, 6)).astype("f4"), RNG.random((3, 50, 6)).astype("f4")
    with h5py.File(path, "w") as file:
        file.create_dataset("train/features", data=values, chunks=(8, 2), compression="gzip")
        file.create_dataset("train/views", data=views, chunks=(1, 16, 6), compression="gzip")
        file.create_dataset("train/labels", data=np.arange(50) % 5, compression="gzip")
    store = FeatureStore.open(path)
    assert np.array_equal(store.train.features, values)
    assert np.array_equal(store.train.views, views)
    assert np.array_equal(store.train.float32([3, -1, 3], view=2), views[2, [3, -1, 3]])
    copy = FeatureStore.write(tmp_path / "copy.h5", train=store.train)
    assert copy.fingerprint() == store.fingerprint()


def test_a_large_compressed_file_is_streamed(path, monkeypatch):
    monkeypatch.setattr("ldmlr.store.datasets.IN_MEMORY_BYTES", 100)
    values, views = RNG.random((50, 6)).astype("f4"), RNG.random((2, 50, 6)).astype("f4")
    with h5py.File(path, "w") as file:
        file.create_dataset("train/features", data=values, chunks=(8, 2), compression="gzip")
        file.create_dataset("train/views", data=views, chunks=(1, 16, 6))
        file["train/labels"] = np.arange(50) % 5
    train = FeatureStore.open(path).train
    assert not isinstance(train.features, np.ndarray)
    assert np.array_equal(np.asarray(train.features), values)
    assert np.array_equal(train.features[10:20, 2], values[10:20, 2])
    assert np.array_equal(train.float32([49, 0, 7, 7]), values[[49, 0, 7, 7]])
    assert train.float32([]).shape == (0, 6)
    assert np.array_equal(np.asarray(train.views), views)
    assert np.array_equal(train.views[1, 5:9], views[1, 5:9])


def test_other_number_types_are_read_as_float32(path):
    with h5py.File(path, "w") as file:
        file["train/features"] = np.arange(8, dtype=">f8").reshape(4, 2)
        file["train/labels"] = np.array([0, 1, 1, 0], dtype=">i2")
        file["val/features"] = np.arange(4, dtype=">f4").reshape(2, 2)
        file["val/labels"] = np.array([0, 1], dtype=">u4")
        file["test/features"] = np.arange(4, dtype=np.int16).reshape(2, 2)
        file["test/labels"] = np.array([0, 1], dtype=np.uint8)
    store = FeatureStore.open(path)
    assert store.train.float32().dtype == np.float32
    assert np.array_equal(store.train.features[1:3], [[2, 3], [4, 5]])
    for split in (store.test, store.val):
        assert np.array_equal(split.float32(), [[0, 1], [2, 3]])
        assert np.asarray(split.features).dtype.isnative
    assert store.train.labels.dtype == np.int64


def test_other_layouts_open_by_key(path):
    with h5py.File(path, "w") as file:
        for name, rows in (("train", 4), ("test", 3)):
            file[f"x_{name}"] = RNG.random((rows, 2))
            file[f"y_{name}"] = np.arange(rows) % 2
    store = FeatureStore.open(path, features_key="x_{split}", labels_key="y_{split}")
    assert (len(store.train), len(store.test)) == (4, 3)
    one = FeatureStore.open(path, features_key="x_test", labels_key="/y_test")
    assert len(one.train) == 3
    assert one.test is None
    with pytest.raises(InputError, match="features_key"):
        FeatureStore.open(path)


@pytest.mark.parametrize("kind", ["linear", "cosine", "wcdas"])
def test_heads_of_every_kind_come_back(path, kind):
    extra = {} if kind == "linear" else {"scale": np.float32(16), "concentration": RNG.random(3).astype("f4")}
    bias = None if kind == "cosine" else RNG.random(3).astype("f4")
    head = StoredHead(kind, RNG.random((3, 3)).astype("f4"), bias, extra)
    found = FeatureStore.write(path, train=split(), head=head).head
    assert found.kind == kind
    assert np.array_equal(found.weight, head.weight)
    assert (found.bias is None) == (bias is None)
    assert found.extra.keys() == extra.keys()
    assert all(np.array_equal(found.extra[key], extra[key]) for key in extra)
    assert verify(path).problems == []


def test_an_absent_or_unknown_split_is_named(path):
    store = FeatureStore.write(path, train=split())
    assert store.split("train") is store.train
    with pytest.raises(InputError, match=r"features\.h5: has no split 'test', only train"):
        store.split("test")
    with pytest.raises(UsageError, match="did you mean 'train'"):
        store.split("trian")


def test_classes_with_few_rows_are_counted_warned_of_and_refused_where_needed(path):
    data = SplitData(np.ones((3, 2)), [0, 0, 2])
    store = FeatureStore.write(path, train=data, num_classes=4, class_names=["ape", "bee", "cat", "dog"])
    assert store.train.counts.tolist() == [2, 0, 1, 0]
    warnings = verify(path).warnings
    assert any("2 classes have no training row: 1, 3" in line for line in warnings)
    assert any("1 class has a single training row: 2" in line for line in warnings)
    # Rows are generated for some classes only.
    generated = path.with_name("pseudo.h5")
    FeatureStore.write(
        generated, train=SplitData(np.ones((3, 2)), [0, 0, 2], source=[1, 1, 1]), num_classes=4
    )
    assert verify(generated).warnings == []
    with pytest.raises(InputError, match=r"fewer than 1 training row in class 1 \(bee\), 3 \(dog\)"):
        check_trainable(store)
    with pytest.raises(InputError, match=r"fewer than 2 training rows in class 1 \(bee\), 2 \(cat\)"):
        check_trainable(store, min_rows=2)
    full = FeatureStore.write(path, train=split(), overwrite=True)
    assert check_trainable(full, 2).tolist() == [3, 2, 2]


def test_the_fingerprint_follows_the_contents(path, tmp_path):
    data = split(ids=[f"image {i}" for i in range(7)])
    first = FeatureStore.write(path, train=data, encoder="a")
    same = FeatureStore.write(tmp_path / "same.h5", train=data, encoder="b")
    data.labels = data.labels[::-1]
    other = FeatureStore.write(tmp_path / "other.h5", train=data)
    assert first.fingerprint() == same.fingerprint() == FeatureStore.open(path).fingerprint()
    assert first.fingerprint() != other.fingerprint()


def test_a_file_replaced_while_open_is_noticed(path):
    store = FeatureStore.write(path, train=split(9))
    mapped = store.train.features
    before = mapped.copy()
    FeatureStore.write(path, train=split(8), overwrite=True)
    assert np.array_equal(mapped, before)
    with pytest.raises(InputError, match="changed after it was opened"):
        store.train.float32()


def test_rows_are_selected_as_numpy_does(path):
    values = RNG.random((20, 4)).astype("f4")
    for dtype in ("float32", "bfloat16"):
        store = FeatureStore.write(path, train=SplitData(values, [0] * 20), dtype=dtype, overwrite=True)
        rows, whole = store.train.rows, store.train.float32()
        mask = whole[:, 0] > 0.5
        for key in (slice(3, 9), slice(None, None, -3), [5, 5, -1], np.array([], int), mask, slice(30, 40)):
            assert np.array_equal(rows[key], whole[key])
            assert np.array_equal(store.train.float32(key), whole[key])
        assert np.array_equal(rows[4], whole[4])
        assert np.array_equal(rows[4, 1:3], whole[4, 1:3])
        assert np.array_equal(rows[2:5, 1], whole[2:5, 1])
        pairs = [1, 2, 5], [3, 0, 3]
        for key in (
            ...,
            (),
            (..., 2),
            pairs,
            (mask, 1),
            (mask, slice(1, 3)),
            np.ix_(*pairs),
            [[1, 2], [3, -1]],
        ):
            assert np.array_equal(rows[key], whole[key])
        for wrong in ([20], [-21], [0.5], np.ones(3, bool), [[0.5]]):
            with pytest.raises(IndexError):
                rows[wrong]
        with pytest.raises(IndexError, match="row -100 is out of range for 20 rows"):
            rows[[5, -100]]
        parts = list(store.train.batches(6))
        assert [len(part) for part, _ in parts] == [6, 6, 6, 2]
        assert np.array_equal(np.concatenate([part for part, _ in parts]), whole)


def test_the_example_in_the_docstring_of_the_writer(tmp_path):
    with StoreWriter(tmp_path / "features.h5", dim=2, num_classes=3) as writer:
        train = writer.split("train", rows=4)
        train.write(0, np.zeros((4, 2)), np.array([0, 1, 2, 2]))
    assert FeatureStore.open(tmp_path / "features.h5").train.counts.tolist() == [1, 1, 2]


@pytest.mark.data
@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_published_stores_open_and_give_the_published_accuracy(data_dir, name, tmp_path):
    store = FeatureStore.open(data_dir / f"{name}-lt-if100-features.h5")
    copy = FeatureStore.write(
        tmp_path / "copy.h5", train=store.train, test=store.test, head=store.head,
        class_names=store.class_names,
    )  # fmt: skip
    assert copy.fingerprint() == store.fingerprint()
    assert copy.train.view_kinds == ("weak", "weak", "strong", "strong")
    logits = copy.test.float32() @ copy.head.weight.T + copy.head.bias
    shifted = logits - np.log(copy.train.counts / len(copy.train))
    plain, shift = (100 * np.mean(z.argmax(1) == copy.test.labels) for z in (logits, shifted))
    expected = {"cifar10": (72.49, 80.86), "cifar100": (41.28, 48.59)}[name]
    assert (round(plain, 2), round(shift, 2)) == expected
    assert verify(tmp_path / "copy.h5").problems == []


def test_a_user_block_before_the_file_changes_nothing(path):
    values = RNG.random((4, 2)).astype("f4")
    with h5py.File(path, "w", userblock_size=512) as file:
        file["train/features"], file["train/labels"] = values, [0, 1, 1, 0]
    assert np.array_equal(FeatureStore.open(path).train.features, values)


def test_rows_are_gathered_by_reads_where_a_map_does_not_fit(path, monkeypatch):
    values = RNG.random((40, 3)).astype("f4")
    train = FeatureStore.write(path, train=SplitData(values, [0] * 40)).train

    def refuse(*_, **__):
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    monkeypatch.setattr(np, "memmap", refuse)
    monkeypatch.setattr(mmap, "mmap", refuse)
    for rows in ([3, 4, 5, 39, 0, 4], [], [7], np.arange(40)[::-1]):
        assert np.array_equal(train.float32(rows), values[rows] if len(rows) else values[:0])
    with pytest.raises(InputError, match="emory"):
        train.features  # noqa: B018


def test_attributes_of_other_programs_and_a_file_without_training_rows(path):
    with h5py.File(path, "w") as file:
        file["test/features"], file["test/labels"] = np.ones((2, 2)), [0, 1]
        file["class_names"] = [b"a", b"b", b"c"]
        file.attrs.update(encoder=np.bytes_(b"net"), config="no JSON", shape=np.array([1, 2]), names=[b"x"])
    store = FeatureStore.open(path)
    assert (store.encoder, store.config, store.num_classes) == ("net", {}, 3)
    assert store.attributes["shape"] == [1, 2]
    assert store.attributes["names"] == ["x"]
    assert any("has no training rows" in line for line in verify(path).warnings)
    with pytest.raises(IndexError, match="split 'test' has no views"):
        store.test.float32(view=0)
