"""`ldmlr.store.reading` of bad files: each gives one line that names the file, the dataset, what was
expected and a remedy.
"""

from __future__ import annotations

import re
import subprocess
import sys

import h5py
import numpy as np
import pytest

from ldmlr.errors import InputError, LdmlrError
from ldmlr.store import FeatureStore, SplitData, StoredHead, StoreWriter, verify

RNG = np.random.default_rng(0)


@pytest.fixture
def path(tmp_path):
    """A sound store with everything in it."""
    path = tmp_path / "store.h5"
    FeatureStore.write(
        path,
        train=SplitData(
            RNG.random((6, 3)), np.arange(6) % 3, source=np.arange(6) % 2,
            ids=[f"image {i}.png" for i in range(6)],
            views=RNG.random((2, 6, 3)), view_kinds=("weak", "strong"),
        ),
        test=SplitData(RNG.random((3, 3)), [0, 1, 2]),
        head=StoredHead("linear", RNG.random((3, 3)).astype("f4"), np.zeros(3, np.float32)),
        class_names=["a", "b", "c"], encoder="a small network", config={"seed": 3},
    )  # fmt: skip
    return path


def one_line(path, pattern):
    """Opening fails with one line that names the file and matches; so does verifying."""
    with pytest.raises(InputError) as caught:
        FeatureStore.open(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    assert re.search(pattern, message), message
    found = verify(path)
    assert any(re.search(pattern, line) for line in found.problems), found.problems


def replace(path, name, values, **attributes):
    with h5py.File(path, "r+") as file:
        del file[name]
        dataset = file.create_dataset(name, data=values)
        dataset.attrs.update(attributes)


def test_a_missing_file_a_folder_and_other_kinds_of_file(tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.h5: no such feature store; check the path"):
        FeatureStore.open(tmp_path / "nowhere.h5")
    with pytest.raises(InputError, match="is a folder"):
        FeatureStore.open(tmp_path)
    for name, content, expected in [
        ("empty.h5", b"", "is empty"),
        ("text.h5", b"hello, world", "is not an HDF5 file"),
        ("short.h5", b"\x89HDF\r\n\x1a\n", "is a damaged HDF5 file|is truncated"),
        ("numbers.npz", b"PK\x03\x04......", "ldmlr store import"),
        ("numbers.npy", b"\x93NUMPY......", "ldmlr store import"),
        ("numbers.parquet", b"PAR1........", "ldmlr store import"),
        ("manifest.json", b"{}", "is not a manifest of shards"),
        ("broken.json", b"{", "is not JSON"),
    ]:
        (tmp_path / name).write_bytes(content)
        one_line(tmp_path / name, expected)


def test_a_file_of_images_is_told_where_it_belongs(tmp_path):
    with h5py.File(tmp_path / "images.h5", "w") as file:
        file["train/images"] = np.zeros((2, 4, 4, 3), np.uint8)
        file["train/labels"] = [0, 1]
    one_line(tmp_path / "images.h5", "holds images, not features; `ldmlr baseline`")


def test_truncation_at_any_place_is_noticed(path, tmp_path):
    whole = path.read_bytes()
    cut = tmp_path / "cut.h5"
    for length in [*range(0, len(whole), max(1, len(whole) // 40)), len(whole) - 1]:
        cut.write_bytes(whole[:length])
        with pytest.raises(InputError) as caught:
            FeatureStore.open(cut)
        assert "\n" not in str(caught.value)
        assert verify(cut).problems


def contents(store):
    return [
        store.num_classes, store.dim, store.class_names, store.encoder, store.config, store.head.kind,
        store.head.weight.tobytes(), store.head.bias.tobytes(), store.train.view_kinds,
        np.asarray(store.train.views).tobytes(), store.train.source.tobytes(), store.train.ids.tolist(),
        *(split.float32().tobytes() + split.labels.tobytes() for split in store.splits.values()),
    ]  # fmt: skip


def test_a_flipped_byte_is_found_or_changes_nothing(path, tmp_path):
    whole, expected = path.read_bytes(), contents(FeatureStore.open(path))
    flipped = tmp_path / "flipped.h5"
    with h5py.File(path) as file:
        inside = []
        for name in (
            "train/features",
            "train/labels",
            "train/views",
            "train/source",
            "test/features",
            "head/weight",
        ):
            offset = file[name].id.get_offset()
            inside += [offset, offset + file[name].nbytes - 1]
    places = np.random.default_rng(1).choice(len(whole), 100, replace=False).tolist()
    for place in [*inside, *places]:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << (place % 8)
        flipped.write_bytes(damaged)
        problems = verify(flipped).problems
        assert problems or (place not in inside and contents(FeatureStore.open(flipped)) == expected), place
        assert all("\n" not in line and str(flipped) in line for line in problems)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_counted_and_located(path, value):
    values = RNG.random((6, 3)).astype("f4")
    values[[2, 5], 1] = value
    replace(path, "train/features", values)
    one_line(path, "/train/features: rows with NaN or infinity: 2, the first is row 2; remove")


def test_large_features_are_checked_by_verify_only(path, monkeypatch):
    monkeypatch.setattr("ldmlr.store.reading.CHECK_BYTES", 10)
    replace(path, "test/features", np.full((3, 3), np.nan, np.float32))
    assert len(FeatureStore.open(path).test) == 3
    assert any("/test/features: rows with NaN or infinity: 3" in line for line in verify(path).problems)


def test_nan_in_views_head_and_bfloat16(path):
    views = np.zeros((2, 6, 3), np.uint16)
    views[1, 4, 0] = 0x7FC0
    replace(path, "train/views", views, dtype="bfloat16", kinds=[b"weak", b"strong"])
    one_line(path, "/train/views: rows with NaN or infinity: 1")
    assert any("infinity: 1, the first is row 4 of view 1;" in line for line in verify(path).problems)
    replace(path, "train/views", RNG.random((2, 6, 3)), kinds=[b"weak", b"strong"])
    replace(path, "head/bias", np.array([0, np.inf, 0], np.float32))
    one_line(path, "/head/bias: holds NaN or infinity")


@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        ("train/labels", np.array([0, 1, 2, 3, 1, 9]), r"labels outside 0 \.\. 2: 2, .* 3 in row 3"),
        ("train/labels", np.array([0, 1, 2, -1, 1, 0]), r"labels outside 0 \.\. 2: 1, .* -1 in row 3"),
        ("train/labels", np.arange(6) / 2, "is float64, expected whole numbers"),
        ("train/labels", np.arange(5) % 3, r"has shape \(5,\), but /train/features has 6 rows"),
        ("train/labels", np.zeros((6, 2), int), "give one label per row"),
        ("train/features", np.zeros((6, 2, 2)), r"expected \[N, D\]"),
        ("train/features", np.zeros((6, 0)), r"expected \[N, D\]"),
        ("train/features", np.zeros((6, 3), np.uint16), "needs the attribute dtype='bfloat16'"),
        ("train/features", np.zeros((6, 3), "S2"), "expected float32, float16 or bfloat16"),
        ("test/features", np.zeros((3, 4), "f4"), "/test/features: has dim 4, but /train/features has dim 3"),
        ("train/source", np.full(6, 2), "expected 6 times 0"),
        ("train/ids", np.arange(5), "expected 6 numbers or texts"),
        ("train/ids", np.arange(6.0), "expected 6 numbers or texts"),
        ("train/views", np.zeros((2, 5, 3), "f4"), r"expected \[K, 6, 3\]"),
        ("head/weight", np.zeros((4, 3), "f4"), "/head"),
        ("head/weight", np.zeros((3, 2), "f4"), r"has shape \[3, 2\], expected \[3, 3\]"),
        ("head/bias", np.zeros(2, "f4"), r"expected weight \[C, D\] and bias \[C\]"),
        ("head/bias", np.zeros(3, "S1"), "expected numbers"),
        ("class_names", np.array([b"a", b"b"]), "has 2 names for 3 classes"),
        ("class_names", np.array([[b"a", b"b"]]), r"expected \[C\]"),
    ],
)  # fmt: skip
def test_a_wrong_dataset_is_named_with_a_remedy(path, name, values, expected):
    replace(path, name, values)
    one_line(path, expected)


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"complete": False}, "is not complete: its writing was interrupted; write it again"),
        ({"schema_version": 2}, "has schema_version 2, this version reads 1; upgrade ldmlr"),
        ({"format": "ldmlr-images"}, "its format is 'ldmlr-images', expected 'ldmlr-features'"),
        ({"dim": 5}, "the attribute dim is 5, but dim is 3"),
        ({"num_classes": 2}, "/train/labels: labels outside 0 .. 1|/head/weight"),
        ({"num_classes": -1}, "num_classes is not a positive number"),
        ({"num_classes": "many"}, "num_classes is not a positive number"),
        ({"encoder": None}, "has no attribute encoder"),
    ],
)
def test_a_wrong_attribute_is_named(path, attributes, expected):
    with h5py.File(path, "r+") as file:
        for key, value in attributes.items():
            if value is None:
                del file.attrs[key]
            else:
                file.attrs[key] = value
    one_line(path, expected)


