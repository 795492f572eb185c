"""`ldmlr.heads.softmax` and ``csrc/cpu/softmax*``: loss and gradient against float64, at odd sizes."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from ldmlr.device import torch_threads
from ldmlr.heads.softmax import Batch, SoftmaxRows
from ldmlr.heads.standard import Standard
from ldmlr.isa import instruction_sets

KINDS = [(entry.name, "float32") for entry in instruction_sets() if entry.available] + [
    (entry.name, "bfloat16") for entry in instruction_sets() if entry.available and entry.bfloat16
]
# Relative to the largest number of a gradient: a few roundings of float32, and of an operand of bfloat16.
TOLERANCE = {"float32": 1e-5, "bfloat16": 2.0**-6}
# Rows in memory and of the batch, numbers of a row, classes: around tiles (48), panels and pairs of rows.
SHAPES = [(9, 1, 5, 2), (50, 49, 17, 49), (100, 97, 33, 65), (700, 1100, 80, 130), (3, 2113, 16, 3)]


@dataclasses.dataclass
class Problem:
    """Rows, a head and a batch."""

    rows: SoftmaxRows
    weight: torch.Tensor
    bias: torch.Tensor
    batch: Batch

    def gradient(self) -> tuple[float, torch.Tensor, torch.Tensor]:
        to = torch.full_like(self.weight, torch.nan), torch.full_like(self.bias, torch.nan)
        return self.rows.gradient(self.weight, self.bias, to, self.batch), *to

    def exact(self) -> tuple[float, torch.Tensor, torch.Tensor]:
        """The same by autograd in float64."""
        features, labels, batch = self.rows.features.double(), self.rows.labels, self.batch
        x = features if batch.chosen is None else features[batch.chosen]
        labels = labels if batch.chosen is None else labels[batch.chosen]
        if batch.partner is not None and batch.share is not None:
            share = batch.share.double()[:, None]
            x = share * x + (1 - share) * features[batch.partner]
        if self.rows.standard is not None:
            x = (x - self.rows.standard[0]) * self.rows.standard[1]
        weight, bias = (part.double().requires_grad_() for part in (self.weight, self.bias))
        losses = torch.nn.functional.cross_entropy(x @ weight.T + bias, labels, reduction="none")
        weights = torch.full((len(x),), 1 / len(x)) if batch.weights is None else batch.weights
        loss = (losses * weights.double()).sum()
        loss.backward()
        assert weight.grad is not None
        assert bias.grad is not None
        return loss.item(), weight.grad, bias.grad


def problem(shape: tuple[int, int, int, int], isa: str, products: str, whole: bool = False) -> Problem:
    total, count, dim, classes = shape
    random = torch.Generator().manual_seed(count)
    features = torch.randn(total, dim, generator=random)
    labels = torch.randint(classes, (total,), generator=random)
    weight = torch.randn(classes, dim, generator=random) * 3 / dim**0.5
    bias = torch.randn(classes, generator=random)
    if whole:
        standard = Standard(np.linspace(-1, 1, dim), np.linspace(0.5, 2, dim))
        rows = SoftmaxRows(features, labels, classes, standard, products, isa)
        return Problem(rows, weight, bias, Batch(weights=torch.rand(total, generator=random)))
    rows = SoftmaxRows(features, labels, classes, None, products, isa)
    chosen, partner = (torch.randint(total, (count,), generator=random) for _ in range(2))
    return Problem(rows, weight, bias, Batch(chosen, partner, torch.rand(count, generator=random)))


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(("isa", "products"), KINDS)
def test_gradients_are_those_of_autograd_in_float64(isa, products, shape, whole):
    asked = problem(shape, isa, products, whole)
    (loss, *found), (wanted, *exact) = asked.gradient(), asked.exact()
    assert loss == pytest.approx(wanted, rel=TOLERANCE[products], abs=TOLERANCE[products])
    # Where a row is nearly right its error is 1 - p, of which float32 keeps the digits of 1.
    total = 1.0 if asked.batch.weights is None else float(asked.batch.weights.sum())
    for own, other in zip(found, exact, strict=True):
        scale = max(float(other.abs().max()), total / 50)
        assert (own.double() - other).abs().max() <= TOLERANCE[products] * scale


@pytest.mark.parametrize(("isa", "products"), [kind for kind in KINDS if kind[0] != "baseline"])
def test_the_number_of_threads_changes_no_bit(monkeypatch, isa, products):
    monkeypatch.setattr("ldmlr.heads.softmax.THREAD_WORK", 1)
    asked, found = problem((700, 2113, 37, 70), isa, products), []
    for threads in (1, 2, 5):
        with torch_threads(threads):
            found.append(asked.gradient())
    for loss, weight, bias in found[1:]:
        assert loss == found[0][0]
        assert torch.equal(weight, found[0][1])
        assert torch.equal(bias, found[0][2])


def test_confident_logits_stay_finite():
    asked = problem((50, 49, 17, 49), KINDS[-1][0], "float32")
    asked.weight *= 1e4
    (loss, *found), (wanted, *exact) = asked.gradient(), asked.exact()
    assert loss == pytest.approx(wanted, rel=1e-5)
    for own, other in zip(found, exact, strict=True):
        assert (own.double() - other).abs().max() <= 1e-4 * other.abs().max()
