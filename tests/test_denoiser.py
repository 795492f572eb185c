"""ldmlr.diffusion.denoiser and its tables: what networks start as, and what kernels get of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ldmlr.diffusion.denoiser import NETWORKS, AdditiveMLP, time_features
from ldmlr.diffusion.schedule import make_schedule
from ldmlr.diffusion.solvers import step_rows
from ldmlr.sampler import reference

DIM, CLASSES, HIDDEN, LAYERS = 5, 3, 16, 2
networks = pytest.mark.parametrize("name", sorted(NETWORKS))


def make(name: str):
    """Return a network whose last layer is no longer zero."""
    torch.manual_seed(0)
    network = NETWORKS[name](DIM, CLASSES, HIDDEN, LAYERS)
    torch.nn.init.normal_(network.output.weight)
    return network


@networks
def test_an_untrained_network_predicts_zero(name):
    network = NETWORKS[name](DIM, CLASSES, HIDDEN, LAYERS)
    found = network(torch.randn(7, DIM), torch.rand(7), torch.arange(7) % (CLASSES + 1))
    assert found.shape == (7, DIM)
    assert not found.any()


@networks
def test_the_prediction_depends_on_time_and_class(name):
    network = make(name)
    x = torch.randn(1, DIM).expand(4, DIM)
    base = network(x, torch.full((4,), 0.5), torch.arange(4))
    assert len({tuple(row.tolist()) for row in base.detach()}) == 4
    assert not torch.equal(base, network(x, torch.full((4,), 0.6), torch.arange(4)))


@networks
def test_tables_say_the_same_as_the_network(name):
    """The reference's evaluation of the tables is the network's own forward pass."""
    network = make(name)
    t = step_rows("dpmpp2m", 6, make_schedule("cosine")).t
    tables = network.tables(t)
    evaluate = {"additive": reference.additive, "adaln": reference.adaln}[name]
    weights = {key: torch.from_numpy(getattr(tables, key)) for key in tables.__dataclass_fields__}
    x, labels = torch.randn(9, DIM), torch.arange(9) % (CLASSES + 1)
    for step, time in enumerate(t):
        h = torch.addmm(weights["b_in"], x, weights["w_in"].T)
        expected = network(x, torch.full((9,), time, dtype=torch.float32), labels)
        found = evaluate(weights, h, step, labels)
        # The table is made in float64; the network rounds 1000 t to float32 first.
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def test_additive_tables_are_float32_in_the_agreed_shapes():
    steps = 4
    tables = make("additive").tables(np.linspace(0.9, 0.1, steps))
    shapes = {
        "w_in": (HIDDEN, DIM), "b_in": (HIDDEN,),
        "w1": (LAYERS, HIDDEN, HIDDEN), "w2": (LAYERS, HIDDEN, HIDDEN), "b2": (LAYERS, HIDDEN),
        "w_out": (DIM, HIDDEN), "b_out": (DIM,),
        "bias_step": (steps, LAYERS, HIDDEN), "bias_class": (CLASSES + 1, LAYERS, HIDDEN),
    }  # fmt: skip
    for key, shape in shapes.items():
        array = getattr(tables, key)
        assert (array.shape, array.dtype, array.flags.c_contiguous) == (shape, np.float32, True), key


def test_tables_are_a_copy():
    network = make("additive")
    tables = network.tables(np.array([0.5]))
    before = tables.w_in.copy()
    with torch.no_grad():
        network.input.weight += 1
    assert np.array_equal(tables.w_in, before)


def test_the_table_of_a_time_does_not_depend_on_the_grid():
    network = make("additive")
    alone = network.tables(np.array([0.3])).bias_step
    among = network.tables(np.array([0.9, 0.3, 0.1])).bias_step
    assert np.allclose(alone[0], among[1], rtol=0, atol=1e-7)


def test_time_features_are_bounded_and_distinct():
    features = time_features(torch.linspace(0, 1, 100, dtype=torch.float64))
    assert features.shape == (100, 64)
    assert features.abs().max() <= 1
    assert torch.cdist(features, features).fill_diagonal_(1).min() > 0.01


def test_additive_conditioning_is_factorised():
    """The bias of (step, class) is a sum: mixed differences vanish."""
    tables = make("additive").tables(np.array([0.8, 0.2]))
    bias = tables.bias_step[:, None] + tables.bias_class[None]
    mixed = bias[0, 0] - bias[0, 1] - bias[1, 0] + bias[1, 1]
    assert np.abs(mixed).max() < 1e-5
    assert isinstance(make("additive"), AdditiveMLP)
