"""Dimensions with many zeros keep their zeros and class means (ldmlr.diffusion.zeros), in every backend."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

import ldmlr
from ldmlr import modelfile
from ldmlr.diffusion.zeros import bent
from ldmlr.errors import InputError
from ldmlr.generation.latentfile import HEADER
from ldmlr.sampler.config import SampleConfig

DIM, COUNTS, DRAWN = 40, (1500, 600, 250), 3000
ZEROS = np.arange(DIM) >= 4  # the first four dimensions are of both signs


def rows_of(counts: tuple[int, ...], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return rows behind a ReLU: correlated normals that are cut, a third to two thirds of them zero."""
    fixed, generator = np.random.default_rng(0), np.random.default_rng(seed)
    mixing, centres = fixed.normal(size=(DIM, 6)) / 2, fixed.normal(size=(len(counts), DIM)) / 3
    labels = np.repeat(np.arange(len(counts)), counts)
    z = generator.normal(size=(len(labels), 6)) @ mixing.T + 0.7 * generator.normal(size=(len(labels), DIM))
    rows = centres[labels] + z
    rows[:, ZEROS] = np.maximum(rows[:, ZEROS], 0)
    return rows.astype(np.float32), labels


def energy(a: np.ndarray, b: np.ndarray) -> float:
    """Return the energy distance of two samples, without bias."""

    def distance(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        square = (x**2).sum(1)[:, None] + (y**2).sum(1) - 2 * x @ y.T
        return np.sqrt(np.maximum(square, 0))

    within = [distance(x, x).sum() / (len(x) * (len(x) - 1)) for x in (a, b)]
    return float(2 * distance(a, b).mean() - sum(within))


@pytest.fixture(scope="module")
def model() -> ldmlr.LatentDiffusion:
    X, y = rows_of(COUNTS, 1)
    options = {"hidden": 32, "layers": 1, "iterations": 200, "batch_size": 128}
    return ldmlr.LatentDiffusion(**options).fit(X, y, threads=1)


@pytest.fixture(scope="module")
def labels() -> np.ndarray:
    return np.repeat(np.arange(len(COUNTS)), DRAWN)


def plain(model: ldmlr.LatentDiffusion) -> ldmlr.LatentDiffusion:
    """Return the same model as it would draw without all this."""
    other = ldmlr.LatentDiffusion(model.config)
    other._weights, other._held_out, other.counts = model._weights, model._held_out, model.counts
    other._transform = dataclasses.replace(model.transform, zeros=None)
    return other


@pytest.mark.parametrize("scale", [1.0, 1.3])
@pytest.mark.parametrize("weights", ["float32", "auto"])
def test_zeros_and_class_means_stay_whatever_the_widening(model, labels, weights, scale) -> None:
    X, y = rows_of(COUNTS, 1)
    rows = model.sample(labels, guidance=1.0, scale=scale, weights=weights)
    assert (rows[:, ZEROS] >= 0).all()
    assert (rows[:, ~ZEROS] < 0).any()
    for label, count in enumerate(COUNTS):
        own, drawn = X[y == label], rows[labels == label]
        share = np.abs((drawn == 0).mean(axis=0) - (own == 0).mean(axis=0))[ZEROS]
        # Four deviations of a share and a mean of so many rows, and what a short training leaves.
        chance = 1 / np.sqrt(count) + 1 / np.sqrt(DRAWN)
        assert share.max() < 4 * 0.5 * chance + 0.02
        mean = np.abs(drawn.mean(axis=0) - own.mean(axis=0)) / own.std(axis=0)
        assert mean.max() < 4 * scale * chance + 0.02


def test_rows_are_nearer_to_unseen_ones_than_without(model, labels) -> None:
    X, y = rows_of((DRAWN, DRAWN, DRAWN), 2)
    found, before = (
        [energy(rows[labels == label], X[y == label]) for label in range(len(COUNTS))]
        for rows in (each.sample(labels, guidance=1.0, scale=1.0) for each in (model, plain(model)))
    )
    assert np.mean(found) < 0.7 * np.mean(before), (found, before)


def test_spread_and_correlations_are_those_of_the_rows(model, labels) -> None:
    X, y = rows_of(COUNTS, 1)
    rows = model.sample(labels, guidance=1.0, scale=1.0)
    for label in (0, 1):
        own, drawn = X[y == label], rows[labels == label]
        assert np.abs(drawn.std(axis=0) / own.std(axis=0) - 1).max() < 0.2
        apart = np.corrcoef(drawn.T) - np.corrcoef(own.T)
        assert np.sqrt(np.mean(apart**2)) < 0.07


def test_the_backends_agree(model, labels) -> None:
    some = labels[::40].copy()
    native, reference = (
        model.sample(some, backend=name, weights="float32") for name in ("native", "reference")
    )
    np.testing.assert_allclose(native, reference, rtol=1e-3, atol=1e-4)
    one = model.sample(some, scale=1.3)
    each = model.sample(some, scale=9, class_scale={label: 1.3 for label in range(len(COUNTS))})
    np.testing.assert_allclose(each, one, rtol=1e-3, atol=1e-4)


def test_training_twice_and_saving_give_the_same_bits(model, labels, tmp_path: Path) -> None:
    X, y = rows_of(COUNTS, 1)
    again = ldmlr.LatentDiffusion(model.config).fit(X, y, threads=1)
    rows = model.sample(labels[::40])
    assert np.array_equal(again.sample(labels[::40]), rows)
    path = tmp_path / "model.safetensors"
    model.save(path)
    loaded = ldmlr.LatentDiffusion.load(path)
    assert np.array_equal(loaded.sample(labels[::40]), rows)
    assert loaded.fingerprint() == model.fingerprint()
    columns = load_file(path)["zeros.columns"]
    assert np.array_equal(columns, np.flatnonzero(ZEROS))


def test_a_model_without_zeros_has_no_tables(tmp_path: Path) -> None:
    X, y = rows_of(COUNTS, 1)
    small = ldmlr.LatentDiffusion(hidden=16, layers=1, iterations=5, batch_size=64).fit(X + 1, y, threads=1)
    assert small.transform.zeros is None
    assert small.spec(SampleConfig()).bend is None
    small.save(tmp_path / "small.safetensors")
    assert not any(name.startswith("zeros.") for name in load_file(tmp_path / "small.safetensors"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("zeros.columns", np.arange(36)[::-1].copy()),
        ("zeros.columns", np.arange(36) + 5),
        ("zeros.columns", np.arange(36.0)),
        ("zeros.threshold", np.zeros((3, 35), np.float32)),
        ("zeros.factors", np.ones(1, np.float32)),
        ("zeros.spread", np.ones((3, 36))),
        ("zeros.centre", None),
    ],
)
def test_tables_that_do_not_fit_are_told(model, tmp_path: Path, name: str, value) -> None:
    path = tmp_path / "model.safetensors"
    model.save(path)
    header, tensors = modelfile.read(path, modelfile.DIFFUSION, HEADER)
    tensors = {key: array for key, array in tensors.items() if key != name}
    if value is not None:
        tensors[name] = value
    modelfile.write(path, modelfile.DIFFUSION, header, tensors, True)
    with pytest.raises(InputError, match=r"model\.safetensors"):
        ldmlr.LatentDiffusion.load(path)


def test_a_dead_dimension_and_a_class_without_a_single_value() -> None:
    X, y = rows_of(COUNTS, 1)
    X[:, 10] = 0
    X[y == 2, 11] = 0
    small = ldmlr.LatentDiffusion(hidden=16, layers=1, iterations=5, batch_size=64).fit(X, y, threads=1)
    rows = small.sample(np.repeat(np.arange(3), 50), scale=1.3)
    assert np.isfinite(rows).all()
    assert (rows[:, 10] == 0).all()
    assert (rows[100:, 11] == 0).all()


def test_the_bend_has_the_moments_that_were_asked_for() -> None:
    u = np.random.default_rng(0).standard_normal(2_000_000)
    for a in (-1.0, 0.0, 1.2):
        v = np.maximum(u - a, 0)
        straight = (v**2).mean() / v.mean() ** 2
        curved = (v**4).mean() / (v**2).mean() ** 2
        square = (straight + curved) / 2 * 4  # of a mean of 2: between both limits
        s1, s2 = (float(x) for x in bent(np.float64(2.0), np.float64(square), np.float64(a)))
        x = v * (s1 + s2 * v)
        assert s1 > 0
        assert s2 > 0
        np.testing.assert_allclose([x.mean(), (x**2).mean()], [2.0, square], rtol=0.02)
        # Beyond the limits the mean is kept and the spread is as near as it can be.
        assert bent(np.float64(2.0), np.float64(1.0), np.float64(a))[1] == 0
        s1, s2 = (float(x) for x in bent(np.float64(2.0), np.float64(4e3), np.float64(a)))
        assert abs(s1) < 1e-12
        np.testing.assert_allclose((v * s2 * v).mean(), 2.0, rtol=0.02)
