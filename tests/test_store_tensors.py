"""Importing what ``torch.save`` wrote, and the names of what else a file may hold."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ldmlr.errors import InputError, UsageError
from ldmlr.store import verify
from ldmlr.store.importing import import_store

X, Y = torch.randn(40, 5, generator=torch.Generator().manual_seed(0)), torch.arange(40) % 3
VIEWS = torch.stack([X + 1, X + 2])


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out.h5"


def test_a_dictionary_of_tensors(tmp_path, out):
    torch.save({"features": X, "labels": Y}, tmp_path / "x.pt")
    torch.save({"X": X[:9].requires_grad_(), "y": Y[:9].tolist()}, tmp_path / "test.pt")
    store = import_store(tmp_path / "x.pt", out, test=tmp_path / "test.pt").store
    assert np.array_equal(store.train.float32(), X.numpy())
    assert np.array_equal(store.test.float32(), X[:9].detach().numpy())
    assert store.test.labels.tolist() == Y[:9].tolist()
    assert verify(out).problems == []


@pytest.mark.parametrize("write", [torch.save, lambda arrays, path: np.savez(path, **arrays)])
def test_everything_that_has_a_name(tmp_path, out, write):
    arrays = {
        "train_features": X, "train_labels": Y, "train_views": VIEWS, "train_view_kinds": ["weak", "strong"],
        "train_ids": list(range(40, 80)), "train_source": Y == 2,
        "test_features": X[:4], "test_labels": Y[:4],
        "head_weight": torch.ones(3, 5), "head_bias": torch.arange(3.0), "class_names": ["a", "b", "c"],
    }  # fmt: skip
    write(arrays, tmp_path / "file.npz")
    store = import_store(tmp_path / "file.npz", out).store
    assert np.array_equal(store.train.views, VIEWS.numpy())
    assert store.train.view_kinds == ("weak", "strong")
    assert store.train.ids.tolist() == list(range(40, 80))
    assert np.array_equal(store.train.source, Y.numpy() == 2)
    assert store.head.kind == "linear"
    assert store.head.bias.tolist() == [0, 1, 2]
    assert store.class_names == ("a", "b", "c")
    assert len(store.test.labels) == 4


def test_a_dictionary_per_split_in_bfloat16(tmp_path, out):
    split = {"features": X.bfloat16(), "labels": Y, "views": VIEWS[:1], "view_kinds": ["weak"]}
    torch.save({"train": split, "test": {"features": X[:4].half(), "labels": Y[:4]}}, tmp_path / "x.pt")
    store = import_store(tmp_path / "x.pt", out).store
    assert np.array_equal(store.train.float32(), X.bfloat16().float().numpy())
    assert store.train.rows.storage == "float32"  # of two types
    torch.save(split, tmp_path / "one.pt")
    one = import_store(tmp_path / "one.pt", tmp_path / "one.h5").store
    assert one.train.rows.storage == "bfloat16"
    assert np.array_equal(one.train.float32(), X.bfloat16().float().numpy())
    assert store.train.views.shape == (1, 40, 5)
    assert store.test.labels.tolist() == Y[:4].tolist()


def test_what_cannot_be_read_is_one_clear_line(tmp_path, out):
    torch.save({"features": X, "labels": Y, "model": torch.nn.Linear(2, 2)}, tmp_path / "module.pt")
    torch.save([X, Y], tmp_path / "list.pt")
    torch.save({"weights": X}, tmp_path / "other.pt")
    torch.save({"features": X, "labels": [[1], [1, 2]]}, tmp_path / "ragged.pt")
    torch.save({"features": X, "labels": Y}, tmp_path / "x.pt")
    np.save(tmp_path / "x.npy", X)
    np.save(tmp_path / "y.npy", Y)
    for name, message in [
        ("module.pt", "holds more than tensors, numbers and texts, which is not read; save a dictionary"),
        ("list.pt", "holds a list, expected a dictionary of tensors"),
        ("other.pt", "no array looks like features; it holds weights"),
        ("ragged.pt", "labels: is no array; expected a tensor or a list"),
    ]:
        with pytest.raises(InputError, match=message) as caught:
            import_store(tmp_path / name, out)
        assert "\n" not in str(caught.value)
    with pytest.raises(UsageError, match=r"x\.npy: holds features only; name .* with --test-labels"):
        import_store(tmp_path / "x.npy", out, labels=tmp_path / "y.npy", test=tmp_path / "x.npy")
    assert not out.exists()
