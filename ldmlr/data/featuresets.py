"""Built-in sets whose features are ready: nothing is encoded, so they are feature stores at once.

``digits-pixels-lt``: the images of ``digits-lt`` (seed 0), each as the 64 grey values it consists of. No
encoder has seen them, which makes it the other half of the demonstration: rows of ``digits-lt`` come from a
network that was trained on them.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ldmlr.data.images import ImageSplit
from ldmlr.data.open import BUILTIN, open_image_set
from ldmlr.errors import UsageError, opt
from ldmlr.files import make_folder
from ldmlr.remote import as_path
from ldmlr.store import FeatureStore, SplitData
from ldmlr.store.convert.config import SourceConfig
from ldmlr.store.convert.ready import FOLDER, Ready, is_copy, ready_store

FEATURE_SETS = ("digits-pixels-lt",)
_SEED = 0


def ready_set(name: str, folder: Path) -> Ready:
    """Return a built-in set as a feature store in the folder ``converted`` of an output.

    Parameters
    ----------
    name
        One of `FEATURE_SETS`.
    folder
        That of the output.
    """
    path = as_path(folder) / FOLDER / f"{name}.h5"
    images = open_image_set("digits-lt", seed=_SEED)
    assert images.test is not None
    config = {"builtin": name, "images": images.fingerprint(), "encoder_trained_on_rows": False}
    if is_copy(path, config):
        return Ready(Path(name), path, before=True)
    make_folder(path.parent)
    FeatureStore.write(
        path, train=_rows(images.train), test=_rows(images.test), class_names=images.class_names,
        encoder="none: 8 x 8 grey values from 0 to 1", config=config, overwrite=True,
    ).close()  # fmt: skip
    return Ready(Path(name), path)


def ready_source(source: str | Path, folder: Path, keys: SourceConfig | None = None) -> Ready:
    """Return a built-in set of features, or features in any form, as a feature store.

    Parameters
    ----------
    source, folder, keys
        As `ldmlr.store.convert.ready.ready_store` takes them.

    Raises
    ------
    UsageError
        A built-in set of images, or keys for one of features.
    """
    if str(source) in BUILTIN and not as_path(source).exists():
        raise UsageError(
            f"{source}: is a built-in set of images, and features are expected; ldmlr run {source} takes it "
            f"and keeps its features, and {FEATURE_SETS[0]} has features"
        )
    if str(source) not in FEATURE_SETS:
        return ready_store(source, folder, keys)
    if keys is not None and keys != SourceConfig():
        raise UsageError(
            f"{source}: is a built-in set with features of its own; leave out {opt('features_key')}"
        )
    return ready_set(str(source), folder)


def _rows(split: ImageSplit) -> SplitData:
    pixels, labels = split.load(np.arange(len(split))), np.asarray(split.labels)
    features = (pixels.reshape(len(pixels), -1) / 255).astype(np.float32)
    return SplitData(features, labels, ids=np.asarray(split.ids))
