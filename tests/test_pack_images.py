"""`benchmarks/pack_images.py`: image sets come back to the bit, photographs at half their size."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent


def run(*arguments: object) -> None:
    command = [sys.executable, ROOT / "benchmarks" / "pack_images.py", *arguments]
    subprocess.run([str(part) for part in command], check=True, capture_output=True)


def smooth(count: int, height: int, width: int, channels: int) -> np.ndarray:
    """Pictures with edges and little noise, black and white borders included."""
    draw = np.random.default_rng(0)
    rows, columns = np.mgrid[:height, :width]
    slope = draw.uniform(-9, 9, (count, 2, 1, 1))
    base = draw.uniform(0, 255, (count, 1, 1)) + slope[:, 0] * rows + slope[:, 1] * columns
    picture = base[..., None] + draw.normal(0, 2, (count, height, width, channels))
    return np.clip(picture, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("shape", [(40, 32, 32, 3), (7, 5, 9, 1), (1, 1, 1, 3)])
def test_image_sets_come_back_to_the_bit(tmp_path: Path, shape: tuple[int, int, int, int]) -> None:
    draw = np.random.default_rng(1)
    sets = {"train": smooth(*shape), "test": draw.integers(0, 256, shape, np.uint8)}
    with h5py.File(tmp_path / "images.h5", "w") as file:
        for split, images in sets.items():
            file[f"{split}/images"] = images
            file[f"{split}/labels"] = np.arange(len(images)) % 2
        file.create_dataset("class_names", data=["cat", "hound"], dtype=h5py.string_dtype())
    run("pack", tmp_path / "images.h5", tmp_path / "packed.xz")
    run("unpack", tmp_path / "packed.xz", tmp_path / "again.h5")
    with h5py.File(tmp_path / "again.h5") as file:
        for split, images in sets.items():
            found = file[f"{split}/images"][()]
            assert found.dtype == np.uint8
            assert np.array_equal(found, images)
            assert np.array_equal(file[f"{split}/labels"][()], np.arange(len(images)) % 2)
        assert list(file["class_names"].asstr()[()]) == ["cat", "hound"]


def test_smooth_pictures_become_small_and_a_split_can_stay_behind(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "images.h5", "w") as file:
        for split in ("train", "test"):
            file[f"{split}/images"] = smooth(200, 32, 32, 3)
            file[f"{split}/labels"] = np.arange(200) % 2
    run("pack", tmp_path / "images.h5", tmp_path / "packed.xz", "--without", "test")
    assert (tmp_path / "packed.xz").stat().st_size < 0.5 * 200 * 32 * 32 * 3
    run("unpack", tmp_path / "packed.xz", tmp_path / "again.h5")
    with h5py.File(tmp_path / "again.h5") as file:
        assert list(file) == ["train"]
