"""`ldmlr.store.convert.importing` from other forms."""

from __future__ import annotations

import re
import sys

import h5py
import numpy as np
import pytest

from ldmlr.errors import InputError, LdmlrError, UsageError
from ldmlr.store import FeatureStore, SplitData, verify
from ldmlr.store.convert.exporting import export_store
from ldmlr.store.convert.importing import import_store
from ldmlr.store.convert.sources import open_source

RNG = np.random.default_rng(0)
X, Y = RNG.random((3000, 5)).astype("f4"), np.arange(3000) % 3


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out.h5"


def same(store, features=X, labels=Y, split="train"):
    assert np.array_equal(store.split(split).float32(), features.astype("f4"))
    assert np.array_equal(store.split(split).labels, labels)
    assert verify(store.path).problems == []
    return store


def test_npy_pairs(tmp_path, out):
    np.save(tmp_path / "x.npy", X)
    np.save(tmp_path / "y.npy", Y)
    np.save(tmp_path / "fortran.npy", np.asfortranarray(X[:10].astype(np.float64)))
    np.save(tmp_path / "t.npy", Y[:10].astype(np.uint8))
    done = import_store(
        tmp_path / "x.npy", out, labels=tmp_path / "y.npy", test=tmp_path / "fortran.npy",
        test_labels=tmp_path / "t.npy", encoder="some network",
    )  # fmt: skip
    same(done.store)
    same(done.store, X[:10], Y[:10], "test")
    assert done.store.encoder == "some network"
    assert done.store.config == {"imported_from": "x.npy"}
    with pytest.raises(UsageError, match=r"name the .npy file of labels after it"):
        import_store(tmp_path / "fortran.npy", tmp_path / "other.h5")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize(
    "keys",
    [
        ("X_train", "y_train", "X_test", "y_test"),
        ("train_features", "train_labels", "test_features", "test_labels"),
    ],
)
def test_npz_with_the_usual_names(tmp_path, out, save, keys):
    save(tmp_path / "all.npz", **dict(zip(keys, (X, Y, X[:7], Y[:7]), strict=True)))
    store = import_store(tmp_path / "all.npz", out).store
    same(store)
    same(store, X[:7], Y[:7], "test")


def test_npz_in_fortran_order(tmp_path, out):
    np.savez(tmp_path / "f.npz", X=np.asfortranarray(X), y=Y)
    same(import_store(source=tmp_path / "f.npz", out=out).store)


def test_npz_by_key_and_what_is_said_when_keys_are_missing(tmp_path, out):
    path = tmp_path / "all.npz"
    np.savez(path, a_train=X, b_train=Y, a_val=X[:4], b_val=Y[:4])
    store = import_store(path, out, features_key="a_{split}", labels_key="b_{split}").store
    same(store)
    same(store, X[:4], Y[:4], "val")
    with pytest.raises(InputError, match=r"no array looks like features; it holds a_train, .*features_key"):
        import_store(path, out, overwrite=True)
    with pytest.raises(InputError, match=r"has no array 'c'; .*features_key"):
        import_store(path, out, features_key="c", labels_key="b_train", overwrite=True)
    with pytest.raises(InputError, match=r"has no array 'c'; .*labels_key"):
        import_store(path, out, features_key="a_train", labels_key="c", overwrite=True)


def test_hdf5_of_other_layouts(tmp_path, out):
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file.create_dataset("features", data=X.astype(np.float64), compression="gzip")
        file["y"] = np.array([b"cat", b"ant", b"bee"])[Y]
        file["z/x_test"], file["z/y_test"] = X[:9].astype("f2"), Y[:9]
    store = import_store(tmp_path / "other.h5", out).store
    assert store.class_names == ("ant", "bee", "cat")
    assert store.train.labels[:3].tolist() == [2, 0, 1]
    store = import_store(
        tmp_path / "other.h5", out, features_key="z/x_{split}", labels_key="z/y_{split}", overwrite=True
    ).store
    assert np.array_equal(store.test.features, X[:9].astype("f2"))
    assert store.test.rows.storage == "float16"
    assert store.train is None


