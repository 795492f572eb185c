"""A readable twin of the fused trainer: its draws in NumPy, its steps in PyTorch at any precision.

The draws are those of csrc/train_draw.h, word for word; loss and gradients come from autograd.
"""

from __future__ import annotations

import numpy as np
import torch

from ldmlr import _native
from ldmlr.diffusion import fused, fused_state
from ldmlr.diffusion.course import RESOLUTION
from ldmlr.diffusion.denoiser import AdditiveMLP
from ldmlr.diffusion.schedule import make_schedule
from ldmlr.sampler.noise import Stream, standard_normal


def words(seed: int, row: int, stream: int, step: int) -> tuple[int, int, int, int]:
    """Return the words of the first counter of a row."""
    return _native.philox4x32(
        0, row & 0xFFFFFFFF, row >> 32, stream << 24 | step, seed & 0xFFFFFFFF, seed >> 32
    )


class Twin:
    """What `ldmlr.diffusion.fused.Steps` does, from the same arguments."""

    def __init__(self, config, z, labels, counts, importance, seed, share, dtype=torch.float64):
        self.config, self.z, self.counts, self.seed, self.share = config, z, counts, seed, share
        self.importance, self.dtype = importance, dtype
        self.of_class = [np.flatnonzero(labels == c) for c in range(len(counts))]
        self.last = fused.thresholds(counts.astype(float) ** config.class_power)
        arrays = fused.initial(z.shape[1], len(counts), config, importance, seed)
        self.network = AdditiveMLP(z.shape[1], len(counts), config.hidden, config.layers)
        self.network.load_state_dict({name: torch.from_numpy(value) for name, value in arrays.items()})
        self.network.to(dtype)

    def time(self, step: int, row: int) -> int:
        """Return the time of a row: within a stratum as wide as its share of the batch."""
        first = row // self.share * self.share
        wide = min(self.share, self.config.batch_size - first)
        word = words(self.seed, row // self.share, Stream.TRAIN_TIME, step)[0]
        within = (word * wide + (first << 32)) // self.config.batch_size
        return within * (RESOLUTION + 1) >> 32

    def draw(self, step: int):
        """Return x, t, labels (C: dropped) and the target of a batch, in float64."""
        config, size = self.config, self.config.batch_size
        rows, labels, times = [], [], []
        for i in range(size):
            w = words(self.seed, i, Stream.TRAIN_ROW, step)
            label = int(np.searchsorted(self.last, w[0]))
            own = self.of_class[label]
            rows.append(own[w[1] * len(own) >> 32])
            dropped = w[2] < round(config.label_dropout * 2**32)
            labels.append(len(self.counts) if dropped else label)
            times.append(self.time(step, i))
        t = np.array(times) / RESOLUTION
        noise = standard_normal(self.seed, 0, size, self.z.shape[1], Stream.TRAIN_NOISE, step)
        schedule = make_schedule(config.noise_schedule)
        alpha, sigma = schedule.alpha(t)[:, None], schedule.sigma(t)[:, None]
        x0, noise = self.z[rows].astype(float), noise.astype(float)
        target = {"v": alpha * noise - sigma * x0, "eps": noise, "x0": x0}[config.prediction]
        parts = alpha * x0 + sigma * noise, t, np.array(labels), target
        return tuple(torch.from_numpy(part) for part in parts)

    def loss(self, step: int) -> torch.Tensor:
        """Return the loss of a batch."""
        x, t, labels, target = self.draw(step)
        found = self.network(x.to(self.dtype), t.to(self.dtype), labels)
        weight = torch.from_numpy(self.importance).to(self.dtype)
        return ((found - target.to(self.dtype)) ** 2 * weight).mean()

    def gradients(self, step: int) -> tuple[float, np.ndarray]:
        """Return the loss of a batch and the gradient of every weight, flat."""
        self.network.zero_grad()
        loss = self.loss(step)
        loss.backward()
        names = fused_state.shapes(self.z.shape[1], len(self.counts), self.config.hidden, self.config.layers)
        found = dict(self.network.named_parameters())
        return float(loss.detach()), np.concatenate([found[name].grad.numpy().ravel() for name in names])
