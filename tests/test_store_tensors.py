"""`ldmlr.store.convert.tensors`: importing what ``torch.save`` wrote, and the names of what else a file may
hold.
"""

from __future__ import annotations

import h5py
import numpy as np
import pytest
import torch

from ldmlr.diffusion.rows import choose_views
from ldmlr.errors import InputError, UsageError
from ldmlr.store import verify
from ldmlr.store.convert.importing import import_store

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
    np.save(tmp_path / "alone.npy", X)
    with pytest.raises(UsageError, match=r"alone\.npy: holds features only; name .* with test_labels"):
        import_store(tmp_path / "x.npy", out, labels=tmp_path / "y.npy", test=tmp_path / "alone.npy")
    assert not out.exists()


# --- names of what else a file may hold -----------------------------------------------------------

MORE = {
    "source": (Y == 2).int(), "ids": torch.arange(40, 80), "views": VIEWS, "view_kinds": ["weak", "strong"],
}  # fmt: skip


def import_all(tmp_path, arrays, **options):
    torch.save(arrays, tmp_path / "all.pt")
    return import_store(tmp_path / "all.pt", tmp_path / "out.h5", overwrite=True, **options)


def check_more(split):
    assert np.array_equal(split.source, MORE["source"])
    assert split.ids.tolist() == MORE["ids"].tolist()
    assert np.array_equal(split.views, VIEWS)
    assert split.view_kinds == ("weak", "strong")


@pytest.mark.parametrize(
    ("features", "more", "keys"),
    [
        ("X_train", "train_{}", {}),
        ("X_train", "{}_train", {}),
        ("train_x", "train/{}", {}),
        ("features", "train_{}", {}),
        ("features", "{}", {}),
        ("embeddings", "{}", {}),
        ("deep_train", "train_{}", {"features_key": "deep_{split}", "labels_key": "y"}),
        ("trainX", "train_{}", {"features_key": "{split}X", "labels_key": "y"}),
        ("deep", "train_{}", {"features_key": "deep"}),
        ("a.test", "test_{}", {"features_key": "a.test", "labels_key": "y"}),
    ],
)
def test_what_there_is_per_row_is_found_whatever_the_features_are_called(tmp_path, features, more, keys):
    arrays = {features: X, "y": Y, **{more.format(what): values for what, values in MORE.items()}}
    done = import_all(tmp_path, arrays, **keys)
    check_more(done.store.train)
    assert done.notes == []


def test_every_split_has_its_own(tmp_path):
    arrays = {"X_train": X[:30], "y_train": Y[:30], "X_val": X, "y_val": Y, "train_ids": list(range(30))}
    store = import_all(tmp_path, {**arrays, **{f"val_{what}": MORE[what] for what in MORE}}).store
    check_more(store.val)
    assert store.train.ids.tolist() == list(range(30))
    assert store.train.views is None
    # A key without {split} names the rows of one split, and what goes with them.
    one = {f"test_{what}": values for what, values in {"features": X, "labels": Y, **MORE}.items()}
    done = import_all(
        tmp_path, {**one, "train_ids": [1, 2]}, features_key="test_features", labels_key="test_labels"
    )
    check_more(done.store.train)
    assert done.notes == [f"{tmp_path / 'all.pt'}: not used: train_ids"]


def test_arrays_that_are_not_used_are_named(run_cli, tmp_path):
    arrays = {
        "features": X, "labels": Y, "train_weights": Y, "other_X": X, "head_weight": torch.ones(3, 5),
        "head_scale": 1.0, "source": "a camera", "ids": [1, 2],
    }  # fmt: skip
    done = import_all(tmp_path, arrays)
    expected = f"{tmp_path / 'all.pt'}: not used: head_scale, ids, other_X, source, train_weights"
    assert done.notes == [expected]
    assert done.store.train.source is None
    said = run_cli("store", "import", tmp_path / "all.pt", "--out", tmp_path / "again.h5")
    assert (said.returncode, f"Note: {expected}" in said.stderr) == (0, True), said.stderr
    torch.save({"features": X, "labels": Y, **{f"n{i}": 0 for i in range(10)}}, tmp_path / "test.pt")
    torch.save({"features": X, "labels": Y}, tmp_path / "x.pt")
    notes = import_store(tmp_path / "x.pt", tmp_path / "b.h5", test=tmp_path / "test.pt").notes
    assert notes == [f"{tmp_path / 'test.pt'}: not used: n0, n1, n2, n3, ..., n6, n7, n8, n9 (10 in all)"]