def test_a_plain_store_keeps_everything(tmp_path, out):
    views, weight = RNG.random((2, 6, 5)).astype("f4"), RNG.random((3, 5)).astype("f4")
    with h5py.File(tmp_path / "plain.h5", "w") as file:
        file["train/features"], file["train/labels"] = X[:6], Y[:6]
        file["train/views"] = views
        file["train/views"].attrs["kinds"] = [b"weak", b"strong"]
        file["train/ids"] = np.arange(6)
        file["test/features"], file["test/labels"] = X[6:9], Y[6:9]
        file["head/weight"], file["head/bias"] = weight, np.zeros(3)
        file["class_names"] = [b"a", b"b", b"c"]
        file.attrs["encoder"] = "resnet"
    store = import_store(tmp_path / "plain.h5", out).store
    same(store, X[:6], Y[:6])
    assert np.array_equal(store.train.views, views)
    assert store.train.view_kinds == ("weak", "strong")
    assert store.train.ids.tolist() == list(range(6))
    assert np.array_equal(store.head.weight, weight)
    assert store.class_names == ("a", "b", "c")
    assert store.encoder == "resnet"
    assert "format" in store.attributes
    with pytest.raises(UsageError, match="has a head for 3 classes"):
        import_store(tmp_path / "plain.h5", out, num_classes=4, overwrite=True)


def test_parquet_with_a_list_column_and_with_many_columns(tmp_path, out):
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    names = np.array(["dog", "ape", "cat"])[Y]
    parquet.write_table(arrow.table({"embedding": list(X), "label": names}), tmp_path / "list.parquet")
    store = import_store(tmp_path / "list.parquet", out).store
    assert np.array_equal(store.train.features, X)
    assert store.class_names == ("ape", "cat", "dog")
    columns = {f"f{i}": X[:, i] for i in range(5)}
    table = arrow.table({**columns, "age": Y, "id": Y, "target": arrow.array(Y).dictionary_encode()})
    parquet.write_table(table, tmp_path / "wide.parquet", row_group_size=700)
    store = import_store(tmp_path / "wide.parquet", out, features_key="f*", overwrite=True).store
    same(store)
    assert import_store(tmp_path / "wide.parquet", out, overwrite=True).store.dim == 6
    words = arrow.table({"x": list(X), "z": list(X), "y": arrow.array(names).dictionary_encode()})
    parquet.write_table(words, tmp_path / "words.parquet")
    store = import_store(tmp_path / "words.parquet", out, features_key="z", overwrite=True).store
    assert store.class_names == ("ape", "cat", "dog")
    with pytest.raises(InputError, match=r"no numeric columns 'g\*'; its columns are f0, f1"):
        import_store(tmp_path / "wide.parquet", out, features_key="g*", overwrite=True)
    with pytest.raises(InputError, match=r"has no label column genus; .*labels_key"):
        import_store(tmp_path / "wide.parquet", out, labels_key="genus", overwrite=True)


def test_parquet_with_gaps_is_refused(tmp_path, out):
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    empty = {"x": arrow.array([], arrow.list_(arrow.float32())), "y": arrow.array([], "int64")}
    for name, columns, expected in [
        ("ragged", {"x": [[1.0, 2.0], [3.0]], "y": [0, 1]}, "row 1 has 1 number, expected 2"),
        ("null row", {"x": [[1.0, 2.0], None], "y": [0, 1]}, "row 1 is null"),
        ("null value", {"x": [[1.0, None], [1.0, 2.0]], "y": [0, 1]}, "rows with NaN or infinity: 1"),
        ("null label", {"x": [[1.0], [2.0]], "y": [0, None]}, "without a value: 1 label"),
        ("null cell", {"a": [1.0, None], "b": [1.0, 2.0], "y": [0, 1]}, "a: row 1 is null"),
        (
            "two lists",
            {"x": [[1.0], [2.0]], "z": [[1.0], [2.0]], "y": [0, 1]},
            "list columns x, z; choose",
        ),
        ("no numbers", {"x": ["a", "b"], "y": [0, 1]}, "has no column of numbers"),
        ("no rows", empty, "no rows"),
    ]:
        parquet.write_table(arrow.table(columns), tmp_path / "bad.parquet")
        with pytest.raises(InputError, match=expected):
            import_store(tmp_path / "bad.parquet", out)
        assert not out.exists(), name
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 and nothing more")
    with pytest.raises(InputError, match="is a damaged Parquet file"):
        import_store(tmp_path / "bad.parquet", out)


