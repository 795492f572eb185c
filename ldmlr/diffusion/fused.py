"""The fused trainer: whole steps in the extension, for the additive network; on CPUs (``csrc/cpu/train*``).

All draws of a step are a pure function of (seed, step, row of the batch) and gradients are summed over the
rows in their order, so the model is the same to the bit for any number of threads and whatever the point
of resumption. The PyTorch trainer (`ldmlr.diffusion.train`) trains the same network by the same objective
with other draws. NumPy in and out; imports no torch. On CUDA devices: `ldmlr.diffusion.fused_cuda`.

Times are stratified over the batch and shared by `SHARE` rows each: the network that embeds them, a
third of the operations, is evaluated once per time instead of once per row, and a batch covers the times
evenly.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ldmlr import _native, isa, progress
from ldmlr.device import thread_number
from ldmlr.diffusion import course, fused_state
from ldmlr.diffusion.config import PREDICTIONS, DiffusionConfig
from ldmlr.diffusion.course import RESOLUTION, Dead
from ldmlr.diffusion.weights import time_features

# Rows of a batch that share a time.
SHARE = 8
# Rows that a thread takes at a time: a multiple of the first, at most the second; a tile reads all weights.
TILE, MOST = 64, 256
BETA1, BETA2 = 0.9, 0.999
PRODUCTS = {"float32": _native.Dtype.float32, "bfloat16": _native.Dtype.bfloat16}
# Makes the generator of initial weights another one than those of other uses of the seed.
INITIAL = 0x1A17

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]
Arrays = dict[str, Floats]
Losses = npt.NDArray[np.float64]


def train(
    found: Steps, config: DiffusionConfig, *, checkpoint: Path | None, resume: bool, key: str
) -> tuple[Arrays, list[float]]:
    """Train a denoiser and return its averaged weights, by name, and the course of the loss.

    Parameters
    ----------
    found
        What trains, on what.
    config
        Network and training.
    checkpoint, resume, key
        As of `ldmlr.diffusion.train.train`.

    Raises
    ------
    LdmlrError
        The loss is no longer finite, or the network died at every rate that was tried.
    """

    def run(lowered: DiffusionConfig, own: str) -> tuple[Arrays, list[float]]:
        return found.run(lowered, checkpoint, resume, own)

    # The state of one type of products is no state of the other.
    return course.attempts(config, f"{key} {found.products}", checkpoint, resume, run)


class Steps:
    """The steps of a training: what the extension is told of them.

    Parameters
    ----------
    config
        Network and training.
    z, labels
        Rows in the space of the diffusion ``[N, K]`` and their classes ``[N]``.
    counts
        Clean rows per class ``[C]``.
    importance
        As of `ldmlr.diffusion.train.train`.
    seed
        Determines initial weights and all draws.
    products
        ``float32``, or ``bfloat16``: products of bfloat16 with float32 sums and weights.
    threads
        CPU threads; None: all usable cores. The model does not depend on it.
    set_name
        Instruction set; None: the fastest, or that of ``LDMLR_ISA``.
    share
        Rows of a batch that share a time: a power of two up to 64.
    tile
        Rows that a thread takes at a time, a multiple of 64 up to 256; None: as the threads allow. The model
        does not depend on it.
    """

    def __init__(
        self,
        config: DiffusionConfig,
        z: Floats,
        labels: Labels,
        counts: Labels,
        importance: npt.NDArray[np.float64],
        seed: int,
        products: str,
        threads: int | None = None,
        *,
        set_name: str | None = None,
        share: int = SHARE,
        tile: int | None = None,
    ) -> None:
        self.seed, self.products, self.isa = seed, products, isa.choose(set_name).name
        self.threads = min(thread_number(threads), -(-config.batch_size // TILE))
        if tile is None:
            tile = min(MOST, -(-config.batch_size // self.threads // TILE) * TILE)
        self.importance = importance
        self._arrays: list[npt.NDArray[Any]] = []  # what the addresses below point into
        rows = np.bincount(labels, minlength=len(counts))
        alpha, sigma = course.noise_levels(config)
        self.params = _native.TrainParams(
            latent=z.shape[1], hidden=config.hidden, layers=config.layers, classes=len(counts),
            batch=config.batch_size, share=share, prediction=PREDICTIONS.index(config.prediction),
            tile=tile, resolution=RESOLUTION, answer=course.ANSWER, seed=seed,
            dropped=round(config.label_dropout * 2**32),
            z=self._keep(z, np.float32),
            order=self._keep(np.argsort(labels, kind="stable"), np.int64),
            first=self._keep(np.cumsum(rows) - rows, np.int64),
            rows=self._keep(rows, np.int64),
            cumulative=self._keep(thresholds(counts.astype(np.float64) ** config.class_power), np.uint32),
            alpha=self._keep(alpha, np.float32), sigma=self._keep(sigma, np.float32),
            features=self._keep(_time_table(), np.float32),
            importance=self._keep(importance, np.float32),
        )  # fmt: skip

    def _keep(self, array: npt.NDArray[Any], kind: type[Any]) -> int:
        self._arrays.append(np.ascontiguousarray(array, kind))
        return int(self._arrays[-1].ctypes.data)

    def start(self, config: DiffusionConfig) -> fused_state.State:
        """Return a training before its first iteration."""
        arrays = initial(self.params.latent, self.params.classes, config, self.importance, self.seed)
        weights = fused_state.flat(arrays)
        assert len(weights) == _native.train_numbers(self.params)
        moments = np.zeros_like(weights)
        return fused_state.State(np.stack([weights, moments, moments, weights]))

    def run(
        self, config: DiffusionConfig, checkpoint: Path | None, resume: bool, key: str
    ) -> tuple[Arrays, list[float]]:
        """Train to the end, from a checkpoint if it is there and wanted; see `train`."""
        state = self.start(config)
        if resume and checkpoint is not None and checkpoint.exists():
            state.load(checkpoint, key)
        with progress.bar(config.steps, "diffuse", "step", initial=state.done) as bar:
            while state.done < config.steps:
                last = config.steps
                if checkpoint is not None:
                    last = min(last, (state.done // course.CHECKPOINT_EVERY + 1) * course.CHECKPOINT_EVERY)
                self.advance(config, state, last, bar)
                if checkpoint is not None and state.done < config.steps:
                    state.save(checkpoint, key)
        return fused_state.named(state.state[3], *self.sizes(config)), state.losses

    def sizes(self, config: DiffusionConfig) -> tuple[int, int, int, int]:
        """Return K, C, H and L."""
        return self.params.latent, self.params.classes, config.hidden, config.layers

    def advance(self, config: DiffusionConfig, state: fused_state.State, last: int, bar: Any = None) -> None:
        """Train until `last` iterations are done.

        Raises
        ------
        Dead
            Hardly a unit answers to its input any more.
        LdmlrError
            The loss is no longer finite.
        """
        first, every = state.done, course.REPORT_EVERY
        told = first
        losses = np.zeros(last - first)

        def report(done: int, answering: float) -> None:
            nonlocal told
            for loss in losses[told - first : done - first].tolist():
                state.total += loss  # one by one: the sum does not depend on where calls begin
            told = done
            if done % every == 0 or done == config.steps:
                state.losses.append(course.mean_loss(state.total, done, config))
                state.total = 0.0
                if config.batch_size > 1 and answering < course.ALIVE:
                    raise Dead
                if bar is not None:
                    bar.set_postfix(loss=f"{state.losses[-1]:.4f}")
            if bar is not None:
                bar.update(done - bar.n)

        self._train(step_table(config), state.state, losses, first, report)
        state.done = last

    def _train(
        self, table: Floats, state: Floats, losses: Losses, first: int, report: Callable[[int, float], None]
    ) -> None:
        """Do the steps from the first one on, as many as there is room for losses.

        Parameters
        ----------
        table
            Numbers of all steps.
        state
            Changed in place.
        losses
            Filled; `report` sees those of the steps done.
        first
            Steps done before.
        report
            Called with the steps done and the share of units that answer.
        """
        self.params.steps, self.params.state = table.ctypes.data, state.ctypes.data
        self.params.losses = losses.ctypes.data
        _native.train(
            self.isa, self.params, PRODUCTS[self.products], first, len(losses), self.threads,
            course.REPORT_EVERY, report,
        )  # fmt: skip


@lru_cache(maxsize=1)  # of many small trainings it is a tenth
def _time_table() -> Floats:
    """Return the features of all times that a training draws from."""
    return time_features(course.times()).astype(np.float32)


@lru_cache(maxsize=2)  # a training asks for it once a checkpoint
def step_table(config: DiffusionConfig) -> Floats:
    """Return the numbers of every step ``[iterations, 4]``: ``TrainStep`` of csrc/cpu/train.h."""
    table = np.empty((config.steps, 4))
    for step in range(config.steps):
        rate = config.lr * course.rate(step, config)
        table[step] = (
            1 - rate * config.weight_decay, rate / (1 - BETA1 ** (step + 1)),
            1 / math.sqrt(1 - BETA2 ** (step + 1)), course.averaging(step, config),
        )  # fmt: skip
    return table.astype(np.float32)


def thresholds(weights: npt.NDArray[np.float64]) -> npt.NDArray[np.uint32]:
    """Return the largest word of 32 bits that stands for each class, of weights ``[C]``."""
    share = np.cumsum(weights) / weights.sum()
    last: npt.NDArray[np.uint32] = np.clip(np.round(share * 2**32) - 1, 0, 2**32 - 1).astype(np.uint32)
    last[np.flatnonzero(weights)[-1] :] = 2**32 - 1
    return last


def initial(
    latent: int, classes: int, config: DiffusionConfig, importance: npt.NDArray[np.float64], seed: int
) -> Mapping[str, Floats]:
    """Return initial weights, of the distributions of `ldmlr.diffusion.denoiser`.

    A layer's weights and biases are uniform within the inverse root of its inputs, the table of classes is
    normal of deviation 0.5, the last layer zero; the weights of the first are scaled by the roots of
    importance.

    Parameters
    ----------
    latent, classes
        Numbers of a row K, and classes C.
    config
        Width and layers.
    importance
        Of each number ``[K]``.
    seed
        Determines them.
    """
    random = np.random.Generator(np.random.Philox([seed, INITIAL]))
    shapes = fused_state.shapes(latent, classes, config.hidden, config.layers)
    found = {}
    for name, shape in shapes.items():
        if name == "classes.weight":
            found[name] = (0.5 * random.standard_normal(shape)).astype(np.float32)
        elif name.startswith("output."):
            found[name] = np.zeros(shape, np.float32)
        else:
            inputs = shapes[f"{name.rpartition('.')[0]}.weight"][1]
            found[name] = (random.uniform(-1, 1, shape) / math.sqrt(inputs)).astype(np.float32)
    found["input.weight"] *= np.sqrt(importance).astype(np.float32)
    return found
