"""Commands take features in any form: a copy is made once, beside the output, and holds the same."""

from __future__ import annotations

import gzip
import json

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from ldmlr.errors import InputError, UsageError
from ldmlr.store import FeatureStore, SplitData
from ldmlr.store.convert.config import SourceConfig
from ldmlr.store.convert.ready import holds_features, ready_store
from ldmlr.store.convert.sources import open_source

RNG = np.random.default_rng(0)
X = RNG.standard_normal((30, 4)).astype(np.float32)
WORDS = np.array(["cat", "dog", "eel"])[np.arange(30) % 3]
Y = np.arange(30) % 3


def csv_text(delimiter=","):
    head = delimiter.join(["id", "a", "b", "c", "d", "kind"])
    lines = [
        delimiter.join([str(i), *map(repr, map(float, row)), w])
        for i, (row, w) in enumerate(zip(X, WORDS, strict=True))
    ]
    return "\n".join([head, *lines]) + "\n"


def npz(folder):
    np.savez(folder / "emb.npz", X=X, y=WORDS)
    return folder / "emb.npz", {}


def npy(folder):
    np.save(folder / "train-features.npy", X)
    np.save(folder / "train-labels.npy", WORDS)
    return folder / "train-features.npy", {}


def npy_named(folder):
    np.save(folder / "a.npy", X)
    np.save(folder / "b.npy", WORDS)
    return folder / "a.npy", {"labels_key": "b.npy"}


def parquet(folder):
    table = pa.table({"v": pa.array(list(X)), "kind": WORDS})
    pa.parquet.write_table(table, folder / "t.parquet")
    return folder / "t.parquet", {"labels_key": "kind"}


def comma(folder):
    (folder / "t.csv").write_text(csv_text())
    return folder / "t.csv", {"labels_key": "kind"}


def tabs_compressed(folder):
    (folder / "t.tsv.gz").write_bytes(gzip.compress(csv_text("\t").encode("utf-8-sig")))
    return folder / "t.tsv.gz", {"labels_key": "kind"}


def hdf5(folder):
    with h5py.File(folder / "lab.h5", "w") as file:
        file["deep/vectors"], file["deep/kind"] = X, WORDS.astype("S3")
    return folder / "lab.h5", {"features_key": "deep/vectors", "labels_key": "deep/kind"}


def texts_in_a_plain_store(folder):
    with h5py.File(folder / "plain.h5", "w") as file:
        file["train/features"], file["train/labels"] = X, WORDS.astype("S3")
    return folder / "plain.h5", {}


def arrow_folder(folder, values, labels, info):
    folder.mkdir(parents=True)
    table = pa.table({"embedding": pa.array(list(values)), "label": labels})
    with pa.OSFile(str(folder / "data-00000-of-00001.arrow"), "wb") as sink:
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=7)
    (folder / "state.json").write_text(
        json.dumps({"_data_files": [{"filename": "data-00000-of-00001.arrow"}]})
    )
    (folder / "dataset_info.json").write_text(json.dumps({"features": info}))


CLASS_LABEL = {"label": {"names": ["cat", "dog", "eel"], "_type": "ClassLabel"}}


def saved_dataset(folder):
    arrow_folder(folder / "saved", X, Y, CLASS_LABEL)
    return folder / "saved", {}


def anndata(folder, sparse=False, key=None):
    with h5py.File(folder / "cells.h5ad", "w") as file:
        file.attrs["encoding-type"] = "anndata"
        if sparse:
            kept = np.where(np.abs(X) > 0.5, X, 0)
            group = file.create_group("X")
            group.attrs["encoding-type"], group.attrs["shape"] = "csr_matrix", X.shape
            group["data"], group["indices"] = kept[kept != 0], np.nonzero(kept)[1]
            group["indptr"] = np.concatenate([[0], np.cumsum((kept != 0).sum(axis=1))])
        else:
            file["X"] = np.zeros((30, 9), np.float32)
            file["obsm/X_pca"] = X
        file.create_group("var")
        kind = file.create_group("obs/cell_type")
        kind["categories"], kind["codes"] = np.array([b"cat", b"dog", b"eel", b"never"]), Y.astype("i1")
    return folder / "cells.h5ad", {} if sparse else {"features_key": "obsm/X_pca"}


