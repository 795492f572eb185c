"""HDF5 of other programs: packed NetCDF, MATLAB's layout, columns of labels, enumerations, attributes."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from ldmlr.errors import InputError
from ldmlr.store import FeatureStore, verify
from ldmlr.store.convert.importing import import_store
from ldmlr.store.convert.unlabelled import open_features

RNG = np.random.default_rng(0)
X = RNG.standard_normal((40, 3)).astype(np.float32)
Y = np.arange(40) % 2


def write(path, features=X, labels=Y, keys=("train/features", "train/labels"), **attributes):
    with h5py.File(path, "w") as file:
        file[keys[0]], file[keys[1]] = features, labels
        file[keys[0]].attrs.update(attributes)
    return path


def imported(path, **keys):
    return import_store(path, path.with_suffix(".store.h5"), **keys).store


@pytest.mark.parametrize("keys", [("a", "b"), ("train/features", "train/labels")])
def test_numbers_that_are_packed_are_unpacked(tmp_path, keys):
    packed = np.round((X - 0.5) / 1e-3).astype("i2")
    path = write(tmp_path / "p.nc", packed, keys=keys, scale_factor=1e-3, add_offset=0.5, _FillValue=-9999)
    store = imported(path, features_key=keys[0], labels_key=keys[1])
    np.testing.assert_allclose(store.train.float32(), X, atol=6e-4)
    opened = FeatureStore.open(path, features_key=keys[0], labels_key=keys[1])
    np.testing.assert_allclose(opened.train.float32([7, 3]), X[[7, 3]], atol=6e-4)
    np.testing.assert_allclose(np.asarray(opened.train.features[2]), X[2], atol=6e-4)
    rows = open_features(path, features_key=keys[0])
    np.testing.assert_array_equal(rows.float32(), store.train.float32())


@pytest.mark.parametrize("name", ["_FillValue", "missing_value"])
def test_a_value_that_stands_for_a_missing_one_is_none(tmp_path, name):
    gaps = X.copy()
    gaps[3, 2] = -9999
    path = write(tmp_path / "gap.nc", gaps, **{name: np.array([-9999.0], np.float32)})
    with pytest.raises(InputError, match=r"gap\.nc: .*rows with NaN or infinity: 1, the first is row 3"):
        imported(path)
    with h5py.File(write(tmp_path / "label.nc"), "r+") as file:
        file["train/labels"].attrs[name] = 1
    with pytest.raises(
        InputError, match=r"label\.nc: /train/labels: row 1 holds 1, which stands for a missing"
    ):
        FeatureStore.open(tmp_path / "label.nc")


def test_a_fill_value_of_nan_changes_nothing(tmp_path):
    path = write(tmp_path / "p.nc", _FillValue=np.nan)
    np.testing.assert_array_equal(imported(path).train.float32(), X)


def test_labels_in_a_column(tmp_path):
    for labels in (Y[:, None], Y[None]):
        store = imported(write(tmp_path / "column.h5", labels=labels))
        assert store.train.labels.tolist() == Y.tolist()
        (tmp_path / "column.store.h5").unlink()


@pytest.mark.parametrize("rows", [40, 3])
def test_matrices_of_matlab_are_turned(tmp_path, rows):
    path = tmp_path / "m.mat"
    with h5py.File(path, "w", userblock_size=512) as file:
        file["X"], file["y"] = X[:rows].T, (Y[:rows] + 1.0)[None]
        for name in ("X", "y"):
            file[name].attrs["MATLAB_class"] = np.bytes_("double")
    store = imported(path)
    np.testing.assert_array_equal(store.train.float32(), X[:rows])
    np.testing.assert_array_equal(open_features(path).float32(), X[:rows])
    assert store.train.labels.tolist() == Y[:rows].tolist()
    assert store.class_names == ("1", "2")


@pytest.mark.parametrize(("values", "names"), [((0, 1), ("dog", "cat")), ((7, 3), ("cat", "dog"))])
def test_an_enumeration_of_labels_keeps_its_names(tmp_path, values, names):
    kind = h5py.enum_dtype({"dog": values[0], "cat": values[1]}, basetype="i1")
    with h5py.File(tmp_path / "e.h5", "w") as file:
        file["train/features"] = X
        file.create_dataset("train/labels", data=np.array(values, "i1")[Y], dtype=kind)
    store = imported(tmp_path / "e.h5")
    assert store.class_names == names
    assert [store.class_names[label] for label in store.train.labels] == [("dog", "cat")[y] for y in Y]
    if values == (0, 1):
        assert FeatureStore.open(tmp_path / "e.h5").class_names == names


@pytest.mark.parametrize(
    ("name", "value"), [("format", "my-lab"), ("dim", 224), ("num_classes", "four"), ("config", "{")]
)
def test_attributes_of_someone_else_do_no_harm(tmp_path, name, value):
    path = write(tmp_path / "theirs.h5")
    with h5py.File(path, "r+") as file:
        file.attrs[name] = value
    store = FeatureStore.open(path)
    assert (store.dim, store.num_classes) == (3, 2)
    assert not verify(path).problems
    assert imported(path).num_classes == 2


def test_a_file_that_cannot_be_read_is_named_by_every_command(run_cli, tmp_path):
    path = write(tmp_path / "cut.h5")
    path.write_bytes(path.read_bytes()[:-200])
    for command in (("run",), ("compare",), ("diffuse", "--out", tmp_path / "m"), ("store", "inspect")):
        done = run_cli(*command, path)
        assert done.returncode == 1
        assert done.stderr.startswith(f"Error: {path}: is truncated"), done.stderr