def test_without_pyarrow_the_remedy_is_named(tmp_path, out, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "x.parquet").write_bytes(b"PAR1....")
    with pytest.raises(LdmlrError, match=r"pip install 'ldmlr\[parquet\]'"):
        open_source(tmp_path / "x.parquet")
    store = FeatureStore.write(out, train=SplitData(X, Y))
    with pytest.raises(LdmlrError, match=r"pip install 'ldmlr\[parquet\]'"):
        export_store(store, tmp_path / "y.parquet")
    assert not (tmp_path / "y.parquet").exists()


def test_pickled_objects_are_never_loaded(tmp_path, out):
    class Trap:
        def __reduce__(self):
            return (pytest.fail, ("a pickle was loaded",))

    trap = np.array([Trap(), Trap()], dtype=object)
    np.save(tmp_path / "x.npy", np.ones((2, 2)))
    np.save(tmp_path / "trap.npy", trap)
    np.savez(tmp_path / "trap.npz", features=np.ones((2, 2)), labels=trap)
    np.savez(tmp_path / "rows.npz", features=trap, labels=[0, 1])
    for source, labels in [
        ("trap.npy", "x.npy"), ("x.npy", "trap.npy"), ("trap.npz", None), ("rows.npz", None),
    ]:  # fmt: skip
        with pytest.raises(InputError, match="holds pickled objects, which are never loaded"):
            import_store(tmp_path / source, out, labels=labels and tmp_path / labels)
    assert not out.exists()


def test_damaged_and_unsuitable_sources_are_explained(tmp_path, out):
    np.save(tmp_path / "x.npy", X)
    np.save(tmp_path / "y.npy", Y)
    np.save(tmp_path / "u.npy", X.astype(np.uint16))
    np.save(tmp_path / "c.npy", X.astype(complex))
    np.save(tmp_path / "cube.npy", X.reshape(3000, 5, 1))
    np.save(tmp_path / "wide.npy", RNG.random((4, 6)))
    np.savez_compressed(tmp_path / "z.npz", X=X, y=Y)
    (tmp_path / "cut.npy").write_bytes((tmp_path / "x.npy").read_bytes()[:1000])
    (tmp_path / "head.npy").write_bytes(b"\x93NUMPY\x01\x00")
    (tmp_path / "cut.npz").write_bytes((tmp_path / "z.npz").read_bytes()[:-100])
    broken = bytearray((tmp_path / "z.npz").read_bytes())
    broken[2000:2100] = bytes(100)
    (tmp_path / "broken.npz").write_bytes(broken)
    (tmp_path / "text.csv").write_text("1,2,3\n")
    (tmp_path / "text.dat").write_text("1,2,3\n")
    y = tmp_path / "y.npy"
    for source, labels, more, expected in [
        ("gone.npy", y, {}, r"gone\.npy: no such file"),
        (".", None, {}, "is a folder"),
        ("cut.npy", y, {}, "is truncated"),
        ("head.npy", y, {}, "is not a NumPy array file"),
        ("u.npy", y, {}, "is uint16; bfloat16 needs"),
        ("c.npy", y, {}, "is complex64|is complex128"),
        ("cube.npy", y, {}, r"expected \[N, D\]"),
        ("wide.npy", y, {}, "4 rows of train features but 3,000 labels"),
        ("x.npy", tmp_path / "x.npy", {}, r"have shape \(3000, 5\), expected one label per row"),
        ("cut.npz", None, {}, "is not an .npz file"),
        ("broken.npz", None, {}, "cannot be read"),
        ("z.npz", y, {}, "goes with an .npy file"),
        (
            "x.npy",
            y,
            {"labels_key": "y"},
            "labels_key: .*y.npy holds the labels already; leave one",
        ),
        ("text.csv", None, {}, "text.csv: its first line holds numbers, expected the names of the columns"),
        ("text.dat", None, {}, "text.dat: is no HDF5, .npz, .npy, Parquet, CSV or torch.save file; save the"),
        ("z.npz", None, {"test_labels": y}, "test_labels: goes with test"),
        ("z.npz", None, {"num_classes": 2}, r"label 2 is not in 0 \.\. 1"),
        ("z.npz", None, {"test": tmp_path / "wide.npy", "test_labels": y}, "dim 6, but others have dim 5"),
        ("z.npz", None, {"dtype": "float8"}, "dtype: unknown value 'float8'"),
    ]:
        with pytest.raises(LdmlrError, match=expected) as caught:
            import_store(tmp_path / source, out, labels=labels, **more)
        assert "\n" not in str(caught.value)
        assert not out.exists(), source


