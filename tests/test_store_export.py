"""`ldmlr.store.convert.exporting` to other forms, and what comes back from them."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
import torch

from ldmlr.errors import InputError, LdmlrError, UsageError
from ldmlr.heads.modules import from_stored, make_head, to_stored
from ldmlr.store import FeatureStore, SplitData, StoredHead
from ldmlr.store.convert.exporting import export_store
from ldmlr.store.convert.importing import import_store

RNG = np.random.default_rng(0)
X, Y = RNG.random((3000, 5)).astype("f4"), np.arange(3000) % 3


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out.h5"


@pytest.fixture
def store(tmp_path):
    head = StoredHead("linear", RNG.random((3, 5)).astype("f4"), np.ones(3, "f4"))
    return FeatureStore.write(
        tmp_path / "store.h5", class_names=["a", "b", "ç"],
        train=SplitData(X, Y, source=Y % 2, ids=[f"row {i}" for i in range(len(X))],
                        views=np.stack([X, 2 * X]), view_kinds=("weak", "strong")),
        test=SplitData(X[:9], Y[:9]), head=head, dtype="bfloat16",
    )  # fmt: skip


def test_npz_and_hdf5_exports_come_back_whole(store, tmp_path, out):
    for name in ("export.npz", "export.h5"):
        assert export_store(store, tmp_path / name) == [tmp_path / name]
        back = import_store(tmp_path / name, out, overwrite=True, dtype="bfloat16").store
        assert back.fingerprint() == store.fingerprint()
        assert np.array_equal(back.head.bias, store.head.bias)
    with np.load(tmp_path / "export.npz") as arrays:
        assert np.array_equal(arrays["train_features"], store.train.float32())
        assert arrays["class_names"].tolist() == ["a", "b", "ç"]
    with h5py.File(tmp_path / "export.h5") as file:
        assert dict(file.attrs) == {}
        assert file["train/features"].dtype == np.float32


def test_npy_and_parquet_exports_hold_one_split(store, tmp_path, out):
    pytest.importorskip("pyarrow")
    files = export_store(store, tmp_path / "x.npy", split="test", dtype="float16")
    assert [file.name for file in files] == ["x-features.npy", "x-labels.npy"]
    assert np.load(files[0]).dtype == np.float16
    assert np.array_equal(np.load(files[1]), store.test.labels)
    export_store(store, tmp_path / "x.parquet")
    back = import_store(tmp_path / "x.parquet", out).store
    assert np.array_equal(back.train.float32(), store.train.float32())
    assert back.class_names == store.class_names


def test_wrong_exports_are_refused(store, tmp_path):
    for name, more, expected in [
        ("x.csv", {}, "names no form; choose from .npz, .npy"),
        ("x.npy", {"split": "all"}, "holds one split; choose from train, test"),
        ("x.npy", {"split": "val"}, "has no split 'val'"),
        ("x.npz", {"split": "tets"}, "did you mean 'test'"),
        ("x.npz", {"dtype": "float61"}, "did you mean 'float16'"),
        ("x.h5", {"dtype": "float16"}, "files are written as float32"),
    ]:
        with pytest.raises(LdmlrError, match=expected):
            export_store(store, tmp_path / name, **more)
    big = FeatureStore.write(tmp_path / "big.h5", train=SplitData(np.full((2, 1), 1e6), [0, 1]))
    with pytest.raises(UsageError, match=r"values up to 1e.06 do not fit float16"):
        export_store(big, tmp_path / "x.npz", dtype="float16")
    (tmp_path / "x.npz").write_text("precious")
    with pytest.raises(UsageError, match="already exists"):
        export_store(store, tmp_path / "x.npz")
    assert (tmp_path / "x.npz").read_text() == "precious"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["big.h5", "store.h5", "x.npz"]


@pytest.mark.parametrize("kind", ["linear", "cosine", "wcdas"])
@pytest.mark.parametrize("name", ["x.npz", "x.h5"])
def test_a_head_of_each_kind_comes_back(tmp_path, out, kind, name):
    head = to_stored(make_head(kind, 5, 3))
    store = FeatureStore.write(tmp_path / "store.h5", train=SplitData(X, Y), head=head)
    export_store(store, tmp_path / name)
    back = import_store(tmp_path / name, out).store.head
    assert back.kind == kind
    assert sorted(back.extra) == sorted(head.extra)
    features = torch.from_numpy(X[:50])
    assert torch.equal(from_stored(back)(features), from_stored(head)(features))


@pytest.mark.parametrize("ids", [[f"row {i}" for i in range(3000)], np.arange(3000)[::-1]])
def test_a_table_keeps_what_is_generated_and_the_ids(tmp_path, out, ids):
    pytest.importorskip("pyarrow")
    split = SplitData(X, Y, source=(Y == 2).astype(np.uint8), ids=ids)
    export_store(FeatureStore.write(tmp_path / "store.h5", train=split), tmp_path / "x.parquet")
    back = import_store(tmp_path / "x.parquet", out).store.train
    assert np.array_equal(back.source, Y == 2)
    assert np.array_equal(back.ids, np.asarray(ids))


def test_columns_that_only_look_like_it_are_left_out(tmp_path, out):
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    columns = {"x": X[:4, 0], "label": [0, 1, 0, 1]}
    for source, ids in (
        (["web"] * 4, [1.5, 2, 3, 4]),
        (arrow.array([0, 1, 2, 0], arrow.uint8()), [1, 2, None, 4]),
    ):
        parquet.write_table(arrow.table({**columns, "source": source, "id": ids}), tmp_path / "x.parquet")
        back = import_store(tmp_path / "x.parquet", out, overwrite=True).store.train
        assert back.shape == (4, 1)
        assert back.source is None
        assert back.ids is None


@pytest.mark.parametrize("names", [b"cat,dog", b"{", b"3", b"[1, 2]", b"[" * 100_000])
def test_class_names_of_another_program_are_left_out(tmp_path, out, names):
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    table = arrow.table({"x": X[:4, 0], "label": [0, 1, 0, 1]})
    parquet.write_table(table.replace_schema_metadata({"class_names": names}), tmp_path / "x.parquet")
    assert import_store(tmp_path / "x.parquet", out).store.class_names is None


def test_class_names_say_which_class_a_test_row_has(tmp_path, out):
    for file, names, labels in (
        ("train.npz", ["cat", "dog", "owl"], Y),
        ("test.npz", ["dog", "cat"], Y[:9] % 2),
        ("other.npz", ["dog", "cow"], Y[:9] % 2),
        ("outside.npz", ["dog", "cat"], Y[:9]),
    ):
        np.savez(tmp_path / file, features=X[: len(labels)], labels=labels, class_names=names)
    store = import_store(tmp_path / "train.npz", out, test=tmp_path / "test.npz").store
    assert store.class_names == ("cat", "dog", "owl")
    assert store.test.labels.tolist() == [1 - label for label in (Y[:9] % 2).tolist()]
    with pytest.raises(InputError, match=r"other.npz: class 'cow' is not among the 3 of the training rows"):
        import_store(tmp_path / "train.npz", out, test=tmp_path / "other.npz", overwrite=True)
    with pytest.raises(InputError, match=r"outside.npz: labels are not in 0 \.\. 1, which have names"):
        import_store(tmp_path / "train.npz", out, test=tmp_path / "outside.npz", overwrite=True)
