"""`ldmlr.data.folders`: folders that hold no class folders where they are expected."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from ldmlr.data import open_image_set
from ldmlr.data.files import BadImages
from ldmlr.errors import InputError, UsageError


def save(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 6)).save(path)
    return root


@pytest.mark.parametrize(
    "names",
    [
        ("train/a.png", "test/a.png"),
        ("train/a.png", "val/a.png", "test/a.png"),
        ("Training/a.png", "Validation/a.png"),
        ("train/a.png",),
        ("train/a.png", "test/a.png", "more/a.png"),
        ("train/a.png", "test/cat/a.png", "test/dog/a.png"),
    ],
)
def test_splits_without_classes_are_no_classes(run_cli, tmp_path, names):
    root = save(tmp_path / "set", *names)
    with pytest.raises(InputError, match=r"set: its folders .* are splits without classes; ") as found:
        open_image_set(root)
    assert f"{root}/train/CLASS/*.jpg" in str(found.value)
    assert "\n" not in str(found.value)
    done = run_cli("baseline", root, "--network", "small", "--dry-run")
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done.stderr


def test_one_class_may_have_the_name_of_a_split(tmp_path):
    assert open_image_set(save(tmp_path, "bus/a.png", "train/a.png")).class_names == ("bus", "train")
    both = save(tmp_path / "set", "train/test/a.png", "train/val/a.png", "test/val/a.png")
    assert open_image_set(both).class_names == ("test", "val")


@pytest.mark.parametrize(
    ("train", "test", "val"), [("training", "testing", "validation"), ("Train", "TEST", "valid")]
)
def test_splits_have_other_names_too(tmp_path, train, test, val):
    save(tmp_path, *(f"{split}/{name}/a.png" for split in (train, test, val) for name in ("cat", "dog")))
    images = open_image_set(tmp_path)
    assert [len(images.split(name)) for name in ("train", "test", "val")] == [2, 2, 2]
    assert images.notes == ()


def test_two_folders_for_one_split_are_refused(tmp_path):
    save(tmp_path, "train/a/a.png", "train/b/a.png", "val/a/a.png", "valid/b/a.png")
    with pytest.raises(InputError, match="val and valid are both the val images; keep one, or join them"):
        open_image_set(tmp_path)


def test_what_is_left_out_is_said(tmp_path):
    names = ("train/a/a.png", "train/b/a.png", "test/a/a.png", "extra/a/a.png", "old/b.png")
    root = save(tmp_path / "set", *names)
    (root / "train" / "a" / "b.heic").write_text("")
    (root / "train" / "b" / "labels.csv").write_text("")
    assert open_image_set(root).notes == (
        f"{root}: extra, old beside train are no split and left out; splits are train, test and val",
        f"{root / 'train'}: left out, no images by their ending: 2 files: a/b.heic, b/labels.csv",
        f"{root}: 1 of 2 classes have no test image (b); accuracies are means over the others",
    )


def test_val_as_the_test_set_is_said(tmp_path):
    root = save(tmp_path / "set", "train/a/a.png", "train/b/a.png", "val/a/a.png", "val/b/a.png")
    assert open_image_set(root).notes == (
        f"{root}: has no test split, so val is the test set, and no choice is made on it",
    )


def test_images_may_lie_in_one_folder_more(tmp_path):
    names = ("train/a/images/1.png", "train/b/images/1.png", "train/b/images/2.png")
    images = open_image_set(save(tmp_path, *names))
    assert images.train.ids == ["a/images/1.png", "b/images/1.png", "b/images/2.png"]
    assert images.train.labels.tolist() == [0, 1, 1]


def test_images_in_several_folders_of_a_class_are_explained(tmp_path):
    save(tmp_path, "a/1.png", "b/left/1.png", "b/right/1.png")
    with pytest.raises(InputError, match=r"b: has its images in the folders left, right; .* one level up"):
        open_image_set(tmp_path)


def test_names_of_both_forms_of_unicode_are_one_class(tmp_path):
    composed, apart = "caf\u00e9", "cafe\u0301"
    root = save(tmp_path, f"train/{apart}/1.png", "train/zoo/1.png", f"test/{composed}/1.png")
    images = open_image_set(root)
    assert images.class_names == (composed, "zoo")
    assert images.split("test").labels.tolist() == [0]
    assert images.train.load([0]).shape == (1, 6, 8, 3)
    save(root, f"train/{composed}/2.png")
    both = open_image_set(root).train
    assert both.labels.tolist() == [0, 0, 1]
    assert both.load([0, 1, 2]).shape == (3, 6, 8, 3)


@pytest.fixture
def with_bad(tmp_path):
    """Two classes of two images, of which three more cannot be used."""
    root = save(tmp_path / "set", *(f"{name}/{number}.png" for name in "ab" for number in (1, 2)))
    (root / "a" / "3.png").write_text("no image")
    (root / "b" / "3.jpg").write_bytes((root / "b" / "1.png").read_bytes()[:40])
    (root / "b" / "4.png").symlink_to(root / "gone.png")
    return root


def test_a_link_to_nowhere_is_refused(with_bad):
    with pytest.raises(InputError, match=r"b/4\.png: .* \(a link to .*gone\.png, which is not there\)"):
        open_image_set(with_bad)


def test_all_bad_images_are_listed(with_bad):
    (with_bad / "b" / "4.png").unlink()
    images = open_image_set(with_bad)
    for look in (images.check_images, lambda: images.train.load(slice(None))):
        with pytest.raises(
            BadImages, match=r"2 images cannot be decoded: .*a/3\.png \(.*\), .*b/3\.jpg \(.*\); rep"
        ) as found:
            look()
        assert [Path(image.where).name for image in found.value.images] == ["3.png", "3.jpg"]
        assert "skip_bad=True" in str(found.value)


def test_the_message_names_ten_and_the_error_has_all(tmp_path):
    root = save(tmp_path, "a/1.png", "b/1.png")
    for number in range(2, 15):
        (root / "a" / f"{number}.png").write_text("")
    with pytest.raises(BadImages, match=r"13 images cannot be decoded: .* and 3 more; replace") as found:
        open_image_set(root).check_images()
    assert len(found.value.images) == 13


def test_bad_images_are_left_out_and_recorded(with_bad):
    images = open_image_set(with_bad, skip_bad=True)
    assert images.train.ids == ["a/1.png", "a/2.png", "b/1.png", "b/2.png"]
    skipped = images.provenance["skipped"]
    assert [Path(entry["file"]).name for entry in skipped] == ["4.png", "3.png", "3.jpg"]
    assert all(entry["why"] for entry in skipped)
    assert images.notes[-1] == f"{with_bad}: left out, cannot be decoded: 3 images"
    images.check_images()
    # The rest is as it would be without them.
    for name in ("a/3.png", "b/3.jpg", "b/4.png"):
        (with_bad / name).unlink()
    assert open_image_set(with_bad).fingerprint() == images.fingerprint()


def test_a_class_of_bad_images_alone_is_named(with_bad):
    for name in ("1.png", "2.png"):
        (with_bad / "a" / name).unlink()
    with pytest.raises(InputError, match=r"class 0 \(a\) has no training image"):
        open_image_set(with_bad, skip_bad=True)


def test_missing_images_of_a_list_are_left_out_where_that_is_asked(tmp_path):
    save(tmp_path, "a/1.png", "b/1.png")
    listing = tmp_path / "list_train.txt"
    listing.write_text("a/1.png 0\na/2.png 0\nb/1.png 1\nb/2.png 1\n")
    with pytest.raises(InputError, match=r"line 2: no image .*a/2\.png \(and 1 more of 4\); pass image_root"):
        open_image_set(listing)
    images = open_image_set(listing, skip_bad=True)
    assert images.train.labels.tolist() == [0, 1]
    assert [entry["why"] for entry in images.provenance["skipped"]] == ["no such image"] * 2


def test_a_test_split_is_drawn_of_every_class_and_for_every_seed(tmp_path):
    root = save(tmp_path, *(f"{name}/{number}.png" for name in "abc" for number in range(10)), "c/x.png")
    first, second = (open_image_set(root, test_fraction=0.3, seed=seed) for seed in (0, 1))
    assert first.split("test").counts.tolist() == [3, 3, 3]
    assert first.train.counts.tolist() == [7, 7, 8]
    assert not set(first.train.ids) & set(first.split("test").ids)
    assert first.split("test").ids == second.split("test").ids
    assert first.provenance["test_from"] == "drawn"
    drawn = open_image_set(root, test_fraction=0.3, imbalance_factor=7, seed=3)
    assert drawn.split("test").ids == first.split("test").ids
    assert drawn.train.counts.tolist() == [7, 2, 1]
    with pytest.raises(UsageError, match="test_fraction: must be above 0"):
        open_image_set(root, test_fraction=1)


def test_a_test_split_is_not_drawn_beside_another(tmp_path):
    root = save(tmp_path, *(f"{split}/{name}/1.png" for split in ("train", "test") for name in "ab"))
    with pytest.raises(UsageError, match="has a test split of its own; leave it out"):
        open_image_set(root, test_fraction=0.5)
    single = save(tmp_path / "single", "a/1.png", "b/1.png")
    with pytest.raises(UsageError, match=r"no class of .*single has two images"):
        open_image_set(single, test_fraction=0.5)