def test_missing_datasets_are_named(path):
    with h5py.File(path, "r+") as file:
        del file["test/labels"]
    one_line(path, "/test/labels: is missing; add one label per row")
    with h5py.File(path, "r+") as file:
        del file["train/features"], file["test"]
    one_line(path, "has no dataset /train/features or .* it holds .*train/labels")


def test_changed_contents_and_attributes_differ_from_their_checksum(path):
    with h5py.File(path, "r+") as file:
        file["train/features"][3, 1] += 1
        file["train/ids"][2] = "another.png"
        file.attrs["encoder"] = "another network"
    assert FeatureStore.open(path).encoder == "another network"
    problems = verify(path).problems
    assert len(problems) == 3
    assert any("/train/features: its contents differ from its sha256" in line for line in problems)
    assert any("/train/ids: its contents differ" in line for line in problems)
    assert any("its attributes or its list of datasets differ" in line for line in problems)
    with h5py.File(path, "r+") as file:
        del file["head/weight"].attrs["sha256"]
    assert any("/head/weight: has no sha256" in line for line in verify(path).problems)


def test_verify_names_every_problem(path):
    values = RNG.random((6, 3)).astype("f4")
    values[1] = np.nan
    replace(path, "train/features", values)
    replace(path, "test/labels", np.array([0, 5, 1]))
    replace(path, "class_names", np.array([b"a"]))
    problems = "\n".join(verify(path).problems)
    for expected in (
        "/train/features: rows with NaN or infinity: 1",
        "/test/labels: labels outside",
        "/class_names: has 1 name",
    ):
        assert expected in problems


