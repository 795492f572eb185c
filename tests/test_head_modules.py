"""`ldmlr.heads.modules`: their formulas, their start, and the way into and out of plain arrays."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ldmlr.errors import InputError, UsageError
from ldmlr.heads.config import HEADS
from ldmlr.heads.modules import CosineHead, LinearHead, WCDASHead, from_stored, make_head, to_stored
from ldmlr.store import StoredHead


def rows(n: int, dim: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed))


def cosines(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    x, w = x.astype(np.float64), w.astype(np.float64)
    return (x @ w.T) / np.outer(np.linalg.norm(x, axis=1), np.linalg.norm(w, axis=1))


@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("n", [1, 7, 65])
def test_logits_have_one_column_per_class(kind, n):
    head = make_head(kind, 5, 3)
    logits = head(rows(n, 5))
    assert logits.shape == (n, 3)
    assert logits.dtype == torch.float32
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize("kind", HEADS)
def test_stored_head_comes_back_to_the_bit(kind):
    head = make_head(kind, 6, 4)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    back = from_stored(to_stored(head))
    x = rows(9, 6)
    assert back.kind == kind
    assert torch.equal(back(x), head(x))


def test_linear_head_without_bias_comes_back():
    head = LinearHead(4, 3, bias=False)
    stored = to_stored(head)
    assert stored.bias is None
    assert torch.equal(from_stored(stored)(rows(3, 4)), head(rows(3, 4)))


def test_cosine_head_is_scale_times_cosine():
    head, x = CosineHead(8, 5, scale=12.0), rows(11, 8)
    expected = 12.0 * cosines(x.numpy(), head.weight.detach().numpy())
    np.testing.assert_allclose(head(x).detach().numpy(), expected, atol=2e-5)


def test_fixed_scale_is_no_parameter_and_survives_storage():
    head = CosineHead(4, 3, scale=9.0, learn_scale=False)
    assert [name for name, _ in head.named_parameters()] == ["weight"]
    back = from_stored(to_stored(head))
    assert [name for name, _ in back.named_parameters()] == ["weight"]
    assert float(back.scale) == 9.0


@given(
    parameter=st.lists(st.floats(-8, 8), min_size=3, max_size=3),
    scale=st.floats(-5, 50),
    seed=st.integers(0, 99),
)
def test_wcdas_is_the_published_formula(parameter, scale, seed):
    head, x = WCDASHead(6, 3), rows(5, 6, seed)
    with torch.no_grad():
        head.concentration.copy_(torch.tensor(parameter))
        head.scale.fill_(scale)
    g = 1 / (1 + np.exp(-head.concentration.detach().double().numpy()))
    s = np.log1p(np.exp(float(head.scale.detach()))) + 1
    cos = cosines(x.numpy(), head.weight.detach().numpy())
    expected = s / (2 * math.pi) * (1 - g**2) / (1 + g**2 - 2 * g * cos)
    # Near the pole the logit is 1 / (1 - cos), so the rounding of the float32 cosine is amplified by g.
    slack = np.abs(expected) * 2 * g * 1e-6 / (1 + g**2 - 2 * g * cos)
    np.testing.assert_array_less(np.abs(head(x).detach().numpy() - expected), 1e-5 * expected + slack + 1e-6)


def test_wcdas_starts_as_published():
    head = WCDASHead(4, 3)
    assert torch.equal(torch.sigmoid(head.concentration), torch.full((3,), 0.5))
    assert float(torch.nn.functional.softplus(head.scale.detach()) + 1) == pytest.approx(1 + math.log(2))


def test_wcdas_at_the_class_direction_stays_finite_when_concentrated():
    head = WCDASHead(4, 2)
    with torch.no_grad():
        head.concentration.fill_(15.0)
    x = head.weight.detach().clone().requires_grad_()
    logits = head(x)
    logits.sum().backward()
    assert torch.isfinite(logits).all()
    assert torch.isfinite(head.concentration.grad).all()


@pytest.mark.parametrize("kind", ["cosine", "wcdas"])
@pytest.mark.parametrize("factor", [0.5, 7.0])
def test_rescale_multiplies_the_logits(kind, factor):
    head = make_head(kind, 4, 3)
    if kind == "wcdas":
        head.rescale(10.0)
    before = head(rows(5, 4)).detach()
    head.rescale(factor)
    torch.testing.assert_close(head(rows(5, 4)).detach(), factor * before, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["cosine", "wcdas"])
def test_angular_heads_ignore_length_and_take_zeros(kind):
    head, x = make_head(kind, 4, 3), rows(5, 4)
    torch.testing.assert_close(head(3.7 * x), head(x), rtol=1e-4, atol=1e-5)
    assert torch.isfinite(head(torch.zeros(2, 4))).all()


@pytest.mark.parametrize("kind", HEADS)
def test_heads_compute_in_float32_under_autocast(kind):
    head, x = make_head(kind, 16, 3), rows(4, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = head(x)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, head(x))


def test_unknown_kinds_name_the_nearest():
    with pytest.raises(UsageError, match="did you mean 'cosine'"):
        make_head("cosin", 4, 3)
    with pytest.raises(InputError, match="unknown kind 'linar'"):
        from_stored(StoredHead(kind="linar", weight=np.zeros((3, 4), np.float32), bias=None, extra={}))


def test_stored_arrays_that_do_not_fit_are_an_error():
    weight = np.zeros((3, 4), np.float32)
    with pytest.raises(InputError, match="do not fit"):
        from_stored(StoredHead(kind="linear", weight=weight, bias=np.zeros(2, np.float32), extra={}))
    with pytest.raises(InputError, match="concentration"):
        from_stored(StoredHead(kind="wcdas", weight=weight, bias=None, extra={}))
