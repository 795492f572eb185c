"""Objects show themselves on one short line."""

from __future__ import annotations

import numpy as np
import pytest

import ldmlr
from ldmlr.data import open_image_set
from ldmlr.encoders.baseline import train_baseline
from ldmlr.encoders.config import BaselineConfig
from ldmlr.encoders.model import Baseline
from ldmlr.store import FeatureStore, SplitData


@pytest.fixture
def store(tmp_path):
    labels = np.repeat([0, 1], [40, 10])
    rows = np.random.default_rng(0).standard_normal((50, 4)).astype(np.float32) + 3 * labels[:, None]
    data = SplitData(rows.astype(np.float32), labels)
    return FeatureStore.write(tmp_path / "f.h5", train=data, test=data)


def test_a_diffusion_model_shows_what_is_not_the_default(store):
    model = ldmlr.LatentDiffusion(hidden=16, layers=1, iterations=5, seed=3)
    assert repr(model) == "LatentDiffusion(hidden=16, layers=1, iterations=5, seed=3; not trained)"
    model.fit_store(store)
    assert repr(model).endswith("seed=3; trained on 50 rows of 2 classes)")


def test_a_head_shows_its_size_and_its_rows(store):
    pseudo = (np.zeros((3, 4), np.float32), np.array([1, 1, 1]))
    head = ldmlr.finetune(store, pseudo, head="linear", epochs=1)
    assert repr(head) == (
        "FinetunedHead(linear, 4 dimensions to 2 classes; trained on 50 encoded and 3 generated rows, seed 0)"
    )
    assert "\n" not in repr(head)


def test_images_stores_and_baselines_show_their_sizes(store, image_file, tmp_path):
    assert (
        repr(open_image_set("digits-lt")) == "ImageSet('digits-lt': train 369, test 540 images, 10 classes)"
    )
    assert repr(store) == f"FeatureStore({str(store.path)!r}: train 50, test 50 rows, dim 4, 2 classes)"
    images = open_image_set(image_file)
    train_baseline(images, BaselineConfig(network="small", epochs=1, precision="float32"), tmp_path / "out")
    shown = repr(Baseline.load(tmp_path / "out" / "model.safetensors"))
    assert shown == f"Baseline(small, images 8 x 8 x 3, 64 dimensions, {images.num_classes} classes)"