def test_rows_that_are_not_in_the_file_are_never_filled_in(tmp_path):
    path = tmp_path / "store.h5"

    def start():
        file = h5py.File(path, "w")
        file["train/labels"] = np.zeros(6, int)
        return file

    with start() as file:
        file.create_dataset("train/features", (6, 3), "f4")
    one_line(path, "/train/features: was never written")
    with start() as file:
        file.create_dataset("train/features", (6, 3), "f4", chunks=(2, 3))[:2] = 1
    one_line(path, "2 of 3 chunks were never written")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = np.zeros((6, 3), "f4")
    with start() as file:
        layout = h5py.VirtualLayout((6, 3), "f4")
        layout[:] = h5py.VirtualSource(tmp_path / "other.h5", "x", (6, 3))
        file.create_virtual_dataset("train/features", layout)
    one_line(path, "keeps its rows in other files")
    with h5py.File(tmp_path / "linked.h5", "w") as file:
        file["train/labels"] = np.zeros(6, int)
        file["train/features"] = h5py.ExternalLink("other.h5", "/x")
    one_line(tmp_path / "linked.h5", "is a link into another file; copy the dataset into this one")
    with start() as file:
        file["train/features/deeper"] = 1
    one_line(path, "is a group, expected a dataset")


def test_a_damaged_chunk_is_named(tmp_path):
    path = tmp_path / "store.h5"
    with h5py.File(path, "w") as file:
        values = RNG.random((64, 3)).astype("f4")
        dataset = file.create_dataset("train/features", data=values, chunks=(16, 3), compression="gzip")
        file["train/labels"] = np.zeros(64, int)
        place = dataset.id.get_chunk_info(2).byte_offset
    data = bytearray(path.read_bytes())
    data[place : place + 40] = bytes(40)
    path.write_bytes(data)
    one_line(path, "is a damaged HDF5 file")
    assert "/train/features" in verify(path).problems[0]


def test_a_file_that_another_process_writes_is_not_called_damaged(path):
    code = "import h5py, sys; f = h5py.File(sys.argv[1], 'r+'); print('open', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "open\n"
        with pytest.raises(InputError, match="is being written by another process; wait"):
            FeatureStore.open(path)
        other.communicate("\n")
    assert FeatureStore.open(path).num_classes == 3


def test_a_damaged_heap_of_texts_is_an_error_and_no_hang(path):
    """HDF5 itself would walk this heap without end."""
    data = bytearray(path.read_bytes())
    heap = data.index(b"GCOL\x01\0\0\0")
    data[heap + 24] ^= 0xFF  # the size of its first object
    path.write_bytes(data)
    one_line(path, "is a damaged HDF5 file")


@pytest.mark.parametrize(
    ("features", "labels", "expected"),
    [
        (np.ones((3, 2)), [0, 1], r"\(2, 2\)|3 rows of features but 2 labels"),
        (np.ones((2, 2)), [0.5, 1], "whole numbers"),
        (np.ones((2, 2)), [0, 3], r"label 3 in row 1 is not in 0 \.\. 2"),
        (np.ones((2, 2)), [-1, 0], r"label -1 in row 0 is not in"),
        (np.array([[1, 1], [np.nan, 1]]), [0, 1], "rows with NaN or infinity: 1, the first is row 1"),
        (np.array([["a", "b"], ["c", "d"]]), [0, 1], "expected numbers"),
        (np.ones(2), [0, 1], r"expected \[N, D\]"),
        (np.array([[1e300, 1], [1, 1]]), [0, 1], "too large for float32"),
    ],
)  # fmt: skip
def test_bad_arrays_are_refused_before_a_file_appears(tmp_path, features, labels, expected):
    with pytest.raises(LdmlrError, match=expected):
        FeatureStore.write(tmp_path / "store.h5", train=SplitData(features, labels), num_classes=3)
    assert list(tmp_path.iterdir()) == []


