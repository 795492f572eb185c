"""Values that float32 cannot hold, and arrays that are no rows: each is one line."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
import torch

from ldmlr.errors import InputError, UsageError
from ldmlr.store import FeatureStore, SplitData, StoredHead, check_trainable, verify
from ldmlr.store.describe import describe
from ldmlr.store.importing import import_store

WHERE = "/train/features: rows with NaN or infinity: 1, the first is row 2 (in float32)"


def plain(path, features, labels=(0, 0, 1, 1), **options):
    with h5py.File(path, "w") as file:
        file.create_dataset("train/features", data=features, **options)
        file["train/labels"] = np.asarray(labels)
    return path


def wide(kind="f8", value=1e300):
    features = np.ones((4, 3), kind)
    features[2, 1] = value
    return features


@pytest.mark.parametrize("options", [{}, {"compression": "gzip"}])
@pytest.mark.parametrize("kind", ["<f8", ">f8"])
def test_float64_beyond_float32_is_no_sound_store(tmp_path, kind, options):
    path = plain(tmp_path / "wide.h5", wide(kind), **options)
    with pytest.raises(InputError) as caught:
        FeatureStore.open(path)
    assert str(caught.value).startswith(f"{path}: {WHERE}; remove")
    assert any(line.startswith(f"{path}: {WHERE}; remove") for line in verify(path).problems)


def test_float64_within_float32_is_sound(tmp_path):
    path = plain(tmp_path / "wide.h5", wide(value=-3.4e38))
    assert verify(path).problems == []
    assert FeatureStore.open(path).train.float32()[2, 1] == np.float32(-3.4e38)


def test_an_import_tells_large_numbers_from_infinity(tmp_path):
    path = plain(tmp_path / "wide.h5", wide())
    with pytest.raises(InputError, match=r"row 2 holds 1e\+300, too large for float32; scale the features"):
        import_store(path, tmp_path / "out.h5")
    path = plain(tmp_path / "wide.h5", wide(value=np.inf))
    with pytest.raises(InputError, match="rows with NaN or infinity: 1, the first is row 2"):
        import_store(path, tmp_path / "out.h5")
    assert not (tmp_path / "out.h5").exists()


@pytest.mark.parametrize(
    ("train", "error", "message"),
    [
        ((np.ones((2, 3)), [0, 1]), UsageError, r"^train: expected SplitData\(.* not tuple"),
        (SplitData(np.ones((2, 3)), 1), InputError, r"/train/labels: has shape \(\), expected \[N\]"),
        (SplitData(np.ones((2, 3)), None), InputError, r"/train/labels: has shape \(\)"),
        (SplitData(np.ones((2, 3)), np.zeros((2, 1), int)), InputError, r"has shape \(2, 1\), expected"),
        (SplitData([[1, 2], [3]], [0, 1]), InputError, r"rows of several lengths, expected \[N, D\]"),
    ],
)
def test_what_is_no_split_is_not_written(tmp_path, train, error, message):
    with pytest.raises(error, match=message) as caught:
        FeatureStore.write(tmp_path / "no.h5", train=train)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_texts_are_no_labels_where_the_classes_are_known(tmp_path):
    data = SplitData(np.ones((2, 3)), np.array(["a", "b"]))
    with pytest.raises(InputError, match=r"/train/labels: is <U1, expected whole numbers 0 \.\. C-1"):
        FeatureStore.write(tmp_path / "no.h5", train=data, class_names=["a", "b"])
    assert list(tmp_path.iterdir()) == []


def test_a_head_may_be_tensors(tmp_path):
    weight, bias = torch.ones(2, 3, requires_grad=True), torch.zeros(2, dtype=torch.bfloat16)
    data = SplitData(np.ones((2, 3)), [0, 1])
    head = FeatureStore.write(tmp_path / "s.h5", train=data, head=StoredHead("linear", weight, bias)).head
    assert np.array_equal(head.weight, np.ones((2, 3)))
    assert np.array_equal(head.bias, np.zeros(2))
    assert verify(tmp_path / "s.h5").problems == []


def test_the_import_is_no_remedy_where_the_classes_are_known(tmp_path):
    """It maps labels only of files that do not say how many classes there are."""
    path = plain(tmp_path / "s.h5", np.ones((4, 3)), [1, 1, 2, 2])
    with pytest.raises(InputError, match="start from 1"):
        check_trainable(FeatureStore.open(path))
    with h5py.File(path, "r+") as file:
        file["class_names"] = [b"a", b"b", b"c"]
    with pytest.raises(InputError, match=r"fewer than 1 training row in class 0 \(a\); add rows"):
        check_trainable(FeatureStore.open(path))


def test_labels_from_one_beside_names_are_to_be_shifted(tmp_path):
    path = plain(tmp_path / "s.h5", np.ones((4, 3)), [1, 1, 2, 2])
    with h5py.File(path, "r+") as file:
        file["class_names"] = [b"a", b"b"]
    with pytest.raises(InputError, match=r"labels outside 0 \.\. 1: 2.* they start from 1: subtract 1$"):
        FeatureStore.open(path)


def test_a_store_is_described_from_another_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = FeatureStore.write("s.h5", train=SplitData(np.ones((2, 3)), [0, 1]))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    found = describe(store)
    assert (found["file"], found["bytes"]) == ("s.h5", (tmp_path / "s.h5").stat().st_size)


def test_one_problem_is_one(run_cli, tmp_path):
    done = run_cli("store", "verify", plain(tmp_path / "wide.h5", wide()))
    assert done.returncode == 1
    assert done.stdout.startswith(f"{tmp_path / 'wide.h5'}: 1 problem, ")
