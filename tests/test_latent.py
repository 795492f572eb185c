"""ldmlr.generation.latent: the model fitted, drawn from, saved and loaded."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from support.blobs import SMALL, blob_store, blobs

import ldmlr
from ldmlr import modelfile
from ldmlr.diffusion import train as training
from ldmlr.diffusion.rows import choose_views
from ldmlr.errors import InputError, UsageError
from ldmlr.store import FeatureStore, SplitData


@pytest.fixture(scope="module")
def model():
    return ldmlr.LatentDiffusion(seed=3, **SMALL).fit(*blobs(), class_names=("a", "b", "c"))


@pytest.fixture
def store(tmp_path):
    return blob_store(tmp_path / "store.h5")


def test_fit_learns_what_it_was_given(model):
    assert model.counts.tolist() == [60, 25, 8]
    assert (model.dim, model.num_classes, model.class_names) == (4, 3, ("a", "b", "c"))
    assert len(model.losses) == 1
    assert model.losses[0] < 2
    features, labels = blobs()
    rows = model.sample(np.repeat([0, 1, 2], 400), scale=1.0, guidance=1.0)
    for number in range(3):
        drawn = rows[400 * number : 400 * (number + 1)]
        assert np.linalg.norm(drawn.mean(0) - features[labels == number].mean(0)) < 0.6


def test_an_untrained_whitened_model_is_the_shared_covariance_gaussian():
    """The last layer starts at zero, so with v-prediction no training leaves the Gaussian sampler."""
    features, labels = blobs((400, 100))
    model = ldmlr.LatentDiffusion(**SMALL).fit(features, labels)
    arrays = model.weights.arrays
    zeros = {name: np.zeros_like(arrays[name]) for name in ("output.weight", "output.bias")}
    model._weights = dataclasses.replace(model.weights, arrays={**arrays, **zeros})
    rows = model.sample(np.zeros(4000, int), solver="dpmpp2m", steps=50, scale=1.0, guidance=1.5)
    expected = model.transform.scale @ model.transform.scale.T
    assert np.abs(np.cov(rows.T) - expected).max() < 0.12 * np.abs(expected).max()


def test_training_improves_on_the_gaussian_where_classes_have_two_modes():
    generator = np.random.default_rng(0)
    side = generator.choice([-3.0, 3.0], 2000)[:, None]
    features = (side + 0.3 * generator.standard_normal((2000, 2))).astype(np.float32)
    model = ldmlr.LatentDiffusion(hidden=64, layers=2, iterations=600, batch_size=256).fit(
        features, np.zeros(2000, int)
    )
    rows = model.sample(np.zeros(2000, int), scale=1.0, guidance=1.0, steps=20)
    middle = (np.abs(rows[:, 0]) < 1.5).mean()
    assert middle < 0.1  # a Gaussian of this width has 38 % there
    assert 0.4 < (rows[:, 0] > 0).mean() < 0.6


def test_training_is_a_function_of_the_seed():
    features, labels = blobs()
    fits = [ldmlr.LatentDiffusion(seed=seed, **SMALL).fit(features, labels) for seed in (1, 1, 2)]
    assert fits[0].fingerprint() == fits[1].fingerprint() != fits[2].fingerprint()


def test_the_random_state_of_the_caller_is_left_alone():
    features, labels = blobs()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    threads = torch.get_num_threads()
    ldmlr.LatentDiffusion(**SMALL).fit(features, labels)
    assert torch.equal(torch.rand(3), expected)
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize(
    "options",
    [
        {"prediction": "eps"},
        {"prediction": "x0"},
        {"noise_schedule": "linear"},
        {"network": "adaln"},
        {"transform": "standardised"},
        {"ema": 0.0, "label_dropout": 0.0, "class_power": 0.0, "warmup_iterations": 0},
        {"class_power": 1.0, "warmup_iterations": 500},
    ],
    ids=lambda options: next(iter(options)) + "-" + str(next(iter(options.values()))),
)
def test_every_variant_trains_and_samples(options):
    model = ldmlr.LatentDiffusion(**SMALL, **options).fit(*blobs())
    rows = model.sample([0, 1, 2, 2])
    assert rows.shape == (4, 4)
    assert np.isfinite(rows).all()


def test_without_label_dropout_there_is_no_guidance():
    """The row of the class table that stands for no class was never trained."""
    model = ldmlr.LatentDiffusion(**SMALL, label_dropout=0.0).fit(*blobs())
    labels = [0, 1, 2, 2]
    assert model.spec().guidance == 1
    assert np.array_equal(model.sample(labels), model.sample(labels, guidance=1.0))
    with pytest.raises(UsageError, match="guidance 2: the model was trained with label_dropout=0"):
        model.sample(labels, guidance=2.0)


def test_tensors_are_taken_and_given_back():
    features, labels = blobs()
    model = ldmlr.LatentDiffusion(**SMALL).fit(torch.from_numpy(features).double(), torch.from_numpy(labels))
    rows = model.sample(torch.tensor([0, 2]), dtype="bfloat16")
    assert isinstance(rows, torch.Tensor)
    assert rows.dtype == torch.bfloat16
    same = ldmlr.LatentDiffusion(**SMALL).fit(features, labels)
    assert np.array_equal(rows.view(torch.uint16).numpy(), same.sample(np.array([0, 2]), dtype="bfloat16"))


def test_views_are_trained_on():
    features, labels = blobs()
    alone = ldmlr.LatentDiffusion(**SMALL).fit(features, labels)
    viewed = ldmlr.LatentDiffusion(**SMALL).fit(features, labels, views=np.stack([features + 1]))
    assert np.allclose(viewed.transform.mean, alone.transform.mean + 0.5, atol=1e-5)
    assert viewed.counts.tolist() == alone.counts.tolist()


def test_class_balanced_draws():
    z, labels = torch.arange(110.0)[:, None], torch.arange(110) // 100
    generator = torch.Generator().manual_seed(0)
    for power, share in ((1.0, 10 / 110), (0.0, 0.5), (0.5, 1 / (1 + 10**0.5))):
        batches = training.Batches(z, labels, np.array([100, 10]), power)
        rows, drawn = batches.draw(20000, generator)
        assert drawn.double().mean().item() == pytest.approx(share, abs=0.02)
        assert torch.equal(rows[:, 0].long() // 100, drawn)


# Saving and loading


def test_a_model_survives_the_file(model, tmp_path):
    path = tmp_path / "model.safetensors"
    model.provenance = {"store": "x.h5"}
    model.save(path)
    loaded = ldmlr.LatentDiffusion.load(path)
    assert loaded.config == model.config
    assert (loaded.seed, loaded.class_names, loaded.losses) == (3, ("a", "b", "c"), model.losses)
    assert (loaded.provenance, loaded.counts.tolist()) == (model.provenance, [60, 25, 8])
    assert loaded.fingerprint() == model.fingerprint()
    labels = np.arange(50) % 3
    assert np.array_equal(loaded.sample(labels, seed=1), model.sample(labels, seed=1))
    again = tmp_path / "again.safetensors"
    loaded.save(again)
    assert again.read_bytes() == path.read_bytes()
    with pytest.raises(UsageError, match="already exists"):
        loaded.save(path, overwrite=False)


# From a store, with resume


def test_views_of_a_store_are_chosen_by_kind(store):
    assert choose_views(store.train.view_kinds, 2, 1) == [0, 1, 2]
    assert choose_views(store.train.view_kinds, 0, 2) == [2, 3]
    assert choose_views(("", "x"), 1, 1) == [0]
    model = ldmlr.LatentDiffusion(**SMALL).fit_store(store)
    features = np.asarray(store.train.features)
    expected = features[store.train.labels == 1].mean(0) + 0.5 / 4
    assert np.allclose(model.transform.mean[1], expected, atol=1e-5)
    assert model.provenance["views"] == 3
    assert model.class_names == ("a", "b", "c")


def test_generated_rows_of_a_store_are_not_trained_on(tmp_path):
    features, labels = blobs()
    source = np.zeros(len(labels), np.uint8)
    source[-20:] = 1
    both = FeatureStore.write(
        tmp_path / "both.h5",
        train=SplitData(
            np.concatenate([features, features + 100]),
            np.concatenate([labels, labels]),
            source=np.repeat([0, 1], len(labels)).astype(np.uint8),
        ),
    )
    alone = FeatureStore.write(tmp_path / "alone.h5", train=SplitData(features, labels))
    models = [ldmlr.LatentDiffusion(**SMALL).fit_store(store) for store in (both, alone)]
    assert models[0].fingerprint() == models[1].fingerprint()


# Trained again


@pytest.mark.parametrize("stop", [KeyboardInterrupt, InputError])
@pytest.mark.parametrize("of_a_store", [False, True])
def test_a_training_that_does_not_end_leaves_the_model_as_it_was(
    store, tmp_path, monkeypatch, stop, of_a_store
):
    model = ldmlr.LatentDiffusion(**SMALL).fit_store(store)
    model.save(tmp_path / "before.safetensors")

    def stopped(*args, **more):
        raise stop("stopped")

    monkeypatch.setattr("ldmlr.generation.training.train", stopped)
    rows = blobs((9, 8, 7, 6), dim=3)
    if of_a_store:
        other = FeatureStore.write(tmp_path / "other.h5", train=SplitData(*rows))
        with pytest.raises(stop):
            model.fit_store(other)
    else:
        with pytest.raises(stop):
            model.fit(*rows, class_names="abcd")
    model.save(tmp_path / "after.safetensors")
    before, after = ((tmp_path / f"{name}.safetensors").read_bytes() for name in ("before", "after"))
    assert before == after
    assert model.sample([0, 1, 2]).shape == (3, 4)


def test_rows_that_come_from_no_store_have_no_provenance(store):
    model = ldmlr.LatentDiffusion(**SMALL).fit_store(store)
    assert model.provenance["rows"] == 93
    assert model.fit(*blobs()).provenance == {}
    assert model.fit_store(store).provenance["fingerprint"] == store.fingerprint()


def test_no_rows(model):
    assert model.sample(np.zeros(0, int)).shape == (0, 4)


def test_rows_are_a_tensor_or_an_array_as_the_labels_are(model):
    labels = np.array([0, 1, 2, 2])
    single = model.sample(labels)
    assert single.dtype == np.float32
    for dtype, kind in (("float16", np.float16), ("bfloat16", np.uint16)):
        array = model.sample(labels, dtype=dtype)
        tensor = model.sample(torch.from_numpy(labels), dtype=dtype)
        assert array.dtype == kind
        assert tensor.dtype == getattr(torch, dtype)
        assert torch.equal(tensor, torch.from_numpy(single).to(tensor.dtype))
        assert np.array_equal(tensor.view(torch.uint16).numpy(), array.view(np.uint16))


@pytest.mark.parametrize(
    ("dim", "latent", "meant"), [(6, "auto", "cholesky"), (6, "4", "eigen"), (70, "auto", "eigen")]
)
def test_a_basis_that_was_called_auto_is_what_it_meant(tmp_path, dim, latent, meant):
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], [60, 30])
    rows = (rng.standard_normal((90, dim)) + labels[:, None]).astype(np.float32)
    options = {} if latent == "auto" else {"latent": latent}
    model = ldmlr.LatentDiffusion(hidden=8, layers=1, iterations=3, basis=meant, **options).fit(rows, labels)
    path = tmp_path / "model.safetensors"
    model.save(path)
    header, tensors = modelfile.read(path, modelfile.DIFFUSION, {})
    assert header["config"]["basis"] == meant
    fields = {**header, "config": {**header["config"], "basis": "auto"}}
    modelfile.write(path, modelfile.DIFFUSION, fields, tensors, overwrite=True)
    again = ldmlr.LatentDiffusion.load(path)
    assert again.config.basis == meant
    np.testing.assert_array_equal(again.sample(labels, seed=1), model.sample(labels, seed=1))
