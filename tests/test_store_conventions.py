"""HDF5 as other programs write it: packed numbers, filters, enumerations, columns, links, attributes."""

from __future__ import annotations

import subprocess
import sys

import h5py
import numpy as np
import pytest

from ldmlr.errors import InputError
from ldmlr.store import FeatureStore, verify
from ldmlr.store.convert.importing import import_store
from ldmlr.store.datasets import check_filters

X = np.random.default_rng(0).standard_normal((12, 3)).astype(np.float32)
Y = np.arange(12) % 3


@pytest.fixture
def path(tmp_path):
    return tmp_path / "theirs.h5"


def write(path, features=X, labels=Y, **attributes):
    with h5py.File(path, "w") as file:
        file["train/features"], file["train/labels"] = features, labels
        file["train/features"].attrs.update(attributes)


@pytest.mark.parametrize("fill", [{}, {"_FillValue": np.int16(-9999)}, {"missing_value": np.int16(-9999)}])
def test_packed_numbers_are_unpacked(path, tmp_path, fill):
    packed = np.round((X - 1.5) / 1e-3).astype(np.int16)
    write(path, packed, scale_factor=1e-3, add_offset=1.5, **fill)
    store = import_store(path, tmp_path / "out.h5").store
    assert np.abs(store.train.float32() - X).max() <= 0.5e-3 + 1e-6
    assert np.array_equal(FeatureStore.open(path).train.float32(), store.train.float32())


@pytest.mark.parametrize("fill", [-9999.0, np.float32(9.969e36)])
def test_a_missing_number_is_no_feature(path, tmp_path, fill):
    values = X.copy()
    values[3, 2] = fill
    write(path, values, _FillValue=np.float32(fill))
    with pytest.raises(InputError, match=r"theirs\.h5: .*rows with NaN or infinity: 1, the first is row 3"):
        import_store(path, tmp_path / "out.h5")
    write(path, X, _FillValue=np.float32(np.nan))
    assert np.array_equal(import_store(path, tmp_path / "out.h5").store.train.float32(), X)


def test_a_filter_that_is_not_installed_is_named(path, monkeypatch):
    with h5py.File(path, "w") as file:
        dataset = file.create_dataset("x", data=X, chunks=(4, 3), compression="gzip")
        check_filters("theirs.h5: /x", dataset)
        monkeypatch.setattr(h5py.h5z, "filter_avail", lambda code: False)
        monkeypatch.setitem(sys.modules, "hdf5plugin", None)
        expected = r"/x: was compressed with the HDF5 filter deflate \(number 1\), .* 'ldmlr\[filters\]'"
        with pytest.raises(InputError, match=expected):
            check_filters("theirs.h5: /x", dataset)


@pytest.mark.parametrize("shape", [(12, 1), (1, 12)])
def test_labels_as_a_column_or_a_row(path, shape):
    write(path, labels=Y.reshape(shape))
    assert FeatureStore.open(path).train.labels.tolist() == Y.tolist()


def test_an_enumeration_keeps_its_names(path, tmp_path):
    kind = h5py.enum_dtype({"eel": 2, "cat": 0, "dog": 1}, basetype="i1")
    with h5py.File(path, "w") as file:
        file["train/features"] = X
        file.create_dataset("train/labels", data=Y.astype("i1"), dtype=kind)
    assert FeatureStore.open(path).class_names == ("cat", "dog", "eel")
    store = import_store(path, tmp_path / "out.h5").store
    assert (store.class_names, store.train.labels.tolist()) == (("cat", "dog", "eel"), Y.tolist())


@pytest.mark.parametrize(
    "there", [{"format": "my-lab"}, {"dim": 224}, {"num_classes": "four"}, {"sha256": "x"}]
)
def test_attributes_of_other_programs_do_no_harm(path, tmp_path, there):
    write(path)
    with h5py.File(path, "r+") as file:
        file.attrs.update(there)
        file["train/features"].attrs.update(there)
    store = FeatureStore.open(path)
    assert (store.dim, store.num_classes) == (3, 3)
    assert verify(path).problems == []
    assert import_store(path, tmp_path / "out.h5").store.num_classes == 3


def test_a_link_to_nothing_is_called_that(path):
    write(path)
    with h5py.File(path, "r+") as file:
        del file["train/features"]
        file["train/features"] = h5py.SoftLink("/gone")
    with pytest.raises(InputError, match=r"/train/features: is a link to /gone, where nothing is"):
        FeatureStore.open(path)


def test_the_mark_of_a_killed_writer_can_be_cleared(path):
    program = f"""
import h5py, numpy as np, os
file = h5py.File({str(path)!r}, "w", libver="latest")
file.create_dataset("train/features", data=np.ones((6, 3)), chunks=(2, 3), maxshape=(None, 3))
file.create_dataset("train/labels", data=np.arange(6) % 3, chunks=(2,), maxshape=(None,))
file.swmr_mode = True
file.flush()
os._exit(1)
"""
    subprocess.run([sys.executable, "-c", program], check=False)
    with pytest.raises(InputError, match=r"theirs\.h5: is marked as being written: .* h5clear -s"):
        FeatureStore.open(path)


def test_masked_entries_are_no_numbers(tmp_path):
    from ldmlr.arguments import as_array

    values = np.ma.masked_array(X, mask=False)
    assert np.array_equal(as_array(values), X)
    values[2, 1] = np.ma.masked
    with pytest.raises(InputError, match=r"an entry is masked, the first at \[2, 1\]"):
        as_array(values)
