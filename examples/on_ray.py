"""Pseudo-features drawn by the workers of a Ray cluster: the rows that one process would draw.

    python examples/on_ray.py model.safetensors pseudo.h5
    ldmlr generate model.safetensors --engine ray --shards 8 --out pseudo.h5     # the same, as a command

A worker asks for the rows by their numbers; nobody sends noise or waits for another. That is why a lost
worker costs its shard alone, and why the shards fit together.
"""

from __future__ import annotations

import itertools
import sys

import numpy as np
import ray

import ldmlr
from ldmlr.store import SplitData


@ray.remote(num_cpus=1)
def draw(model_path: str, labels: np.ndarray, first_row: int, seed: int) -> np.ndarray:
    """Draw one part of the rows on a worker."""
    return ldmlr.LatentDiffusion.load(model_path).sample(labels, seed=seed, first_row=first_row, threads=1)


def main(model_path: str, out: str, per_class: int = 1000, parts: int = 4, seed: int = 0) -> int:
    """Draw rows of every class in parts, write them as a store, and return how many there are."""
    classes = ldmlr.LatentDiffusion.load(model_path).num_classes
    labels = np.repeat(np.arange(classes), per_class)
    starts = np.linspace(0, len(labels), parts + 1).astype(int)
    tasks = [
        draw.remote(model_path, labels[start:end], int(start), seed)
        for start, end in itertools.pairwise(starts)
    ]
    rows = np.concatenate(ray.get(tasks))
    train = SplitData(rows, labels, source=np.ones(len(rows), np.uint8))
    ldmlr.FeatureStore.write(out, train=train, encoder="drawn on Ray")
    return len(rows)


if __name__ == "__main__":
    ray.init()
    print(main(*sys.argv[1:3]), "rows")
