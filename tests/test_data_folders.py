"""`ldmlr.data.folders`: folders that hold no class folders where they are expected."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from ldmlr.data import open_image_set
from ldmlr.errors import InputError


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
