"""`ldmlr.heads.wide_steps`: written-out steps give the heads of autograd."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from ldmlr.heads import training
from ldmlr.heads.config import FinetuneConfig
from ldmlr.heads.modules import LinearHead, make_head
from ldmlr.heads.training import fresh_head, train_head
from ldmlr.heads.training_rows import TrainingRows
from ldmlr.heads.wide_steps import WideSteps


@pytest.mark.parametrize(("count", "block"), [(1, 1 << 18), (65, 7 * 11), (100, 11)])
@pytest.mark.parametrize("bias", [True, False])
def test_gradients_are_those_of_autograd_in_float64(monkeypatch, count, block, bias):
    monkeypatch.setattr("ldmlr.heads.wide_steps.BLOCK", block)
    torch.manual_seed(count)
    features, labels = torch.randn(count, 9) * 3, torch.randint(0, 11, (count,))
    offset, head = torch.randn(11), LinearHead(9, 11, bias=bias)
    steps = WideSteps(head, features, count, offset)
    order = torch.randperm(count)
    x = steps.rows(order)
    assert torch.equal(x, features[order])
    loss = steps.backward(x, labels[order])
    exact = LinearHead(9, 11, bias=bias).double()
    exact.load_state_dict({name: value.double() for name, value in head.state_dict().items()})
    logits = F.linear(features.double(), exact.weight, exact.bias)
    wanted = F.cross_entropy(logits + offset, labels)
    wanted.backward()
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-5)
    for own, other in zip(head.parameters(), exact.parameters(), strict=True):
        torch.testing.assert_close(own.grad.double(), other.grad, atol=1e-6, rtol=1e-5)


def test_rows_are_mixed_as_everywhere():
    features = torch.randn(40, 5)
    steps = WideSteps(make_head("linear", 5, 3), features, 16)
    chosen, partner, share = torch.arange(10), torch.arange(30, 40), torch.rand(10, 1)
    mixed = steps.rows(chosen, share, partner)
    torch.testing.assert_close(mixed, share * features[:10] + (1 - share) * features[30:])


@pytest.mark.parametrize("loss", ["cross-entropy", "balanced-softmax", "logit-adjustment", "class-weights"])
def test_long_steps_train_the_same_head(monkeypatch, loss):
    random = np.random.default_rng(0)
    labels = np.concatenate([np.arange(13), random.integers(0, 13, 600)])
    features = (random.normal(size=(613, 8)) + np.eye(13, 8)[labels]).astype(np.float32)
    rows = TrainingRows(features, labels, 300, 13, "rows")
    config = FinetuneConfig(epochs=3, lr=0.01, loss=loss, tau=0.5 if loss == "logit-adjustment" else 1.0)
    heads, histories = [], []
    for long in (1 << 60, 0):
        monkeypatch.setattr(training, "LONG_STEP", long)
        head = fresh_head("linear", 8, 13, 0)
        histories.append(train_head(head, rows, config, seed=1))
        heads.append(head)
    torch.testing.assert_close(heads[0].weight, heads[1].weight, atol=2e-5, rtol=1e-4)
    assert histories[0][-1]["loss"] == pytest.approx(histories[1][-1]["loss"], rel=1e-4)
