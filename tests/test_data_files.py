"""`ldmlr.data.files` and `folders`, images in files of their own, a folder per class."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps
from support.photos import save, write_pets

from ldmlr.data import FileSplit, open_image_set
from ldmlr.errors import InputError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_pets(tmp_path)


def test_a_folder_per_class(root):
    image_set = open_image_set(root)
    assert image_set.name == "pets"
    assert image_set.class_names == ("cat", "dog")
    assert image_set.test is None
    train = image_set.train
    assert isinstance(train, FileSplit)
    assert train.ids == ["cat/a.png", "cat/b.png", "cat/c.png", "dog/a.png", "dog/b.png"]
    assert train.labels.tolist() == [0, 0, 0, 1, 1]
    assert train.shape == (6, 8, 3)
    images = train.load([4, 0, 1])
    assert images.dtype == np.uint8
    assert images.shape == (3, 6, 8, 3)
    assert images[:, 2, 2].tolist() == [[110, 4, 0], [0, 0, 0], [10, 1, 0]]
    assert np.array_equal(train.load(slice(3, 5)), train.load(np.array([3, 4])))
    assert np.array_equal(train.load([-1]), train.load([4]))
    assert train.load([]).shape == (0, 6, 8, 3)


def test_splits_in_folders(tmp_path):
    for split, classes in (("train", "abc"), ("test", "ac"), ("val", "abc")):
        for name in classes:
            save(tmp_path / split / name / "x.png")
    image_set = open_image_set(tmp_path)
    assert image_set.class_names == ("a", "b", "c")
    assert image_set.split("train").labels.tolist() == [0, 1, 2]
    assert image_set.split("test").labels.tolist() == [0, 2]
    assert image_set.split("test").counts.tolist() == [1, 0, 1]
    assert image_set.split("val").ids == ["a/x.png", "b/x.png", "c/x.png"]
    assert image_set.provenance["test_from"] == "test"


def test_val_folder_alone_is_the_test_set(tmp_path):
    for split in ("train", "val"):
        for name in "ab":
            save(tmp_path / split / name / "x.png")
    image_set = open_image_set(tmp_path)
    assert image_set.val is None
    assert image_set.test is not None
    assert image_set.provenance["test_from"] == "val"


def test_a_class_may_be_called_train(tmp_path):
    save(tmp_path / "train" / "x.png")
    save(tmp_path / "bus" / "x.png")
    assert open_image_set(tmp_path).class_names == ("bus", "train")


def test_other_files_are_left_alone(root):
    (root / "README.md").write_text("text")
    (root / ".cache").mkdir()
    (root / "cat" / "Thumbs.db").write_text("text")
    (root / "cat" / "._a.png").write_text("text")
    (root / "cat" / "more").mkdir()
    assert len(open_image_set(root).train) == 5


def test_any_number_of_threads_loads_the_same(root):
    train = open_image_set(root).train
    assert isinstance(train, FileSplit)
    rows = [4, 1, 1, 3, 0, 2]
    parallel = train.load(rows)
    train.threads = 1
    assert np.array_equal(parallel, train.load(rows))


def test_a_split_travels_to_another_process(root):
    train = open_image_set(root, image_size=4).train
    train.load([0, 1])
    assert np.array_equal(pickle.loads(pickle.dumps(train)).load([0, 1]), train.load([0, 1]))


@pytest.mark.parametrize(
    ("mode", "value", "expected"),
    [
        ("L", 90, [90, 90, 90]),
        ("RGBA", (10, 20, 30, 0), [10, 20, 30]),
        ("LA", (90, 5), [90, 90, 90]),
        ("1", 1, [255, 255, 255]),
        ("I;16", 90 * 256 + 77, [90, 90, 90]),
        ("P", 0, [0, 0, 0]),
    ],
)
def test_every_kind_of_pixel_becomes_rgb(root, mode, value, expected):
    save(root / "cat" / "a.png", value, mode=mode)
    assert open_image_set(root).train.load([0])[0, 3, 3].tolist() == expected


def test_a_palette_with_transparency_is_read_without_a_warning(root):
    image = Image.new("P", (8, 6), 1)
    image.putpalette([0, 0, 0, 7, 8, 9])
    image.save(root / "cat" / "a.png", transparency=b"\x00\x80")
    assert open_image_set(root).train.load([0])[0, 0, 0].tolist() == [7, 8, 9]


def test_cmyk_jpeg_is_read(root):
    save(root / "cat" / "a.jpg", (0, 0, 0, 0), mode="CMYK")
    train = open_image_set(root).train
    assert train.ids[0] == "cat/a.jpg"
    assert np.all(train.load([0]) >= 253)


@pytest.mark.parametrize("size", [None, 6])
@pytest.mark.parametrize("ending", ["jpg", "png", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_turned_as_the_orientation_tag_says(root, orientation, ending, size):
    pixels = np.zeros((6, 8, 3), np.uint8)
    pixels[:3, :4] = 255  # the upper left corner as it is stored
    exif = Image.Exif()
    exif[274] = orientation
    path = root / "cat" / f"0.{ending}"
    Image.fromarray(pixels).save(
        path, exif=exif, **({"quality": 95} if ending == "jpg" else {"lossless": True})
    )
    expected = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
    train = open_image_set(root, image_size=size).train
    found = train.load([0])[0]
    if size is None:
        assert np.array_equal(found, np.asarray(expected))
        assert train.shape == (None if orientation >= 5 else (6, 8, 3))
    else:
        assert found.shape == (6, 6, 3)
    corners = {1: (0, 0), 2: (0, -1), 3: (-1, -1), 4: (-1, 0), 5: (0, 0), 6: (0, -1), 7: (-1, -1), 8: (-1, 0)}
    bright = {c for c in ((0, 0), (0, -1), (-1, -1), (-1, 0)) if found[c][0] > 128}
    assert bright == {corners[orientation]}


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_a_damaged_orientation_tag_is_none(root):
    path = root / "cat" / "a.jpg"
    Image.new("RGB", (8, 6)).save(path, exif=b"Exif\0\0II*\0\xff\xff\xff\x7f")
    assert open_image_set(root).train.load([0]).shape == (1, 6, 8, 3)


def test_image_size_takes_the_centre_of_the_shorter_side(root):
    pixels = np.zeros((20, 40, 3), np.uint8)
    pixels[:, 10:30] = 200
    Image.fromarray(pixels).save(root / "cat" / "a.png")
    Image.fromarray(pixels.transpose(1, 0, 2)).save(root / "cat" / "b.png")
    train = open_image_set(root, image_size=20).train
    assert train.shape == (20, 20, 3)
    assert np.all(train.load([0, 1]) == 200)
    assert open_image_set(root, image_size=5).train.load([0, 1]).shape == (2, 5, 5, 3)
    assert open_image_set(root, image_size=33).train.load([0, 3]).shape == (2, 33, 33, 3)


def test_a_large_jpeg_shrinks_to_what_a_full_decode_gives(root):
    y, x = np.mgrid[0:400, 0:500]
    pixels = np.stack([128 + 100 * np.sin(x / 60), 128 + 100 * np.cos(y / 50), (x + y) / 4], -1).astype(
        np.uint8
    )
    Image.fromarray(pixels).save(root / "cat" / "a.jpg", quality=95)
    Image.fromarray(pixels).save(root / "cat" / "a.png")
    jpeg, png = open_image_set(root, image_size=32).train.load([0, 1]).astype(int)
    assert np.abs(jpeg - png).mean() < 2


def test_sizes_that_differ_need_an_image_size(root):
    save(root / "dog" / "b.png", size=(9, 6))
    train = open_image_set(root).train
    assert train.shape is None
    assert train.load([0, 1]).shape == (2, 6, 8, 3)
    with pytest.raises(InputError, match=r"dog/b\.png: the images .*: 8x6 \(4\), 9x6 \(1\); .* image_size=6"):
        train.load([0, 4])
    assert open_image_set(root, image_size=6).train.load([0, 4]).shape == (2, 6, 6, 3)


def damage(path: Path, how: str) -> None:
    if how == "text":
        path.write_text("no image")
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "gone":
        path.unlink()
    elif how == "float":
        Image.new("F", (8, 6)).save(path, format="TIFF")
    else:
        pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
        Image.fromarray(pixels).save(path, format=how)
        path.write_bytes(path.read_bytes()[:900])


@pytest.mark.parametrize(
    ("how", "reason"),
    [("text", "not an image that Pillow can read"), ("empty", "not an image"), ("gone", "No such file"),
     ("float", "floating-point pixels; save it with 8 bits"), ("JPEG", ".*truncated"), ("PNG", ".+"),
     ("BMP", ".*truncated"), ("TIFF", ".+"), ("GIF", ".*truncated"), ("WEBP", ".+")],
)  # fmt: skip
def test_a_damaged_image_is_named(root, how, reason):
    train = open_image_set(root).train
    damage(root / "dog" / "a.png", how)
    for image_set in (train, open_image_set(root, image_size=4).train if how != "gone" else train):
        with pytest.raises(
            InputError, match=rf"dog/a\.png: cannot be decoded \({reason}.*\); replace"
        ) as caught:
            image_set.load([0, 3])
        assert "\n" not in str(caught.value)


def test_a_huge_image_is_named(root, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(InputError, match=r"cat/a\.png: cannot be decoded \(.*pixels.*\)"):
        open_image_set(root).train.load([0])


def test_folder_mistakes_are_named(root, tmp_path):
    (root / "eel").mkdir()
    with pytest.raises(
        InputError, match=r"pets/eel: no image in this class folder; expected .*pets/CLASS/\*\.jpg"
    ):
        open_image_set(root)
    (tmp_path / "flat").mkdir()
    save(tmp_path / "flat" / "a.png")
    with pytest.raises(InputError, match=r"flat: no class folders in it; expected .*flat/CLASS/\*\.jpg"):
        open_image_set(tmp_path / "flat")
    save(tmp_path / "one" / "cat" / "a.png")
    with pytest.raises(InputError, match="one: only 1 class; a classifier needs at least two"):
        open_image_set(tmp_path / "one")


@pytest.mark.parametrize("name", [b"d\xf6g/a.png", b"dog/\xe9.png"])
def test_a_name_that_is_no_text_is_named(root, name):
    path = os.path.join(os.fsencode(root), name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    (root / "cat" / "a.png").rename(os.fsdecode(path))
    with pytest.raises(InputError, match=r"is no name in UTF-8; rename it"):
        open_image_set(root)


def test_a_test_class_that_training_lacks_is_named(tmp_path):
    for name in ("train/cat", "train/dog", "test/cat", "test/dgo"):
        save(tmp_path / name / "x.png")
    with pytest.raises(InputError, match=r"test/dgo: no such class under .*train \(did you mean 'dog'\?\)"):
        open_image_set(tmp_path)


def test_fingerprint_follows_names_and_lengths(root, tmp_path):
    first = open_image_set(root).fingerprint()
    assert open_image_set(root.rename(tmp_path / "moved")).fingerprint() == first
    moved = tmp_path / "moved"
    assert open_image_set(moved, image_size=4).fingerprint() != first
    os.rename(moved / "cat" / "a.png", moved / "cat" / "aa.png")
    renamed = open_image_set(moved).fingerprint()
    assert renamed != first
    with (moved / "cat" / "aa.png").open("ab") as file:
        file.write(b"x")
    assert open_image_set(moved).fingerprint() not in (first, renamed)


def test_draw_from_folders_is_reproduced_from_its_indices(tmp_path):
    for name in "abc":
        for i in range(8):
            save(tmp_path / "set" / name / f"{i}.png", i)
    image_set = open_image_set(tmp_path / "set", imbalance_factor=4, seed=1)
    assert image_set.train.counts.tolist() == [8, 4, 2]
    assert image_set.draw is not None
    image_set.draw.save(tmp_path / "indices.json")
    again = open_image_set(tmp_path / "set", indices=tmp_path / "indices.json", image_size=4)
    assert again.train.ids == image_set.train.ids
    save(tmp_path / "set" / "a" / "new.png")
    with pytest.raises(InputError, match="not the training images of the saved draw"):
        open_image_set(tmp_path / "set", indices=tmp_path / "indices.json")
