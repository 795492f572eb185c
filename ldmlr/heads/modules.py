"""Classification heads as torch modules: linear, cosine, WCDAS and two layers.

The encoders train with them and stage 3 fine-tunes them. A head leaves torch as a
`StoredHead` (plain arrays, what a feature store and a head file hold) and comes back from
it to the bit. Heads compute in float32 even under autocast: their product is negligible,
and a cosine rounded to eight bits moves a WCDAS logit near its pole.
"""

from __future__ import annotations

import hashlib
import math
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from ldmlr.errors import InputError, UsageError, nearest, opt
from ldmlr.heads.config import HEADS
from ldmlr.store import StoredHead
from ldmlr.torch_defaults import torch_defaults

# Neighbours that are kept of a row whose neighbours are kept at all.
REMEMBERED = 100


class Head(nn.Module):
    """Base of the heads: ``forward(features [n, D]) -> logits [n, C]`` in float32.

    Parameters
    ----------
    dim
        Feature dimensions D.
    num_classes
        Classes C.
    """

    kind = ""

    def __init__(self, dim: int, num_classes: int) -> None:
        super().__init__()
        self.dim, self.num_classes = dim, num_classes

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return logits ``[n, C]`` of features ``[n, D]``."""
        with torch.autocast(features.device.type, enabled=False):
            return self.logits(features.float())

    def logits(self, features: torch.Tensor) -> torch.Tensor:
        """Return logits of float32 features; each head defines it."""
        raise TypeError(f"{type(self).__name__} defines no logits")


class LinearHead(Head):
    """``logit_c = w_c . x + b_c``, started as `torch.nn.Linear` starts."""

    kind = "linear"

    def __init__(self, dim: int, num_classes: int, bias: bool = True) -> None:
        super().__init__(dim, num_classes)
        self.weight = nn.Parameter(torch.empty(num_classes, dim))
        self.bias = nn.Parameter(torch.empty(num_classes)) if bias else None
        bound = 1 / math.sqrt(dim)
        nn.init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            nn.init.uniform_(self.bias, -bound, bound)

    def logits(self, features: torch.Tensor) -> torch.Tensor:
        """Return ``features @ weight.T + bias``."""
        return F.linear(features, self.weight, self.bias)


class AngularHead(Head):
    """A head that sees only the cosine between a feature and its class weights."""

    def __init__(self, dim: int, num_classes: int) -> None:
        super().__init__(dim, num_classes)
        # Only the direction counts: isotropic rows of about unit length.
        self.weight = nn.Parameter(torch.randn(num_classes, dim) / math.sqrt(dim))

    def cosine(self, features: torch.Tensor) -> torch.Tensor:
        """Return cosines ``[n, C]``; a feature of zeros has cosine 0 to every class."""
        return F.linear(F.normalize(features, dim=1), F.normalize(self.weight, dim=1))

    def rescale(self, factor: float) -> None:
        """Multiply the scale of the logits by `factor`, as far as the head allows."""
        raise TypeError(f"{type(self).__name__} defines no scale")


class CosineHead(AngularHead):
    """``logit_c = scale * cos(x, w_c)``.

    Parameters
    ----------
    dim, num_classes
        As for every head.
    scale
        The (first) scale.
    learn_scale
        Train the scale with the weights; otherwise it stays as given.
    """

    kind = "cosine"

    def __init__(self, dim: int, num_classes: int, scale: float = 16.0, learn_scale: bool = True) -> None:
        super().__init__(dim, num_classes)
        value = torch.tensor([float(scale)])
        self.scale: torch.Tensor
        if learn_scale:
            self.scale = nn.Parameter(value)
        else:
            self.register_buffer("scale", value)
        self.learn_scale = learn_scale

    def rescale(self, factor: float) -> None:
        """Multiply the scale by `factor`."""
        with torch.no_grad():
            self.scale.mul_(factor)

    def logits(self, features: torch.Tensor) -> torch.Tensor:
        """Return ``scale * cosine``."""
        return self.scale * self.cosine(features)


class WCDASHead(AngularHead):
    """Wrapped Cauchy distributed angular softmax (Han, ICML 2023).

    ``logit_c = s / (2 pi) * (1 - g_c^2) / (1 + g_c^2 - 2 g_c cos_c)`` with one trained concentration per
    class, ``g_c = sigmoid(concentration_c)``, and one trained scale, ``s = softplus(scale) + 1``. The
    concentrations start at ``sigmoid(0)``.

    Parameters
    ----------
    dim, num_classes
        As for every head.
    scale
        The first value of s (above 1).
    """

    kind = "wcdas"

    def __init__(self, dim: int, num_classes: int, scale: float = 1.0 + math.log(2.0)) -> None:
        super().__init__(dim, num_classes)
        if scale <= 1:
            raise UsageError(f"WCDAS scale: must be above 1, not {scale!r}")
        self.concentration = nn.Parameter(torch.zeros(num_classes))
        self.scale = nn.Parameter(torch.tensor([_inverse_softplus(scale - 1)]))

    def rescale(self, factor: float) -> None:
        """Multiply s by `factor`; it stays above 1."""
        with torch.no_grad():
            s = factor * (float(F.softplus(self.scale)) + 1)
            self.scale.fill_(_inverse_softplus(max(s - 1, 1e-3)))

    def logits(self, features: torch.Tensor) -> torch.Tensor:
        """Return the density of the wrapped Cauchy distribution at each angle, times s."""
        g = torch.sigmoid(self.concentration)
        s = F.softplus(self.scale) + 1
        # 1 + g^2 - 2 g cos written as (1 - g)^2 + 2 g (1 - cos): no cancellation near the pole, and
        # 1 - g = sigmoid(-concentration) keeps its digits where g rounds to one.
        opposite = torch.sigmoid(-self.concentration)
        distance = (1 - self.cosine(features)).clamp_min(0)
        return s / (2 * math.pi) * opposite * (1 + g) / (opposite.square() + 2 * g * distance)


class MLPHead(Head):
    """Two layers: ``logits = weight . dropout(gelu(hidden_weight . x + hidden_bias)) + bias``.

    Parameters
    ----------
    dim, num_classes
        As for every head.
    width
        Numbers in the hidden layer H.
    dropout
        Share of them that is dropped in training; no part of a saved head.
    """

    kind = "mlp"

    def __init__(self, dim: int, num_classes: int, width: int = 256, dropout: float = 0.5) -> None:
        super().__init__(dim, num_classes)
        self.dropout = dropout
        hidden, last = nn.Linear(dim, width), nn.Linear(width, num_classes)
        self.hidden_weight, self.hidden_bias = hidden.weight, hidden.bias
        self.weight, self.bias = last.weight, last.bias

    def logits(self, features: torch.Tensor) -> torch.Tensor:
        """Return the logits of the two layers."""
        hidden = F.gelu(F.linear(features, self.hidden_weight, self.hidden_bias))
        return F.linear(F.dropout(hidden, self.dropout, self.training), self.weight, self.bias)


class KNNHead(Head):
    """Votes of the nearest rows: ``logit_c = log(sum of the votes of class c + a little)``.

    It is compared with other heads and is not saved: it holds all rows.

    Parameters
    ----------
    rows
        Standardised rows ``[N, D]``.
    labels, votes
        Their classes and what their votes count, ``[N]``.
    mean, scale
        What standardises a feature, ``[D]``.
    num_classes
        Classes C.
    neighbours
        How many rows vote.
    known
        Where the nearest rows of features are kept that have been looked at; None: they are not.
    """

    kind = "knn"

    def __init__(
        self,
        rows: torch.Tensor,
        labels: torch.Tensor,
        votes: torch.Tensor,
        mean: torch.Tensor,
        scale: torch.Tensor,
        num_classes: int,
        neighbours: int,
        known: dict[bytes, torch.Tensor] | None = None,
    ) -> None:
        super().__init__(rows.shape[1], num_classes)
        self.neighbours, self.known = min(neighbours, len(rows)), known
        self.rows, self.labels, self.votes, self.mean, self.scale = (
            nn.Parameter(part, requires_grad=False) for part in (rows, labels, votes, mean, scale)
        )

    def logits(self, features: torch.Tensor) -> torch.Tensor:
        """Return logarithms of the votes; what has none is as unlikely as a hundredth of the least vote."""
        votes = features.new_zeros(len(features), self.num_classes)
        for at in range(0, len(features), 1024):
            found = self._nearest(features[at : at + 1024])[:, : self.neighbours]
            votes[at : at + 1024].scatter_add_(1, self.labels[found], self.votes[found])
        return (votes + 0.01 * self.votes.min()).log()

    def _nearest(self, features: torch.Tensor) -> torch.Tensor:
        """Return the numbers of the nearest rows, nearest first: as many as vote, or more."""
        key = b"" if self.known is None else hashlib.sha256(features.cpu().numpy().data).digest()
        if self.known is not None and key in self.known and self.known[key].shape[1] >= self.neighbours:
            return self.known[key]
        count = (
            self.neighbours if self.known is None else min(max(self.neighbours, REMEMBERED), len(self.rows))
        )
        x = (features - self.mean) * self.scale
        # Without |x|^2, which all distances share.
        distance = torch.addmm(self.rows.square().sum(1), x, self.rows.T, alpha=-2)
        nearest: torch.Tensor = distance.topk(count, 1, largest=False).indices
        if self.known is not None:
            self.known[key] = nearest
        return nearest


def _inverse_softplus(value: float) -> float:
    return value + math.log(-math.expm1(-value))


_KINDS: dict[str, type[Head]] = {
    "linear": LinearHead, "cosine": CosineHead, "wcdas": WCDASHead, "mlp": MLPHead
}  # fmt: skip


@torch_defaults()
def make_head(kind: str, dim: int, num_classes: int) -> Head:
    """Return a fresh head of kind ``linear``, ``cosine``, ``wcdas`` or ``mlp``."""
    if kind not in _KINDS:
        raise UsageError(f"{opt('head')}: unknown value {kind!r}; {nearest(kind, HEADS)}")
    return _KINDS[kind](dim, num_classes)


@torch_defaults()
def linear_head(weight: torch.Tensor, bias: torch.Tensor | None = None) -> LinearHead:
    """Return a linear head with weights ``[C, D]`` and biases ``[C]``, or none."""
    with torch.random.fork_rng(devices=[]):  # the first weights are replaced at once
        head = LinearHead(weight.shape[1], weight.shape[0], bias=bias is not None)
    with torch.no_grad():
        head.weight.copy_(weight)
        if head.bias is not None and bias is not None:
            head.bias.copy_(bias)
    return head.eval()


def to_stored(head: Head) -> StoredHead:
    """Return the head as plain float32 arrays.

    ``extra`` holds what the kind needs beside weight and bias: ``scale [1]`` and ``learn_scale [1]``
    (cosine), ``concentration [C]`` and ``scale [1]`` before sigmoid and softplus (WCDAS), ``hidden_weight
    [H, D]`` and ``hidden_bias [H]`` (two layers, whose ``weight`` is ``[C, H]``).
    """
    arrays = {name: value.detach().cpu().float().numpy().copy() for name, value in head.state_dict().items()}
    weight, bias = arrays.pop("weight"), arrays.pop("bias", None)
    if isinstance(head, CosineHead):
        arrays["learn_scale"] = torch.tensor([float(head.learn_scale)]).numpy()
    return StoredHead(kind=head.kind, weight=weight, bias=bias, extra=arrays)


@torch_defaults()
def from_stored(stored: StoredHead) -> Head:
    """Return the module of a stored head; its logits are those of the module it came from.

    Raises
    ------
    InputError
        The kind is unknown, or an array is missing or has the wrong shape.
    """
    if stored.kind not in _KINDS:
        raise InputError(f"head: unknown kind {stored.kind!r}; {nearest(stored.kind, HEADS)}")
    num_classes, dim = stored.weight.shape
    arrays = dict(stored.extra)
    head: Head
    # The first weights are replaced at once: they take nothing from the caller's random numbers.
    with torch.random.fork_rng(devices=[]):
        if stored.kind == "linear":
            head = LinearHead(dim, num_classes, bias=stored.bias is not None)
        elif stored.kind == "cosine":
            learned = arrays.pop("learn_scale", None)
            head = CosineHead(dim, num_classes, learn_scale=learned is None or bool(learned[0]))
        elif stored.kind == "mlp":
            head = MLPHead(_hidden_dim(arrays, dim), num_classes, dim)
        else:
            head = WCDASHead(dim, num_classes)
    arrays["weight"] = stored.weight
    if stored.bias is not None:
        arrays["bias"] = stored.bias
    state = {name: torch.tensor(value, dtype=torch.float32) for name, value in arrays.items()}
    try:
        head.load_state_dict(state)
    except RuntimeError as error:
        detail = " ".join(str(error).split())
        raise InputError(f"head of kind {stored.kind!r}: its arrays do not fit ({detail})") from None
    return head


def _hidden_dim(arrays: dict[str, Any], width: int) -> int:
    """Return the feature dimensions of a stored head of two layers."""
    hidden = arrays.get("hidden_weight")
    if hidden is None or hidden.ndim != 2 or hidden.shape[0] != width:
        found = "missing" if hidden is None else list(hidden.shape)
        raise InputError(f"head of kind 'mlp': hidden_weight is {found}, expected [{width}, D]")
    return int(hidden.shape[1])
