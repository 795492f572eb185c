"""A few rows from every kind of CUDA kernel, or with the word train a few steps of the trainer.

For compute-sanitizer, which makes programs many times slower.
"""

from __future__ import annotations

import os
import sys

import numpy as np
import torch

from ldmlr import ops
from ldmlr.bench.models import random_labels, random_spec
from ldmlr.diffusion.config import DiffusionConfig
from ldmlr.diffusion.fused_cuda import CudaSteps
from ldmlr.sampler.cuda import CudaSampler
from ldmlr.sampler.cuda.tiers import IN_LAYERS, VARIABLE


def train() -> None:
    """Train some steps: odd sizes, parts of blocks, a graph and single launches."""
    for dim, hidden, batch, classes in ((34, 96, 75, 3), (5, 520, 20, 270)):
        rows = np.random.default_rng(0).standard_normal((540, dim)).astype(np.float32)
        labels = np.arange(540) % classes
        config = DiffusionConfig(hidden=hidden, batch_size=batch, iterations=7)
        counts, importance = np.bincount(labels), np.ones(dim)
        steps = CudaSteps(config, rows, labels, counts, importance, 0, "cuda", graph_steps=3)
        state = steps.start(config)
        steps.advance(config, state, config.iterations)
        assert np.isfinite(state.state).all()
        print("train", dim, hidden, state.losses)


def main() -> None:
    """Draw with and without guidance, with noise in the steps, with both transforms; take one step."""
    # The wide model is for the kernels in layers: blocks in pairs, and more steps than stages.
    wide = 480 if os.environ.get(VARIABLE) in IN_LAYERS else 96
    for guidance, diagonal, hidden in ((1.5, False, 96), (1.0, True, wide)):
        spec = random_spec(
            34, hidden, steps=3, solver="ddpm", guidance=guidance, diagonal=diagonal, classes=3
        )
        sampler = CudaSampler(spec)
        labels = random_labels(spec, 200)
        for dtype in ("float32", "bfloat16"):
            rows = sampler(labels, 5, dtype=dtype)
            assert rows.isfinite().all()
        print(sampler.tier, float(rows.float().mean()))
    table = torch.from_numpy(spec.rows.table())
    x = ops.initial_noise(0, 0, 50, 6, device="cuda")
    ops.denoise_step(x, torch.zeros_like(x), 0.5 * x, table, 0, 0)
    assert x.isfinite().all()


if __name__ == "__main__":
    train() if sys.argv[1:] == ["train"] else main()
