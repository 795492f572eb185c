"""The built-in set ``digits-lt``: real handwritten digits, long-tailed, without a download.

The optical digits of Alpaydin and Kaynak (UCI), as bundled with scikit-learn: 8 x 8 pixels with
17 grey levels, about 180 per class. A fixed choice of 54 images per class is the test set and
120 others per class are the pool that the seed draws the long-tailed training set from.
"""

from __future__ import annotations

import numpy as np

from ldmlr.data.images import ArraySplit

TEST_PER_CLASS = 54
TRAIN_PER_CLASS = 120
# 120 images of the digit 0 down to 4 of the digit 9.
IMBALANCE_FACTOR = 30.0
_SPLIT_SEED = 0


def read_digits(image_size: int | None = None) -> tuple[dict[str, ArraySplit], tuple[str, ...]]:
    """Return the balanced pool (``train``), the balanced ``test`` set and the class names."""
    from sklearn.datasets import load_digits

    bundle = load_digits()
    images = np.rint(bundle.images * (255 / 16)).astype(np.uint8)[..., np.newaxis]
    target = bundle.target.astype(np.int64)
    words = np.random.PCG64(_SPLIT_SEED).random_raw(len(target))
    test, train = [], []
    for c in range(10):
        rows = np.flatnonzero(target == c)
        rows = rows[np.argsort(words[rows], kind="stable")]
        test.append(rows[:TEST_PER_CLASS])
        train.append(rows[TEST_PER_CLASS : TEST_PER_CLASS + TRAIN_PER_CLASS])
    splits = {}
    for name, chosen in (("train", train), ("test", test)):
        rows = np.sort(np.concatenate(chosen))
        splits[name] = ArraySplit(images[rows], target[rows], 10, ids=rows, image_size=image_size)
    return splits, tuple(str(digit) for digit in range(10))
