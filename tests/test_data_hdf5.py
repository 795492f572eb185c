"""`ldmlr.data.hdf5` and `digits`: image sets in HDF5, and the built-in digits: arrays in memory."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from ldmlr.data import BUILTIN, open_image_set
from ldmlr.errors import InputError, LdmlrError, UsageError


def write(path: Path, *, names: list[str] | None = None, **datasets: np.ndarray) -> Path:
    """Write datasets by key (``train_images`` becomes ``train/images``)."""
    with h5py.File(path, "w") as file:
        for key, value in datasets.items():
            file[key.replace("_", "/", 1)] = value
        if names is not None:
            file["class_names"] = names
    return path


def images(n: int, height: int = 6, width: int = 5, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(n).integers(0, 256, (n, height, width, channels), np.uint8)


LABELS = np.array([0, 0, 0, 1, 1, 2])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write(
        tmp_path / "set.h5",
        names=["cat", "dog", "ümlaut"],
        train_images=images(6), train_labels=LABELS, test_images=images(3), test_labels=np.arange(3),
    )  # fmt: skip


def test_everything_in_the_file_is_read(path):
    image_set = open_image_set(path)
    assert image_set.name == "set"
    assert image_set.class_names == ("cat", "dog", "ümlaut")
    assert image_set.num_classes == 3
    assert image_set.val is None
    assert image_set.test is not None
    assert len(image_set.test) == 3
    train = image_set.train
    assert train.shape == (6, 5, 3)
    assert train.labels.dtype == np.int64
    assert train.counts.tolist() == [3, 2, 1]
    assert np.array_equal(train.ids, np.arange(6))
    assert np.array_equal(train.load([5, 0]), images(6)[[5, 0]])
    assert np.array_equal(train.load(slice(1, 3)), images(6)[1:3])
    assert train.load([]).shape == (0, 6, 5, 3)
    assert image_set.provenance["counts"] == [3, 2, 1]
    assert image_set.provenance["indices_sha256"] is None
    assert image_set.draw is None


def test_what_load_returns_is_the_callers(path):
    train = open_image_set(path).train
    train.load(slice(None))[:] = 0
    train.load([0])[:] = 0
    assert np.array_equal(train.load(slice(None)), images(6))


def test_split_by_name(path):
    image_set = open_image_set(path)
    assert image_set.split("train") is image_set.train
    with pytest.raises(InputError, match=r"set\.h5: has no val images"):
        image_set.split("val")


def test_without_names_the_numbers_are_the_names(tmp_path):
    path = write(tmp_path / "set.h5", train_images=images(6), train_labels=LABELS.astype(np.uint8))
    image_set = open_image_set(path)
    assert image_set.class_names == ("0", "1", "2")
    assert image_set.test is None


def test_val_without_test_is_the_test_set(tmp_path):
    path = write(
        tmp_path / "set.h5", train_images=images(6), train_labels=LABELS,
        val_images=images(3), val_labels=np.arange(3),
    )  # fmt: skip
    image_set = open_image_set(path)
    assert image_set.val is None
    assert image_set.provenance["test_from"] == "val"
    assert image_set.split("test").counts.tolist() == [1, 1, 1]


def test_a_file_is_known_by_its_content_too(path):
    other = path.rename(path.with_name("set.data"))
    assert open_image_set(other).num_classes == 3


def test_draw_from_a_file(tmp_path):
    path = write(tmp_path / "set.h5", train_images=images(40), train_labels=np.repeat(np.arange(2), 20))
    image_set = open_image_set(path, imbalance_factor=5, seed=2)
    assert image_set.train.counts.tolist() == [20, 4]
    assert image_set.draw is not None
    assert np.array_equal(image_set.train.ids, image_set.draw.indices)
    assert np.array_equal(image_set.train.load([0, 23]), images(40)[image_set.draw.indices[[0, 23]]])
    wanted = {"imbalance_factor": 5.0, "seed": 2, "shuffle_classes": False, "counts": [20, 4]}
    assert image_set.provenance.items() >= wanted.items()
    assert image_set.provenance["indices_sha256"] == image_set.draw.sha256


def test_a_draw_from_other_images_is_refused(tmp_path, path):
    draw = open_image_set(path, imbalance_factor=2).draw
    assert draw is not None
    draw.save(tmp_path / "indices.json")
    changed = images(6)
    changed[0, 0, 0, 0] ^= 1
    other = write(tmp_path / "other.h5", train_images=changed, train_labels=LABELS)
    with pytest.raises(InputError, match=r"other\.h5: not the training images of the saved draw, .*set\.h5"):
        open_image_set(other, indices=tmp_path / "indices.json")
    with pytest.raises(UsageError, match="leave one of the two out"):
        open_image_set(path, indices=tmp_path / "indices.json", imbalance_factor=2)


def test_fingerprint_tells_contents_apart_and_nothing_else(tmp_path, path):
    first = open_image_set(path).fingerprint()
    copy = tmp_path / "copy.h5"
    copy.write_bytes(path.read_bytes())
    assert open_image_set(copy).fingerprint() == first
    assert open_image_set(path, image_size=4).fingerprint() != first
    with h5py.File(copy, "r+") as file:
        file["test/labels"][0] = 2
    assert open_image_set(copy).fingerprint() != first


def test_image_size_resizes_the_centre(tmp_path):
    pixels = np.full((2, 16, 32, 3), 255, np.uint8)
    pixels[:, :, 8:16] = 200
    pixels[:, :, 16:24, 1] = 40
    path = write(tmp_path / "set.h5", train_images=pixels, train_labels=np.arange(2))
    # The shorter side has the size already: a plain crop.
    cropped = open_image_set(path, image_size=16).train
    assert cropped.shape == (16, 16, 3)
    assert np.array_equal(cropped.load([0, 1]), pixels[:, :, 8:24])
    small = open_image_set(path, image_size=4).train
    assert small.load([0]).shape == (1, 4, 4, 3)
    assert np.allclose(small.load([0])[0, 2, :, 1], [200, 200, 40, 40], atol=25)
    assert np.array_equal(small.subset(np.array([1])).load([0]), small.load([1]))


def test_grey_images_keep_their_channel(tmp_path):
    path = write(tmp_path / "set.h5", train_images=images(6, channels=1), train_labels=LABELS)
    assert open_image_set(path, image_size=3).train.load([0]).shape == (1, 3, 3, 1)


def bad(tmp_path: Path, **changes: np.ndarray) -> Path:
    good = {"train_images": images(6), "train_labels": LABELS}
    return write(tmp_path / "bad.h5", **{**good, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_images": images(6) / 255}, r"train/images are float64; expected uint8"),
        ({"train_images": images(6).transpose(0, 3, 1, 2)}, r"\[6, 3, 6, 5\].*transpose to \[N, H, W, C\]"),
        ({"train_images": images(6).reshape(6, -1)}, r"expected \[N, H, W, C\]"),
        ({"train_images": images(6, channels=4)}, r"1 or 3 channels"),
        ({"train_images": images(0), "train_labels": LABELS[:0]}, r"train/images are empty"),
        ({"train_labels": LABELS.astype(float)}, r"train/labels: labels are float64"),
        ({"train_labels": LABELS.reshape(2, 3)}, r"one per image, \[N\]"),
        ({"train_labels": LABELS == 1}, r"labels are bool"),
        ({"train_labels": np.array(list(b"abcdef"), "S1")}, r"labels are \|S1"),
        ({"train_labels": LABELS[:5]}, r"5 labels for 6 images"),
        ({"train_labels": LABELS - 1}, r"label -1 in row 0 is out of range"),
        ({"train_labels": LABELS * 2}, r"no training image has label 1, but one has 4"),
        ({"train_labels": LABELS * 2**40}, r"in row 3 is out of range"),
        ({"train_labels": LABELS * 10**8}, r"no training image has label 1"),
        ({"train_labels": LABELS * 0}, r"only 1 class"),
        ({"test_images": images(3), "test_labels": np.array([0, 1, 3])},
         r"test/labels: label 3 in row 2 is out of range; labels must be 0 .. 2"),
        ({"test_images": images(3)}, r"no dataset test/labels"),
        ({"test_images": images(3, height=7), "test_labels": np.arange(3)}, r"test/images are \[7, 5, 3\]"),
        ({"names": ["a", "b", "a"]}, r"class_names: classes 0 and 2 are both named 'a'; rename one"),
        ({"train_images": h5py.Empty("u1")}, r"train/images is an empty dataspace, .*; write the arrays"),
        ({"train_labels": h5py.Empty("i8")}, r"train/labels is an empty dataspace"),
        ({"test_images": h5py.Empty("u1"), "test_labels": LABELS}, r"test/images is an empty dataspace"),
        ({"class_names": h5py.Empty("S3")}, r"class_names are not a list of texts"),
        ({"names": ["a", "b"]}, r"train/labels: label 2 in row 5 is out of range"),
        ({"names": ["a", "b", "c", "d"]}, r"class 3 \(d\) has no training image"),
        ({"class_names": np.arange(3)}, r"class_names are not a list of texts"),
        ({"class_names": "cat"}, r"class_names are not a list of texts"),
    ],
)  # fmt: skip
def test_a_wrong_layout_is_named(tmp_path, changes, message):
    if "class_names" in changes:
        path = bad(tmp_path)
        with h5py.File(path, "r+") as file:
            file["class_names"] = changes["class_names"]
    else:
        path = bad(tmp_path, **changes)
    with pytest.raises(InputError, match=message) as caught:
        open_image_set(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_a_file_without_images_names_the_layout(tmp_path):
    path = write(tmp_path / "bad.h5", other=np.zeros(3))
    with pytest.raises(
        InputError, match=r"no dataset train/images; expected train/images \[N, H, W, C\] uint8"
    ):
        open_image_set(path)


def test_a_feature_store_is_told_apart(tmp_path):
    path = write(tmp_path / "bad.h5", train_features=np.zeros((6, 2)), train_labels=LABELS)
    with pytest.raises(InputError, match="holds features, not images; a feature store goes to ldmlr diffuse"):
        open_image_set(path)


def test_a_truncated_file_is_named(path):
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"set\.h5: is truncated: the HDF5 file goes on .*; copy it again"):
        open_image_set(path)


@pytest.mark.parametrize("content", [b"", b"not HDF5 at all", b"\x89HDF\r\n\x1a\n" + bytes(100)])
def test_other_files_are_named(tmp_path, content):
    path = tmp_path / "set.h5"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"set\.h5: (not an HDF5 file, or|is a) damaged"):
        open_image_set(path)


def test_a_damaged_chunk_is_named(tmp_path):
    path = tmp_path / "set.h5"
    with h5py.File(path, "w") as file:
        data = file.create_dataset("train/images", data=images(6), chunks=(6, 6, 5, 3), compression="gzip")
        file["train/labels"] = LABELS
        offset = data.id.get_chunk_info(0).byte_offset
    content = bytearray(path.read_bytes())
    content[offset : offset + 20] = bytes(20)
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"set\.h5: train cannot be read"):
        open_image_set(path)


def test_unknown_sources_are_named(tmp_path):
    with pytest.raises(InputError, match=r"digit-lt: no such .* built-in set; did you mean 'digits-lt'\?"):
        open_image_set("digit-lt")
    with pytest.raises(InputError, match=r"set\.h5: no such file or folder; check the path"):
        open_image_set(tmp_path / "set.h5")
    other = tmp_path / "set.npz"
    other.write_bytes(b"PK")
    with pytest.raises(InputError, match="not an image set; expected an HDF5 file"):
        open_image_set(other)


def test_arguments_that_do_not_fit_are_refused(path):
    with pytest.raises(UsageError, match="image_root: only an image list takes a root"):
        open_image_set(path, image_root=path.parent)
    with pytest.raises(UsageError, match="image_size: must be at least 1"):
        open_image_set(path, image_size=0)


def test_digits_are_real_balanced_in_test_and_long_tailed_in_training():
    image_set = open_image_set("digits-lt")
    assert BUILTIN == ("digits-lt",)
    assert image_set.name == "digits-lt"
    assert image_set.class_names == tuple("0123456789")
    train, test = image_set.train, image_set.split("test")
    assert train.counts.tolist() == [120, 82, 56, 38, 26, 18, 12, 8, 5, 4]
    assert test.counts.tolist() == [54] * 10
    assert train.shape == test.shape == (8, 8, 1)
    assert not set(np.asarray(train.ids)) & set(np.asarray(test.ids))
    pixels = test.load(slice(None))
    assert (pixels.min(), pixels.max()) == (0, 255)
    assert len(np.unique(pixels)) == 17
    # Real digits: the nearest class mean of the training images names most test images.
    flat = train.load(slice(None)).reshape(len(train), -1).astype(float)
    means = np.stack([flat[train.labels == c].mean(0) for c in range(10)])
    distance = ((pixels.reshape(len(test), 1, -1) - means) ** 2).sum(-1)
    assert (distance.argmin(1) == test.labels).mean() > 0.8


def test_the_seed_draws_other_digits_but_the_same_test_set():
    first, second = (open_image_set("digits-lt", seed=seed) for seed in (0, 1))
    assert first.split("test").fingerprint() == second.split("test").fingerprint()
    assert not np.array_equal(first.train.ids, second.train.ids)
    assert first.train.counts.tolist() == second.train.counts.tolist()
    assert first.fingerprint() != second.fingerprint()
    assert open_image_set("digits-lt").fingerprint() == first.fingerprint()


def test_digits_take_another_factor_and_shuffled_classes():
    assert open_image_set("digits-lt", imbalance_factor=1).train.counts.tolist() == [120] * 10
    counts = open_image_set("digits-lt", shuffle_classes=True).train.counts.tolist()
    assert counts[0] != 120
    assert sorted(counts)[::-1] == [120, 82, 56, 38, 26, 18, 12, 8, 5, 4]
    with pytest.raises(UsageError, match="use at most 120"):
        open_image_set("digits-lt", imbalance_factor=121)


@pytest.mark.data
def test_cifar10_lt_images(data_dir):
    image_set = open_image_set(data_dir / "cifar10-lt-if100-images.h5")
    assert image_set.train.shape == (32, 32, 3)
    assert image_set.train.counts.tolist() == [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]
    assert image_set.split("test").counts.tolist() == [1000] * 10
    assert image_set.class_names[0] == "airplane"
    # The mean of the public test set, all channels together.
    assert abs(image_set.split("test").load(slice(None)).mean() / 255 - 0.4766) < 0.001


def test_a_file_that_may_not_be_read_is_named(path, monkeypatch):
    def refuse(name, *_, **__):
        raise PermissionError(13, "Permission denied", str(name))

    # Not by the file's mode: for root there is nothing that may not be read.
    monkeypatch.setattr("ldmlr.data.hdf5.h5py.File", refuse)
    with pytest.raises(LdmlrError, match=r"set.h5: permission denied"):
        open_image_set(path)


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["cat", "dog", "owl"], ("cat", "dog", "owl")),
        (["cat", "dog"], ("0", "1", "2")),  # too few: it stands for something else
        (["cat", "dog", "dog"], ("0", "1", "2")),
        ([1, 2, 3], ("0", "1", "2")),
    ],
)
def test_other_programs_call_the_names_classes(tmp_path, names, found):
    path = write(tmp_path / "set.h5", train_images=images(6), train_labels=LABELS)
    with h5py.File(path, "a") as file:
        file["classes"] = names
    assert open_image_set(path).class_names == found
