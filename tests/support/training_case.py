"""A training on random rows, by the fused trainers and by their twin."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ldmlr.diffusion import fused, fused_state
from ldmlr.diffusion.config import DiffusionConfig
from ldmlr.diffusion.fused_cuda import CudaSteps
from support.training_twin import Twin

# K, H, L, C, B, rows that share a time, prediction, for the trainer of CUDA devices: odd sizes, parts of
# blocks, more columns than threads, more biases of times than an operand of rows has numbers, more classes
# and rows than a list of a block takes.
CUDA_SHAPES = [
    (10, 16, 1, 3, 64, 8, "v"),
    (33, 40, 2, 5, 100, 8, "v"),
    (5, 7, 3, 1, 13, 8, "eps"),
    (1, 1, 1, 1, 1, 8, "v"),
    (70, 130, 2, 3, 37, 8, "x0"),
    (20, 515, 1, 2, 9, 8, "v"),
    (530, 9, 2, 2, 17, 8, "eps"),
    (3, 5, 40, 2, 10, 8, "v"),
    (2, 4, 1, 290, 700, 8, "v"),
]
# Largest error of a gradient, in units of the largest of its array: sums of some hundred terms in float32.
CUDA_TOLERANCE = 3e-5


class Case:
    """Random rows, a configuration, and both trainers on them."""

    def __init__(self, shape, seed=7, iterations=60, **options):
        latent, hidden, layers, classes, batch, self.share, prediction = shape
        random = np.random.default_rng(1)
        self.z = random.standard_normal((300, latent)).astype(np.float32)
        self.z[:, 0] = np.sign(self.z[:, 0])
        self.labels = np.arange(300) ** 2 % classes if classes > 1 else np.zeros(300, np.int64)
        self.counts = np.maximum(np.bincount(self.labels, minlength=classes), 1)
        self.labels[:classes] = np.arange(classes)
        self.importance = random.uniform(0.5, 1.5, latent)
        self.seed = seed
        self.config = DiffusionConfig(
            hidden=hidden, layers=layers, batch_size=batch, prediction=prediction, iterations=iterations,
            warmup_iterations=3, **options,
        )  # fmt: skip

    def steps(self, products="float32", set_name=None, threads=2, tile=None):
        return fused.Steps(
            self.config, self.z, self.labels, self.counts, self.importance, self.seed, products, threads,
            set_name=set_name, share=self.share, tile=tile,
        )  # fmt: skip

    def cuda_steps(self, device="cuda", **options):
        return CudaSteps(
            self.config, self.z, self.labels, self.counts, self.importance, self.seed, device, **options
        )

    def twin(self, dtype=torch.float64):
        return Twin(
            self.config, self.z, self.labels, self.counts, self.importance, self.seed, self.share, dtype
        )

    def trained(self, stops=(), **options):
        """Return the state behind all steps, in calls that end at `stops` too."""
        steps = self.steps(**options)
        state = steps.start(self.config)
        for stop in (*stops, self.config.iterations):
            steps.advance(self.config, state, stop)
        return state


def continued(case, other, checkpoint):
    """Return the states at step 40 of the CPU trainer, and of another that takes over at step 20."""
    on_cpu = case.steps()
    state = on_cpu.start(case.config)
    on_cpu.advance(case.config, state, 20)
    state.save(checkpoint, "key")
    taken = other.start(case.config)
    taken.load(checkpoint, "key")
    for trainer, of in ((on_cpu, state), (other, taken)):
        trainer.advance(case.config, of, 40)
    return state, taken


def check_gradients(case, steps, tolerance):
    """Compare loss and gradients of a step with those of autograd in float64.

    The largest error of a gradient is allowed `tolerance` times the largest gradient of its array, the loss a
    tenth of it.
    """
    twin = case.twin()
    # The last layer starts at zero, which would hide most of the gradient.
    with torch.no_grad():
        twin.network.output.weight.normal_(std=0.2, generator=torch.Generator().manual_seed(0))
        twin.network.output.weight.copy_(twin.network.output.weight.float())
    sizes = steps.sizes(case.config)
    found = dict(twin.network.named_parameters())
    names = fused_state.shapes(*sizes)
    state = steps.start(case.config)
    state.state[0] = fused_state.flat(
        {name: found[name].detach().numpy().astype(np.float32) for name in names}
    )
    steps.advance(case.config, state, 1)
    loss, exact = twin.gradients(0)
    assert state.total == pytest.approx(loss, rel=tolerance / 10)
    first = fused_state.named(state.state[1] / np.float32(1 - fused.BETA1), *sizes)
    for name, gradient in fused_state.named(exact, *sizes).items():
        allowed = tolerance * np.abs(gradient).max() + 1e-9
        assert np.abs(first[name] - gradient).max() <= allowed, name
