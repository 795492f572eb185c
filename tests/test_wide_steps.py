"""`ldmlr.heads.wide_steps`: written-out steps give the heads of autograd."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from ldmlr.errors import UsageError
from ldmlr.heads import training
from ldmlr.heads.config import FinetuneConfig
from ldmlr.heads.modules import LinearHead
from ldmlr.heads.softmax import Batch, SoftmaxRows
from ldmlr.heads.training import fresh_head, train_head
from ldmlr.heads.training_rows import TrainingRows
from ldmlr.heads.wide_steps import WideSteps
from ldmlr.isa import choose


@pytest.mark.parametrize("count", [1, 65, 100])
@pytest.mark.parametrize("bias", [True, False])
def test_gradients_are_those_of_autograd_in_float64(count, bias):
    torch.manual_seed(count)
    features, labels = torch.randn(count, 9) * 3, torch.randint(0, 11, (count,))
    offset, head = torch.randn(11), LinearHead(9, 11, bias=bias)
    steps = WideSteps(head, SoftmaxRows(features, labels, 11), offset)
    order = torch.randperm(count)
    loss = steps.backward(Batch(order))
    exact = LinearHead(9, 11, bias=bias).double()
    exact.load_state_dict({name: value.double() for name, value in head.state_dict().items()})
    logits = F.linear(features.double(), exact.weight, exact.bias)
    wanted = F.cross_entropy(logits + offset, labels)
    wanted.backward()
    assert loss == pytest.approx(wanted.item(), rel=1e-5)
    for own, other in zip(head.parameters(), exact.parameters(), strict=True):
        torch.testing.assert_close(own.grad.double(), other.grad, atol=1e-6, rtol=1e-5)


def long_tailed() -> TrainingRows:
    random = np.random.default_rng(0)
    labels = np.concatenate([np.arange(13), random.integers(0, 13, 600)])
    features = (random.normal(size=(613, 8)) + np.eye(13, 8)[labels]).astype(np.float32)
    return TrainingRows(features, labels, 300, 13, "rows")


@pytest.mark.parametrize("isa", ["baseline", None])
@pytest.mark.parametrize("loss", ["cross-entropy", "balanced-softmax", "logit-adjustment", "class-weights"])
def test_long_steps_train_the_same_head(monkeypatch, loss, isa):
    if isa:
        monkeypatch.setenv("LDMLR_ISA", isa)
    rows = long_tailed()
    config = FinetuneConfig(
        epochs=3, lr=0.01, loss=loss, tau=0.5 if loss == "logit-adjustment" else 1.0, precision="float32"
    )
    heads, histories = [], []
    for long in (1 << 60, 0):
        monkeypatch.setattr(training, "LONG_STEP", long)
        head = fresh_head("linear", 8, 13, 0)
        histories.append(train_head(head, rows, config, seed=1))
        heads.append(head)
    torch.testing.assert_close(heads[0].weight, heads[1].weight, atol=2e-5, rtol=1e-4)
    assert histories[0][-1]["loss"] == pytest.approx(histories[1][-1]["loss"], rel=1e-4)
    assert histories[1][-1]["precision"] == "float32"


@pytest.mark.skipif(not choose().bfloat16, reason="this processor does not multiply bfloat16")
def test_bfloat16_trains_nearly_the_same_head():
    rows, heads = long_tailed(), {}
    for precision in ("float32", "bfloat16"):
        heads[precision] = fresh_head("linear", 8, 13, 0)
        config = FinetuneConfig(epochs=3, lr=0.01, precision=precision)
        history = train_head(heads[precision], rows, config, seed=1)
        assert history[-1]["precision"] == precision
    change = heads["bfloat16"].weight - heads["float32"].weight
    assert 0 < change.abs().max() < 0.02 * heads["float32"].weight.abs().max()


def test_what_has_no_bfloat16_says_so(monkeypatch):
    with pytest.raises(UsageError, match="only a linear head"):
        FinetuneConfig(head="cosine", precision="bfloat16")
    config = FinetuneConfig(epochs=1, precision="bfloat16")
    with pytest.raises(UsageError, match="not a cosine head on cpu"):
        train_head(fresh_head("cosine", 8, 13, 0), long_tailed(), config)
    monkeypatch.setenv("LDMLR_ISA", "baseline")
    with pytest.raises(UsageError, match="baseline has no bfloat16 products"):
        train_head(fresh_head("linear", 8, 13, 0), long_tailed(), config)