@pytest.mark.parametrize(
    "make",
    [
        npz, npy, npy_named, parquet, comma, tabs_compressed, hdf5, texts_in_a_plain_store, saved_dataset,
        anndata,
    ],
)  # fmt: skip
def test_every_form_becomes_the_same_store(tmp_path, make):
    source, keys = make(tmp_path)
    ready = ready_store(source, tmp_path / "out", SourceConfig(**keys))
    assert ready.path.parent == tmp_path / "out" / "converted"
    store = ready.open()
    np.testing.assert_allclose(store.train.float32(), X, rtol=1e-6)
    assert [store.class_names[label] for label in store.train.labels] == WORDS.tolist()
    assert store.path == source
    assert store.num_classes == 3
    if not ({"features_key"} & set(keys)) and source.name != "plain.h5":
        assert holds_features(source)


def test_a_copy_is_made_once_and_again_when_the_file_or_the_keys_change(tmp_path):
    source, _ = npz(tmp_path)
    first = ready_store(source, tmp_path)
    stamp = first.path.stat().st_mtime_ns
    again = ready_store(source, tmp_path)
    assert again.before
    assert (again.path, again.path.stat().st_mtime_ns) == (first.path, stamp)
    other = ready_store(source, tmp_path, SourceConfig(features_key="X"))
    assert other.path != first.path
    np.savez(source, X=X + 1, y=WORDS)
    changed = ready_store(source, tmp_path)
    assert changed.path not in (first.path, other.path)
    np.testing.assert_allclose(changed.open().train.float32(), X + 1, rtol=1e-6)
    # A copy that was damaged is made again.
    changed.path.write_bytes(b"")
    assert not ready_store(source, tmp_path).before
    np.testing.assert_allclose(changed.open().train.float32(), X + 1, rtol=1e-6)


def test_labels_of_an_npy_file_count_among_its_contents(tmp_path):
    source, _ = npy(tmp_path)
    first = ready_store(source, tmp_path).path
    np.save(tmp_path / "train-labels.npy", WORDS[::-1])
    assert ready_store(source, tmp_path).path != first


def test_a_store_is_used_as_it_is(tmp_path):
    FeatureStore.write(tmp_path / "own.h5", train=SplitData(X, Y))
    with h5py.File(tmp_path / "plain.h5", "w") as file:
        file["train/features"], file["train/labels"] = X, Y
    for name in ("own.h5", "plain.h5"):
        assert ready_store(tmp_path / name, tmp_path / "out").place is None
    assert not (tmp_path / "out").exists()


def test_a_saved_dataset_of_several_splits(tmp_path):
    arrow_folder(tmp_path / "d" / "train", X, Y, CLASS_LABEL)
    arrow_folder(tmp_path / "d" / "validation", X[:6] + 1, Y[:6], CLASS_LABEL)
    arrow_folder(tmp_path / "d" / "test", X[:9] + 2, Y[:9], CLASS_LABEL)
    (tmp_path / "d" / "dataset_dict.json").write_text(json.dumps({"splits": ["train", "validation", "test"]}))
    store = ready_store(tmp_path / "d", tmp_path).open()
    np.testing.assert_allclose(store.val.float32(), X[:6] + 1, rtol=1e-6)
    np.testing.assert_allclose(store.test.float32(), X[:9] + 2, rtol=1e-6)
    assert store.class_names == ("cat", "dog", "eel")


def test_a_sparse_matrix_is_made_dense(tmp_path):
    source, _ = anndata(tmp_path, sparse=True)
    rows = open_source(source).splits["train"].rows
    expected = np.where(np.abs(X) > 0.5, X, 0)
    np.testing.assert_array_equal(rows.float32(), expected)
    np.testing.assert_array_equal(rows.float32([29, 3, 3]), expected[[29, 3, 3]])
    np.testing.assert_array_equal(rows.float32(slice(5, 5)), expected[:0])


