"""`ldmlr.store.split_writer` and values that float32 cannot hold, and arrays that are no rows: each is one
line.
"""

from __future__ import annotations

import json

import h5py
import numpy as np
import pytest
import torch

import ldmlr
from ldmlr.errors import InputError, UsageError
from ldmlr.store import FeatureStore, SplitData, StoredHead, check_trainable, verify
from ldmlr.store.convert.importing import import_store
from ldmlr.store.describe import describe

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


# --- numbers and texts that a store cannot hold ---------------------------------------------------


LARGE = np.array([1, 2**64 - 5, 7], np.uint64)


def test_ids_of_64_bits_do_not_turn_negative(run_cli, tmp_path):
    whole = np.arange(3, dtype=np.uint64)
    FeatureStore.write(tmp_path / "small.h5", train=SplitData(np.ones((3, 2)), [0, 1, 1], ids=whole))
    assert FeatureStore.open(tmp_path / "small.h5").train.ids.tolist() == [0, 1, 2]
    with pytest.raises(InputError, match=r"/train/ids: 18446744073709551611 is beyond 2\^63 - 1; save such"):
        FeatureStore.write(tmp_path / "a.h5", train=SplitData(np.ones((3, 2)), [0, 1, 1], ids=LARGE))
    texts = LARGE.astype(str)
    FeatureStore.write(tmp_path / "a.h5", train=SplitData(np.ones((3, 2)), [0, 1, 1], ids=texts))
    assert list(FeatureStore.open(tmp_path / "a.h5").train.ids) == [str(value) for value in LARGE]
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["train/features"], file["train/labels"], file["train/ids"] = np.ones((3, 2)), [0, 1, 1], LARGE
    with pytest.raises(InputError, match=r"other.h5: /train/ids: 18446744073709551611 is beyond"):
        _ = FeatureStore.open(tmp_path / "other.h5").train.ids
    done = run_cli("store", "import", tmp_path / "other.h5", "--out", tmp_path / "b.h5")
    assert (done.returncode, "beyond 2^63 - 1" in done.stderr) == (1, True), done.stderr
    assert not (tmp_path / "b.h5").exists()


def test_labels_of_64_bits_do_not_turn_negative(run_cli, tmp_path):
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["train/features"], file["train/labels"] = np.ones((3, 2)), LARGE
    with pytest.raises(InputError, match=r"/train/labels: holds 18446744073709551611, expected whole"):
        FeatureStore.open(tmp_path / "other.h5")
    done = run_cli("store", "import", tmp_path / "other.h5", "--out", tmp_path / "b.h5")
    assert (done.returncode, "row 1 holds 18446744073709551611, beyond 2^63 - 1" in done.stderr) == (1, True)
    with pytest.raises(InputError, match=r"labels must be from 0 and below 2\^63, found 1844"):
        ldmlr.finetune((np.ones((3, 2), np.float32), LARGE), epochs=1)


def test_a_nul_byte_is_no_part_of_an_id(tmp_path):
    with pytest.raises(InputError, match="/train/ids: the id of row 1 has a NUL byte; rename it"):
        FeatureStore.write(tmp_path / "a.h5", train=SplitData(np.ones((2, 2)), [0, 1], ids=["a", "b\0c"]))
    assert list(tmp_path.iterdir()) == []


def test_lists_of_one_number_have_one_number_everywhere(tmp_path):
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    lists = [[1.0]] * 20_000 + [[1.0, 2.0]]
    parquet.write_table(
        arrow.table({"embedding": lists, "label": [0, 1] * 10_000 + [1]}), tmp_path / "x.parquet"
    )
    with pytest.raises(InputError, match="row 20000 has 2 numbers, expected 1"):
        import_store(tmp_path / "x.parquet", tmp_path / "out.h5")


# --- what a store shows ---------------------------------------------------------------------------


def test_generated_rows_move_no_class_to_another_group(run_cli, tmp_path):
    labels = np.repeat([0, 1, 2], [150, 150, 150])
    source = np.concatenate([np.zeros(150), np.arange(150) >= 30, np.arange(150) >= 3]).astype(np.uint8)
    FeatureStore.write(tmp_path / "a.h5", train=SplitData(np.ones((450, 2)), labels, source=source))
    assert FeatureStore.open(tmp_path / "a.h5").train.encoded_counts.tolist() == [150, 30, 3]
    found = json.loads(run_cli("store", "inspect", tmp_path / "a.h5", "--json").stdout)
    assert found["groups"] == {"many": 1, "medium": 1, "few": 1}
    assert found["imbalance_factor"] == 50
    assert found["splits"]["train"]["counts"] == [150, 150, 150]


def test_what_a_store_shares_cannot_be_changed(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("train/features", data=np.ones((9, 4), np.float32), chunks=(3, 4), compression=4)
        file["train/labels"] = np.arange(9) % 2
    split = FeatureStore.open(tmp_path / "a.h5").train
    with pytest.raises(ValueError, match="read-only"):
        split.features[0, 0] = 7
    copy = split.float32()
    copy[0, 0] = 7
    assert split.features[0, 0] == 1
