"""A few rows from every kind of CUDA kernel, for compute-sanitizer: it makes programs many times slower."""

from __future__ import annotations

import os

import torch

from ldmlr import ops
from ldmlr.bench.models import random_labels, random_spec
from ldmlr.sampler.cuda import CudaSampler
from ldmlr.sampler.cuda.tiers import IN_LAYERS, VARIABLE


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
    main()