@pytest.mark.parametrize(
    ("text", "keys", "message"),
    [
        ("a,b,kind\n1,2,x\n1,,y\n", {}, "line 3: b is '', expected a number"),
        ("a,b,kind\n1,2,x\n1,oops,y\n", {"features_key": "[ab]"}, "line 3: b is 'oops', expected a number"),
        ("a,b,kind\n1,2,x\n1,2\n", {}, "line 3: has 2 fields, expected 3"),
        ("a,b,kind\n1,2,x\n1,2,\n", {}, "line 3: kind is empty"),
        ("a,b,kind\n1,2,x\n", {"labels_key": "sort"}, "has no label column sort; its columns are a, b, kind"),
        (
            "a,b,kinds\n1,2,x\n",
            {},
            r"has no label column kind \(did you mean 'kinds'\?\); its columns are a,",
        ),
        (
            ",".join([*(f"f{i}" for i in range(16)), "species"]) + "\n",
            {},
            r"are f0, f1, f2, f3, \.\.\., f13, f14, f15, species \(17 in all\): name it with labels_key",
        ),
        ("a,b,kind\n1,2,x\n", {"features_key": "f*"}, r"has no column 'f\*'"),
        ("1,2,3\n1,2,3\n", {}, "its first line holds numbers"),
        ("a,a,kind\n1,2,x\n", {}, "two columns are named 'a'"),
        ("a,b,kind\n", {}, "has column names only"),
        ("", {}, "is empty"),
        ("kind\nx\n", {}, "has no column of numbers"),
    ],
)
def test_what_a_table_of_text_lacks_is_named(tmp_path, text, keys, message):
    path = tmp_path / "t.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=message) as error:
        ready_store(path, tmp_path / "out", SourceConfig(**{"labels_key": "kind", **keys}))
    assert str(error.value).startswith(f"{path}: ")
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").rglob("*.h5"))


def test_quotes_and_the_index_of_pandas(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text(',a,"b, c",label\n0,1,"2","x, y"\n1,3,4,"two\nlines"\n')
    split = open_source(path).splits["train"]
    assert split.rows.float32().tolist() == [[1, 2], [3, 4]]
    assert split.labels.tolist() == ["x, y", "two\nlines"]


def test_features_without_labels_say_how_to_name_them(tmp_path):
    np.save(tmp_path / "only.npy", X)
    with pytest.raises(UsageError, match=r"name the .npy file of their labels with labels_key"):
        ready_store(tmp_path / "only.npy", tmp_path)


def test_what_a_file_lacks_is_said_of_the_file_and_not_of_the_copy(run_cli, tmp_path):
    np.savez(tmp_path / "emb.npz", X=np.where(np.arange(30)[:, None] == 5, np.nan, X), y=WORDS)
    done = run_cli("diffuse", tmp_path / "emb.npz", "--out", tmp_path / "m.safetensors")
    assert done.returncode == 1
    assert done.stderr.startswith(f"Error: {tmp_path / 'emb.npz'}: ")
    assert "converted" not in done.stderr
    assert not list(tmp_path.rglob("*.h5"))


def test_a_dry_run_does_not_tell_of_a_copy_that_goes_with_it(run_cli, tmp_path):
    source = tmp_path / "t.csv"
    source.write_text("a,b,kind\n" + "1,2,oak\n3,4,oak\n" * 4 + "5,6,fir\n7,8,fir\n")
    done = run_cli("run", source, "--labels-key", "kind", "--out", tmp_path / "run", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "became classes" in done.stderr
    assert "as a feature store" not in done.stderr
    assert not (tmp_path / "run").exists()


def test_commands_take_features_in_any_form(run_cli, tmp_path):
    source, _ = comma(tmp_path)
    quick = ("--iterations", "5", "--hidden", "8", "--layers", "1")
    done = run_cli("diffuse", source, "--labels-key", "kind", "--out", tmp_path / "m.safetensors", *quick)
    assert done.returncode == 0, done.stderr
    assert f"{source}: kept as a feature store in {tmp_path / 'converted'}" in done.stderr
    done = run_cli(
        "augment", source, "--labels-key", "kind", "--generator", "gaussian", "--out-dir", tmp_path,
        "--strategy", "all", "--target", "12",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "found as a feature store" in done.stderr
    assert FeatureStore.open(tmp_path / "t.h5").train.generated_rows == 6
    done = run_cli("evaluate", source, "--labels-key", "kind", "--split", "train")
    assert done.returncode == 1
    assert f"{source}: has no head" in done.stderr
    assert len(list((tmp_path / "converted").iterdir())) == 1
