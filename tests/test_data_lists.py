"""`ldmlr.data.lists`, images that a list names, with their labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.photos import save, write_pets

from ldmlr.data import open_image_set
from ldmlr.errors import InputError, UsageError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_pets(tmp_path)


@pytest.fixture
def listing(root: Path) -> Path:
    """Return a training list beside the images, with a test list of its own."""
    path = root / "Pets_LT_train.txt"
    path.write_text("cat/a.png 0\n\ndog/a.png 1\n  cat/b.png\t0  \n")
    (root / "Pets_LT_test.txt").write_text("cat/c.png 0\ndog/b.png 1\n")
    return path


def test_a_list_and_its_sibling(root, listing):
    image_set = open_image_set(listing)
    assert image_set.name == "Pets_LT_train"
    assert image_set.class_names == ("0", "1")
    assert image_set.train.ids == ["cat/a.png", "dog/a.png", "cat/b.png"]
    assert image_set.train.labels.tolist() == [0, 1, 0]
    assert image_set.train.load([1])[0, 0, 0].tolist() == [100, 3, 0]
    assert image_set.split("test").ids == ["cat/c.png", "dog/b.png"]
    assert image_set.val is None
    (root / "Pets_LT_val.txt").write_text("cat/c.png 0\n")
    assert open_image_set(listing).split("val").labels.tolist() == [0]


def test_a_list_may_begin_with_a_byte_order_mark(root, listing):
    expected = open_image_set(listing, image_root=root).train.ids
    listing.write_text("\ufeff" + listing.read_text(), encoding="utf-8")
    assert open_image_set(listing, image_root=root).train.ids == expected


def test_a_val_list_alone_is_the_test_set(root, listing):
    (root / "Pets_LT_test.txt").rename(root / "Pets_LT_val.txt")
    image_set = open_image_set(listing)
    assert image_set.val is None
    assert image_set.split("test").labels.tolist() == [0, 1]


def test_a_list_without_train_in_its_name_stands_alone(root, listing):
    assert open_image_set(listing.rename(root / "all.txt")).test is None


def test_the_image_root_may_lie_elsewhere(root, listing, tmp_path):
    moved = listing.rename(tmp_path / "list_train.txt")
    with pytest.raises(
        InputError,
        match=r"list_train\.txt: line 1: no image .*/cat/a\.png \(and 2 more of 3\); pass image_root",
    ):
        open_image_set(moved)
    assert len(open_image_set(moved, image_root=root).train) == 3
    with pytest.raises(InputError, match=r"line 1: no image .*dog/cat/a\.png \(.*\); check image_root"):
        open_image_set(moved, image_root=root / "dog")
    with pytest.raises(InputError, match="nowhere: no such image root"):
        open_image_set(moved, image_root=root / "nowhere")
    with pytest.raises(InputError, match="the image root is not a folder"):
        open_image_set(moved, image_root=listing.with_name("Pets_LT_test.txt"))


def test_a_path_may_hold_spaces(root):
    save(root / "black cat" / "a 1.png", 7)
    (root / "train.txt").write_text("black cat/a 1.png 0\ndog/a.png 1\n")
    assert open_image_set(root / "train.txt").train.load([0])[0, 0, 0, 0] == 7


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the list is empty"),
        ("\n \n", "the list is empty"),
        ("cat/a.png 0\ncat/b.png\n", r"line 2: 'cat/b\.png' is not `path label`"),
        ("cat/a.png,0\n", r"line 1: 'cat/a\.png,0' is not `path label`"),
        ("cat/a.png 0.0\n", "line 1: .* is not `path label`: path, space, whole"),
        ("cat/a.png -1\n", "line 1: .* is not `path label`: path, space, whole"),
        ("cat/a.png cat\n", "line 1: .* is not `path label`: path, space, whole"),
        ("cat/a.png ²\n", "line 1: .* is not `path label`: path, space, whole"),
        ("x" * 100, r"line 1: 'x{57}\.\.\.' is not"),
        ("cat/a.png 0\ndog/a.png 2\n", "no training image has label 1, but one has 2"),
        ("cat/a.png 1\ndog/a.png 2\n", "no training image has label 0"),
        ("cat/a.png 0\ndog/a.png 99999999999999999999\n", "no training image has label 1"),
        ("cat/a.png 0\n", "only 1 class"),
        ("cat/a.png 0\ncat/z.png 1\n", r"line 2: no image .*cat/z\.png"),
        ("cat/a.png 0\ncat 1\n", r"line 2: .*pets/cat is no image file"),
        ("cat/a.png 0\nc\0at 1\n", "line 2: no image"),
    ],
)
def test_list_mistakes_name_the_line(root, text, message):
    path = root / "train.txt"
    path.write_text(text)
    with pytest.raises(InputError, match=rf"train\.txt: {message}") as caught:
        open_image_set(path)
    assert "\n" not in str(caught.value)


def test_mistakes_in_the_sibling_list_name_it(root, listing):
    (root / "Pets_LT_test.txt").write_text("cat/a.png 0\ncat/b.png 2\n")
    with pytest.raises(InputError, match=r"Pets_LT_test\.txt: line 2: label 2 is out of range; .* 0 \.\. 1"):
        open_image_set(listing)


def test_a_binary_list_is_named(root):
    (root / "train.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"train\.txt: not a text file in UTF-8"):
        open_image_set(root / "train.txt")


def test_a_listed_image_that_does_not_decode_is_named_with_its_line(root, listing):
    (root / "cat" / "b.png").write_text("no image")
    for train in (open_image_set(listing).train, open_image_set(listing).train.subset(np.array([0, 2]))):
        with pytest.raises(
            InputError,
            match=r"Pets_LT_train\.txt: line 4: .*cat/b\.png: cannot be decoded .*take it out of the list",
        ):
            train.load([0, len(train) - 1])


def test_draw_from_a_list(root, listing):
    image_set = open_image_set(listing, imbalance_factor=2)
    assert image_set.train.counts.tolist() == [2, 1]
    with pytest.raises(UsageError, match="imbalance_factor: 3 leaves a class without a row"):
        open_image_set(listing, imbalance_factor=3)