def test_values_that_the_type_cannot_hold_are_refused(tmp_path):
    data = SplitData(np.array([[1.0], [70000.0]]), [0, 1])
    with pytest.raises(InputError, match="row 1 holds 70000, too large for float16; use dtype='bfloat16'"):
        FeatureStore.write(tmp_path / "store.h5", train=data, dtype="float16")
    assert FeatureStore.write(tmp_path / "store.h5", train=data, dtype="bfloat16").dim == 1


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("bits", [0x7FC00000, 0x7FFFFFFF, 0xFFFFFFFF, 0x7F800001, 0xFF80FFFF])
def test_no_nan_becomes_a_number(tmp_path, dtype, bits):
    rows = np.ones((3, 2), np.float32)
    rows.view(np.uint32)[1, 1] = bits
    with pytest.raises(InputError, match="rows with NaN or infinity: 1, the first is row 1"):
        FeatureStore.write(tmp_path / "store.h5", train=SplitData(rows, [0, 1, 1]), dtype=dtype)


def test_an_id_that_is_no_text_is_refused(tmp_path):
    for ids in (["a", "\udce9.png"], [b"a", b"\xe9.png"]):
        with pytest.raises(InputError, match="/train/ids: holds what is no text in UTF-8; rename it"):
            FeatureStore.write(tmp_path / "store.h5", train=SplitData(np.ones((2, 2)), [0, 1], ids=ids))
        assert list(tmp_path.iterdir()) == []


def test_wrong_use_of_the_writer_is_explained(tmp_path):
    path = tmp_path / "store.h5"
    good = np.ones((2, 2)), np.array([0, 1])

    def attempt(work, **arguments):
        with StoreWriter(path, **{"dim": 2, "num_classes": 2, **arguments}) as writer:
            work(writer)

    for expected, work, arguments in [
        ("row 2 of 4 was never written", lambda w: w.split("train", 4).write(0, *good), {}),
        (r"rows 3 \.\. 5 are not in 0 \.\. 4", lambda w: w.split("train", 4).write(3, *good), {}),
        ("source: is missing; pass source", lambda w: w.split("train", 2, source=True).write(0, *good), {}),
        ("ids: was not laid out", lambda w: w.split("train", 2).write(0, *good, ids=[1, 2]), {}),
        ("1 id for 2 rows", lambda w: w.split("train", 2, ids="int").write(0, *good, ids=[1]), {}),
        (
            "expected whole numbers",
            lambda w: w.split("train", 2, ids="int").write(0, *good, ids=["a", "b"]),
            {},
        ),
        ("expected 0 .encoded.", lambda w: w.split("train", 2, source=True).write(0, *good, source=3), {}),
        ("unknown split 'tarin'; did you mean 'train'", lambda w: w.split("tarin", 2), {}),
        ("laid out before", lambda w: [w.split("train", 2), w.split("train", 2)], {}),
        ("1 view kind for 2 views", lambda w: w.split("train", 2, views=2, view_kinds=["weak"]), {}),
        ("/train/views/0: row 0 of 2 was never", lambda w: w.split("train", 2, views=1).write(0, *good), {}),
        ("no split was written", lambda w: None, {}),
        ("unknown value 'float23'; did you mean 'float32'", lambda w: None, {"dtype": "float23"}),
        ("1 class name for 2 classes", lambda w: None, {"class_names": ["a"]}),
        (r"the head has shape \(2, 3\)", lambda w: None, {"head": StoredHead("linear", np.ones((2, 3)))}),
        ("/head/weight: holds NaN", lambda w: None, {"head": StoredHead("linear", np.full((2, 2), np.nan))}),
        ("must be at least 1", lambda w: None, {"dim": 0}),
    ]:
        with pytest.raises(LdmlrError, match=expected):
            attempt(work, **arguments)
        assert list(tmp_path.iterdir()) == [], expected
    with pytest.raises(LdmlrError, match="no split to write"):
        FeatureStore.write(path)
    with pytest.raises(InputError, match="1 row of source but 2 labels"):
        FeatureStore.write(path, train=SplitData(*good, source=[1]))
    with pytest.raises(InputError, match="view 1 has 1 row, expected 2"):
        FeatureStore.write(path, train=SplitData(*good, views=[good[0], good[0][:1]]))