def test_a_second_test_set_is_refused(tmp_path, out):
    np.savez(tmp_path / "all.npz", X_train=X, y_train=Y, X_test=X, y_test=Y)
    with pytest.raises(UsageError, match=r"test: .* holds a test split already"):
        import_store(tmp_path / "all.npz", out, test=tmp_path / "all.npz")


@pytest.mark.parametrize(
    ("names", "test_names", "where"),
    [
        ("aba", "abc", "test.npz: class names of the training rows: classes 0 and 2"),
        ("abc", "abb", "test.npz: class names: classes 1 and 2"),
    ],
)
def test_a_name_that_two_classes_share_does_not_say_which_is_meant(tmp_path, out, names, test_names, where):
    np.savez(tmp_path / "train.npz", features=X, labels=Y, class_names=list(names))
    np.savez(tmp_path / "test.npz", features=X, labels=Y, class_names=list(test_names))
    with pytest.raises(InputError, match=f"{where} are both named .*; rename one"):
        import_store(tmp_path / "train.npz", out, test=tmp_path / "test.npz")
    assert not out.exists()


def test_the_same_names_in_the_same_order_need_not_say_which_is_meant(tmp_path, out):
    np.savez(tmp_path / "x.npz", features=X, labels=Y, class_names=["a", "b", "a"])
    same(import_store(tmp_path / "x.npz", out, test=tmp_path / "x.npz").store, split="test")


def test_features_and_labels_that_are_swapped_are_told_so(tmp_path):
    rows, labels = np.ones((6, 3), np.float32), np.arange(6) % 2
    np.save(tmp_path / "X.npy", rows)
    np.save(tmp_path / "y.npy", labels)
    np.savez(tmp_path / "rows.npz", features=labels, labels=rows)
    with h5py.File(tmp_path / "rows.h5", "w") as file:
        file["train/features"], file["train/labels"] = labels, rows
    swapped = r": has shape \(6,\), one number per row, .* swapped, name them the other way round"
    with pytest.raises(InputError, match=r"y\.npy" + swapped):
        import_store(tmp_path / "y.npy", tmp_path / "out.h5", labels=tmp_path / "X.npy")
    with pytest.raises(InputError, match=r"rows\.npz: features" + swapped):
        import_store(tmp_path / "rows.npz", tmp_path / "out.h5")
    with pytest.raises(InputError, match=r"rows\.h5: /train/features" + swapped):
        import_store(tmp_path / "rows.h5", tmp_path / "out.h5")


