"""Heads that are no convex problem, trained by AdamW in batches: two layers, cosine and WCDAS.

The learning rate rises for three tenths of the steps and falls to almost nothing along a cosine (one cycle).
Features of the two-layer head are standardised, which is folded into its first layer afterwards.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from ldmlr.heads.linear import row_weights, trained_offset
from ldmlr.heads.modules import AngularHead, Head, MLPHead, make_head
from ldmlr.heads.spec import HeadSpec
from ldmlr.heads.standard import Standard
from ldmlr.heads.training import fitting_threads
from ldmlr.heads.training_rows import TrainingRows

BATCH = 256
# Passes over the rows, within limits of steps: few rows need more passes, many need fewer.
PASSES, FEWEST_STEPS, MOST_STEPS = 60, 300, 6000
RATE, ANGULAR_RATE = 1e-3, 1e-2
# Standard deviation of the logits that an angular head starts with: sure of little, but not flat.
FIRST_SPREAD = 2.0


def step_count(rows: int) -> int:
    """Return the steps of a training on so many rows."""
    return min(max(PASSES * math.ceil(rows / BATCH), FEWEST_STEPS), MOST_STEPS)


class TrainedPath:
    """Heads of some rows, each trained anew.

    Parameters
    ----------
    rows, weights
        What they are fitted to, and what each row weighs.
    seed
        Of first weights, batches and dropout.
    device
        Where to compute.
    """

    def __init__(
        self,
        rows: TrainingRows,
        weights: npt.NDArray[np.float64],
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        self.rows, self.weights, self.seed, self.device = rows, weights, seed, device
        self.standard = Standard.of(rows.features)

    def fit(self, spec: HeadSpec, *, fine: bool = True) -> Head:
        """Return the head of a specification in which everything is settled."""
        assert spec.weight_decay is not None
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            head = self._start(spec)
            self._train(head, spec)
        if isinstance(head, MLPHead):
            with torch.no_grad():
                weight, bias = self.standard.fold(head.hidden_weight, head.hidden_bias)
                head.hidden_weight.copy_(weight)
                head.hidden_bias.copy_(bias)
        return head.eval()

    def _start(self, spec: HeadSpec) -> Head:
        if spec.kind == "mlp":
            assert spec.width is not None
            assert spec.dropout is not None
            return MLPHead(self.rows.dim, self.rows.num_classes, spec.width, spec.dropout)
        head = make_head(spec.kind, self.rows.dim, self.rows.num_classes)
        assert isinstance(head, AngularHead)
        features, labels = self.rows.features, self.rows.labels
        trained = self.weights > 0
        with torch.no_grad():
            for label in np.unique(labels[trained]):
                own = features[trained & (labels == label)]
                mean = own.mean(axis=0, dtype=np.float64)
                unit = mean / max(float(np.linalg.norm(mean)), 1e-12)
                head.get_parameter("weight")[int(label)] = torch.from_numpy(unit)
            logits = head(torch.from_numpy(features[:: max(1, len(features) // 4096)]))
            spread = float((logits - logits.mean(1, keepdim=True)).std())
        if spread > 0:
            head.rescale(FIRST_SPREAD / spread)
        return head

    def _train(self, head: Head, spec: HeadSpec) -> None:
        rows, place = self.rows, self.device
        chosen = np.flatnonzero(self.weights > 0)
        weights = row_weights(spec, rows, self.weights)
        share = torch.from_numpy(weights / weights[chosen].mean()).float()
        offset = torch.from_numpy(trained_offset(spec, rows, self.weights)).float().to(place)
        features, labels, index = (torch.from_numpy(part) for part in (rows.features, rows.labels, chosen))
        mean, scale = self.standard.tensors()
        standardised = isinstance(head, MLPHead)
        head.to(place).train()
        rate = RATE if standardised else ANGULAR_RATE
        decay = spec.weight_decay or 0.0
        optimiser = torch.optim.AdamW(head.parameters(), lr=rate, weight_decay=decay, fused=True)
        steps, size = step_count(len(chosen)), min(BATCH, len(chosen))
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps)
        # Batches go through the rows in one random order after the other.
        order = torch.empty(0, dtype=torch.int64)
        with fitting_threads(size * rows.dim * (spec.width or 1 if standardised else rows.num_classes)):
            for _ in range(steps):
                if len(order) < size:
                    order = torch.cat([order, index[torch.randperm(len(index))]])
                batch, order = order[:size], order[size:]
                x = features[batch]
                if standardised:
                    x = (x - mean) * scale
                logits = head(x.to(place)) + offset
                losses = F.cross_entropy(logits, labels[batch].to(place), reduction="none")
                optimiser.zero_grad(set_to_none=True)
                (losses * share[batch].to(place)).mean().backward()  # type: ignore[no-untyped-call]
                optimiser.step()
                schedule.step()
        head.to("cpu")
