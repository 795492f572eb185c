"""Image sets in HDF5 as small files, without loss, to carry them to another machine; and back.

Each pixel is predicted from its neighbours to the left, above, and above to the left (the median predictor
of JPEG-LS, Weinberger et al., 2000), red and blue less green; what is left goes through xz. CIFAR's images
end at about half of their bytes, where gzip, as HDF5 has it, leaves 0.86. Packing takes a minute or two.

    python benchmarks/pack_images.py pack cifar10-lt-if100-images.h5 c10.xz
    python benchmarks/pack_images.py pack cifar10-lt-if100-images.h5 c10.xz --without test
    python benchmarks/pack_images.py unpack c10.xz images.h5
"""

from __future__ import annotations

import argparse
import io
import lzma
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 9, "lc": 4, "lp": 0, "pb": 0}]
SPLITS = ("train", "val", "test")


def predicted(left: npt.NDArray, above: npt.NDArray, corner: npt.NDArray) -> npt.NDArray:
    """Return the median predictor: the smaller or larger neighbour at an edge, else a plane through three.

    Parameters
    ----------
    left, above, corner
        Neighbours, int16 of one shape; 0 beyond the border.
    """
    low, high = np.minimum(left, above), np.maximum(left, above)
    return np.where(corner >= high, low, np.where(corner <= low, high, left + above - corner))


def residuals(images: Pixels) -> Pixels:
    """Return what prediction leaves of images ``[N, H, W, C]``, as planes ``[C, N, H, W]``."""
    planes = np.moveaxis(images, 3, 0).copy()
    if len(planes) == 3:
        planes[[0, 2]] -= planes[1]  # modulo 256, as all arithmetic here
    found = np.empty_like(planes)
    for plane, left_over in zip(planes, found, strict=True):
        padded = np.pad(plane.astype(np.int16), ((0, 0), (1, 0), (1, 0)))
        guess = predicted(padded[:, 1:, :-1], padded[:, :-1, 1:], padded[:, :-1, :-1])
        left_over[...] = (plane - guess) & 255
    return found


def restored(planes: Pixels) -> Pixels:
    """Return the images ``[N, H, W, C]`` that `residuals` were made of."""
    _, _, height, width = planes.shape
    found = np.empty_like(planes)
    for left_over, plane in zip(planes, found, strict=True):
        # Pixel by pixel for all images at once: a prediction needs those before it.
        padded = np.zeros((height + 1, width + 1, len(plane)), np.int16)
        for row in range(height):
            for column in range(width):
                guess = predicted(padded[row + 1, column], padded[row, column + 1], padded[row, column])
                padded[row + 1, column + 1] = (left_over[:, row, column] + guess) & 255
        plane[...] = np.moveaxis(padded[1:, 1:], 2, 0)
    if len(found) == 3:
        found[[0, 2]] += found[1]
    return np.moveaxis(found, 0, 3).copy()


def pack(source: Path, target: Path, without: Sequence[str] = ()) -> None:
    """Write the splits of an image set, but some, as one small file."""
    arrays: dict[str, npt.NDArray] = {}
    with h5py.File(source) as file:
        for split in SPLITS:
            if split in file and split not in without:
                arrays[f"{split}/images"] = residuals(file[f"{split}/images"][()])
                arrays[f"{split}/labels"] = file[f"{split}/labels"][()]
        if "class_names" in file:
            arrays["class_names"] = np.array(file["class_names"].asstr()[()], dtype=np.str_)
    with lzma.open(target, "wb", format=lzma.FORMAT_XZ, filters=FILTERS) as packed:
        np.savez(packed, **arrays)


def unpack(source: Path, target: Path) -> None:
    """Write an image set again."""
    with lzma.open(source) as packed:
        arrays = np.load(io.BytesIO(packed.read()), allow_pickle=False)
    with h5py.File(target, "w") as file:
        for name in arrays.files:
            values = arrays[name]
            if name == "class_names":
                file.create_dataset(name, data=[str(word) for word in values], dtype=h5py.string_dtype())
            else:
                file[name] = restored(values) if name.endswith("/images") else values


def main() -> None:
    """Pack or unpack, and say how large the files are."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("way", choices=("pack", "unpack"))
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument(
        "--without", action="append", default=[], choices=SPLITS, help="pack without this split (repeatable)"
    )
    arguments = parser.parse_args()
    if arguments.way == "pack":
        pack(arguments.source, arguments.target, arguments.without)
    else:
        unpack(arguments.source, arguments.target)
    before, after = (path.stat().st_size / 2**20 for path in (arguments.source, arguments.target))
    print(f"{arguments.target}: {after:.1f} MiB, from {before:.1f}")


if __name__ == "__main__":
    main()