def test_values_that_are_wrong_are_those_of_the_source(tmp_path):
    rows, labels = np.ones((6, 3), np.float32), np.arange(6) % 2
    np.savez(tmp_path / "good.npz", features=rows, labels=labels)
    rows[2, 1] = np.nan
    np.savez(tmp_path / "bad.npz", features=rows, labels=labels)
    with pytest.raises(InputError, match=r"bad\.npz: features: rows with NaN"):
        import_store(tmp_path / "bad.npz", tmp_path / "out.h5")
    with pytest.raises(InputError, match=r"bad\.npz: features: rows with NaN"):
        import_store(tmp_path / "good.npz", tmp_path / "out.h5", test=tmp_path / "bad.npz")
    assert not (tmp_path / "out.h5").exists()


def test_a_value_that_is_no_number_is_looked_for_where_the_caller_has_it(tmp_path):
    """By the file and its own name of the array, not by that of the store that was to be made."""
    rows, labels = X.copy(), np.array(["ant", "bee"] * (len(X) // 2))
    rows[3, 0] = np.nan
    said = r"rows with NaN or infinity: 1, the first is row 3; remove"
    np.savez(tmp_path / "named.npz", emb=rows, y=labels)
    np.save(tmp_path / "X.npy", rows)
    np.save(tmp_path / "y.npy", labels)
    with h5py.File(tmp_path / "theirs.h5", "w") as file:
        file["deep/emb"], file["deep/y"] = rows, np.arange(len(rows)) % 2
    for name, key, keys in (
        ("named.npz", "emb: ", {"features_key": "emb", "labels_key": "y"}),
        ("X.npy", "", {}),
        ("theirs.h5", "/?deep/emb: ", {"features_key": "deep/emb", "labels_key": "deep/y"}),
    ):
        with pytest.raises(InputError, match=rf"{re.escape(str(tmp_path / name))}: {key}{said}"):
            import_store(tmp_path / name, tmp_path / "out.h5", **keys)


def test_a_label_that_only_test_rows_have_is_said(tmp_path, out):
    np.savez(tmp_path / "train.npz", features=X[:6], labels=np.array(["ant", "bee"] * 3))
    np.savez(tmp_path / "test.npz", features=X[:3], labels=np.array(["ant", "Bee", "bee"]))
    done = import_store(tmp_path / "train.npz", out, test=tmp_path / "test.npz")
    assert done.store.class_names == ("Bee", "ant", "bee")
    said = "test.npz: no training row has the label Bee; correct the labels if that is not meant"
    assert [note for note in done.notes if note.endswith(said)] == [f"{tmp_path}/{said}"]
    done = import_store(tmp_path / "train.npz", out, test=tmp_path / "train.npz", overwrite=True)
    assert not any("no training row" in note for note in done.notes)


@pytest.mark.parametrize("key", ["classes", "label_names", "target_names"])
@pytest.mark.parametrize("kind", ["npz", "h5"])
def test_other_programs_call_the_names_of_classes_otherwise(tmp_path, out, key, kind):
    path, names = tmp_path / f"rows.{kind}", ["ant", "bee", "cat"]
    features, labels = np.ones((4, 2), np.float32), np.array([0, 2, 1, 0])

    def write(arrays):
        if kind == "npz":
            np.savez(path, **arrays)
            return
        with h5py.File(path, "w") as file:
            for name, values in arrays.items():
                file[name] = values if values.dtype.kind != "U" else values.tolist()

    write({"train/features": features, "train/labels": labels, key: np.array(names)})
    done = import_store(path, out)
    assert done.store.class_names == ("ant", "bee", "cat")
    assert done.store.train.labels.tolist() == labels.tolist()
    assert not done.notes
    # Labels in words are looked up among the names.
    write({"X": features, "y": np.array(["cat", "ant", "cat", "bee"]), key: np.array(names)})
    done = import_store(path, out, overwrite=True)
    assert done.store.class_names == ("ant", "bee", "cat")
    assert done.store.train.labels.tolist() == [2, 0, 2, 1]
    # The word may stand for something else, which is not used, and said.
    for other in (["ant", "bee"], ["ant", "bee", "bee"], [0.5, 1.5, 2.5]):
        write({"X": features, "y": labels, key: np.array(other)})
        done = import_store(path, out, overwrite=True)
        assert done.store.class_names is None
        assert done.notes == [f"{path}: not used: {key}"]
