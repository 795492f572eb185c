"""ldmlr.sampler.reference: the same rows to the bit however they are asked for, and what they are."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import ldmlr
from ldmlr.sampler import reference
from ldmlr.sampler.config import SampleConfig
from ldmlr.sampler.noise import standard_normal
from ldmlr.sampler.solve import solve

CLASSES, DIM, ROWS = 3, 5, 1300


def fit(**options):
    generator = np.random.default_rng(0)
    labels = np.repeat(np.arange(CLASSES), (80, 30, 10))
    features = generator.standard_normal((120, DIM)) + 4 * generator.standard_normal((CLASSES, DIM))[labels]
    return ldmlr.LatentDiffusion(hidden=16, layers=2, iterations=40, batch_size=64, **options).fit(
        np.abs(features).astype(np.float32), labels
    )


@pytest.fixture(scope="module")
def model():
    return fit()


@pytest.fixture(scope="module")
def labels():
    return np.random.default_rng(1).integers(0, CLASSES, ROWS)


def draw(model, labels, config=None, seed=0, first_row=0, **options):
    return reference.sample(model.spec(config, seed), labels, first_row, **options).numpy()


@pytest.fixture(scope="module")
def whole(model, labels):
    return draw(model, labels)


@settings(max_examples=25)
@given(cuts=st.lists(st.integers(0, ROWS), max_size=3))
def test_any_split_gives_the_same_rows_to_the_bit(model, labels, whole, cuts):
    edges = [0, *sorted(cuts), ROWS]
    for low, high in itertools.pairwise(edges):
        part = draw(model, labels[low:high], first_row=low)
        assert np.array_equal(part, whole[low:high])


@pytest.mark.parametrize("precision", [torch.float32, torch.float64])
@pytest.mark.parametrize("solver", ["dpmpp2m", "ddpm"])
@pytest.mark.parametrize("hidden", [16, 200])
def test_threads_do_not_change_a_bit(labels, solver, precision, hidden):
    model = ldmlr.LatentDiffusion(hidden=hidden, iterations=3, batch_size=64).fit(
        np.random.default_rng(0).standard_normal((30, 70)), np.arange(30) % CLASSES
    )
    config = SampleConfig(solver=solver, steps=4)
    one, two, three = (draw(model, labels, config, threads=n, precision=precision) for n in (1, 2, 3))
    assert np.array_equal(one, two)
    assert np.array_equal(one, three)


def test_the_threads_of_torch_do_not_change_a_bit(model, labels, whole):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        assert np.array_equal(draw(model, labels), whole)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("first_row", [511, 513, 2**32 - 100, 2**40])
def test_rows_are_numbered_globally(model, first_row):
    labels = np.arange(300) % CLASSES
    together = draw(model, labels, first_row=first_row)
    alone = [draw(model, labels[i : i + 1], first_row=first_row + i) for i in (0, 99, 100, 299)]
    assert np.array_equal(together[[0, 99, 100, 299]], np.concatenate(alone))
    assert not np.array_equal(together, draw(model, labels, first_row=0))


def test_labels_of_other_rows_do_not_matter(model, labels, whole):
    changed = labels.copy()
    changed[::2] = (changed[::2] + 1) % CLASSES
    found = draw(model, changed)
    assert np.array_equal(found[1::2], whole[1::2])
    assert not np.array_equal(found[::2], whole[::2])


def test_the_seed_matters(model, labels, whole):
    assert not np.array_equal(draw(model, labels, seed=1), whole)
    assert np.array_equal(draw(model, labels, seed=0), whole)


def test_float32_follows_float64(model, labels, whole):
    exact = draw(model, labels, precision=torch.float64)
    assert np.abs(whole - exact).max() < 1e-4 * np.abs(exact).max()


def by_hand(model, labels, config, seed):
    """The solver loop over the network itself, in float64, without tables or tiles."""
    config = config.resolved(model.config.transform)
    spec = model.spec(config, seed)
    network = model.network.double()
    classes = torch.from_numpy(labels)

    def guided(x, step):
        times = torch.full((len(labels),), spec.rows.t[step], dtype=torch.float64)
        null = network(x, times, torch.full_like(classes, CLASSES))
        f = null + config.guidance * (network(x, times, classes) - null)
        return f if spec.gain is None else f * torch.from_numpy(spec.gain[step, labels])[:, None]

    def noise(stream, step):
        return torch.from_numpy(standard_normal(seed, 0, len(labels), DIM, stream, step)).double()

    x = solve(spec.rows, noise(0, 0), guided, lambda step: noise(1, step))
    network.float()
    return model.transform.inverse(x.detach().numpy(), labels, config.scale)


@pytest.mark.parametrize(
    "options", [{}, {"network": "adaln"}, {"prediction": "x0", "transform": "standardised"}]
)
@pytest.mark.parametrize(
    "config",
    [
        SampleConfig(steps=6),
        SampleConfig(solver="heun", steps=4, guidance=1.0),
        SampleConfig(solver="ddim", eta=0.7, steps=5, guidance=2.0, scale=1.0),
    ],
    ids=lambda config: config.solver,
)
def test_the_sampler_is_the_solver_loop_over_the_network(options, config):
    model = fit(**options)
    labels = np.arange(40) % CLASSES
    found = draw(model, labels, config, seed=9, precision=torch.float64)
    # The tables hold float32 numbers, hence the tolerance.
    assert np.allclose(found, by_hand(model, labels, config, 9), rtol=1e-4, atol=1e-4)


def test_guidance_one_is_the_conditional_model(model, labels):
    plain = draw(model, labels[:50], SampleConfig(guidance=1.0))
    close = draw(model, labels[:50], SampleConfig(guidance=1.0 + 1e-6))
    assert np.allclose(plain, close, atol=1e-3)


def test_rows_keep_the_floor_of_the_features(model, labels, whole):
    assert (np.asarray(model.transform.floor) == 0).all()
    assert (whole >= 0).all()
    wide = draw(model, labels, SampleConfig(scale=20.0))
    assert (wide == 0).any()
    assert (wide >= 0).all()