def test_datasets_that_are_not_used_are_named(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["train/features"], file["train/labels"], file["train/ids"] = X, Y, np.arange(40)
        file["train/weights"], file["head/bias"] = Y, np.zeros(3)
    done = import_store(tmp_path / "x.h5", tmp_path / "out.h5")
    assert done.notes == [f"{tmp_path / 'x.h5'}: not used: head/bias, train/weights"]
    assert import_store(tmp_path / "out.h5", tmp_path / "b.h5").notes == []


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"head_bias": torch.ones(3)}, r"has head_bias, but no head_weight \[C, D\]; add it, or leave the"),
        ({"head_kind": "cosine", "head_bias": 0}, "has head_bias and head_kind, but no head_weight"),
        (
            {"head_weight": torch.ones(3, 5), "head_kind": ["a", "b"]},
            r"head_kind: has shape \(2,\), expected one",
        ),
        ({"head_weight": ["a"]}, "head_weight: is <U1, expected numbers; convert it"),
        ({"train_ids": [1, 2]}, r"train_ids: is int64 of shape \(2,\), expected 40 whole numbers or texts"),
        ({"train_source": Y}, r"train_source: is int64 of shape \(40,\), expected 40 times 0 \(encoded\) or"),
        (
            {"train_views": X},
            r"train_views: is float32 of shape \(40, 5\), expected numbers of shape \[K, 40",
        ),
        ({"train_views": VIEWS, "train_view_kinds": ["weak"]}, "train_view_kinds: 1 kind for 2 views; name"),
        ({"train_view_kinds": ["weak"]}, "train_view_kinds: 1 kind for 0 views; name one per view"),
        (
            {"train_views": VIEWS, "train_view_kinds": "weak"},
            r"train_view_kinds: is <U4 of shape \(\), expected one",
        ),
        ({"class_names": "abc"}, r"class_names: has shape \(\), expected one text per entry; save a list"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path, more, message):
    with pytest.raises(InputError, match=rf"^{tmp_path}/all\.pt: {message}") as caught:
        import_all(tmp_path, {"X_train": X, "y_train": Y, **more})
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out.h5").exists()


def test_kinds_that_are_neither_weak_nor_strong_are_named(run_cli, tmp_path):
    kinds = ["weak", "Strong", "mild", "very strong", "mild"]
    arrays = {"features": X, "labels": Y, "views": X.expand(5, 40, 5), "view_kinds": kinds}
    done = import_all(tmp_path, arrays)
    expected = (
        "train views: expected the kinds weak and strong; 'Strong' counts as weak, 'mild' counts as weak, "
        "'very strong' counts as strong"
    )
    assert done.notes == [expected]
    assert list(done.store.train.view_kinds) == kinds
    assert choose_views(kinds, 0, 9) == [3]
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["train/features"], file["train/labels"], file["train/views"] = X, Y, X[None]
        file["train/views"].attrs["kinds"] = [b"mild"]
    said = run_cli("store", "import", tmp_path / "x.h5", "--out", tmp_path / "again.h5")
    assert "Note: train views: expected the kinds weak and strong; 'mild' counts as weak" in said.stderr


def test_texts_in_bytes_are_texts(tmp_path):
    arrays = {"features": X, "labels": Y, "views": VIEWS, "view_kinds": [b"weak", b"strong"]}
    np.savez(tmp_path / "x.npz", **arrays, class_names=[b"a", b"b", "\u00e7".encode()])
    store = import_store(tmp_path / "x.npz", tmp_path / "out.h5").store
    assert store.train.view_kinds == ("weak", "strong")
    assert store.class_names == ("a", "b", "\u00e7")
