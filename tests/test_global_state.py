"""What the library leaves alone, and what its results do not depend on: random numbers, threads and PyTorch's
settings of the program that calls it.
"""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
import torch
from support.stage3 import write_stores

import ldmlr
from ldmlr.data.open import open_image_set
from ldmlr.diffusion.config import DiffusionConfig
from ldmlr.encoders.baseline import train_baseline
from ldmlr.encoders.config import BaselineConfig, EncodeConfig
from ldmlr.encoders.encode import encode_images
from ldmlr.encoders.encoder import open_encoder
from ldmlr.generation.diffuse import preview
from ldmlr.heads.evaluation import evaluate_store
from ldmlr.heads.headfile import FinetunedHead
from ldmlr.store import FeatureStore


def state() -> tuple[bytes, bytes, int]:
    """Return the states of the global generators, and the number of threads."""
    numbers = np.random.get_state()[1]  # noqa: NPY002  (the state that must stay)
    return bytes(torch.random.get_rng_state().tolist()), numbers.tobytes(), torch.get_num_threads()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_stores(tmp_path_factory.mktemp("stores"))


def test_stages_2_and_3(folder, tmp_path):
    before = state()
    store = FeatureStore.open(folder / "features.h5")
    config = DiffusionConfig(hidden=8, layers=1, iterations=3)
    preview(store, config)
    ldmlr.LatentDiffusion(config).fit_store(store).save(tmp_path / "model.safetensors")
    ldmlr.LatentDiffusion.load(tmp_path / "model.safetensors").sample([0, 1, 2])
    for kind in ("linear", "cosine", "wcdas"):
        ldmlr.finetune(store, head=kind, epochs=1).save(tmp_path / f"{kind}.safetensors")
        head = FinetunedHead.load(tmp_path / f"{kind}.safetensors")
        evaluate_store(store, [(kind, head)])
    assert state() == before


def test_stage_1(tmp_path):
    before = state()
    images = open_image_set("digits-lt")
    config = BaselineConfig(network="small", epochs=1, head_epochs=1)
    train_baseline(images, config, tmp_path / "base")
    encoder = open_encoder(str(tmp_path / "base"), images, EncodeConfig())
    encode_images(encoder, images, tmp_path / "features.h5", EncodeConfig(views=1))
    assert state() == before


@contextlib.contextmanager
def default_dtype(dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@pytest.mark.parametrize(
    "setting",
    [
        torch.no_grad,
        torch.inference_mode,
        lambda: default_dtype(torch.float64),
        lambda: torch.autocast("cpu", torch.bfloat16),
    ],
    ids=["no_grad", "inference_mode", "float64", "autocast"],
)
def test_results_do_not_depend_on_settings_of_pytorch(folder, tmp_path, setting):
    store = FeatureStore.open(folder / "features.h5")
    images = open_image_set("digits-lt")

    def results(where):
        model = ldmlr.LatentDiffusion(hidden=8, layers=1, iterations=3).fit_store(store)
        rows = model.sample([0, 1, 2], backend="reference")
        head = ldmlr.finetune(store, head="linear", epochs=1)
        config = BaselineConfig(network="small", epochs=1, head_epochs=1)
        train_baseline(images, config, where / "base")
        encoder = open_encoder(str(where / "base"), images, EncodeConfig())
        encode_images(encoder, images, where / "features.h5", EncodeConfig(views=1))
        encoded = FeatureStore.open(where / "features.h5").train.features
        return rows, head.logits(np.asarray(store.train.features)), np.asarray(encoded)

    expected = results(tmp_path / "plain")
    with setting():
        found = results(tmp_path / "set")
    for one, other in zip(expected, found, strict=True):
        assert np.array_equal(one, other)
