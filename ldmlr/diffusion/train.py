"""Training of a denoiser: deterministic for a seed, with checkpoints that resume exactly.

Ranks that train together make the same draws, take their rows of each batch and add up their gradients: the
course is that of one process, but for the order in which sums are rounded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import silu

from ldmlr import progress
from ldmlr.device import set_threads, torch_threads
from ldmlr.diffusion import course
from ldmlr.diffusion.config import DiffusionConfig
from ldmlr.diffusion.course import RESOLUTION
from ldmlr.diffusion.denoiser import NETWORKS, Denoiser
from ldmlr.diffusion.reference_state import State
from ldmlr.diffusion.weights import TIME_FEATURES
from ldmlr.ranks import ALONE, Ranks

# A training step with fewer multiply-adds than this runs on one thread: on more, waiting for each other
# costs more than it saves, and many times more on a busy machine (15 x measured with H 128).
SERIAL_STEP = 1e9


@contextmanager
def thread_count(config: DiffusionConfig, dim: int, threads: int | None) -> Iterator[None]:
    """Set torch's threads for a training and restore them; None chooses by the size of a step."""
    layer = TIME_FEATURES + 2 * dim + 3 * config.layers * config.hidden
    small = 3 * config.batch_size * config.hidden * layer < SERIAL_STEP
    with torch_threads(None):
        set_threads(1 if threads is None and small else threads)
        yield


class Batches:
    """Training rows drawn class by class: class in proportion to ``counts^power``, then any row of it.

    Parameters
    ----------
    z, labels
        Rows in the space of the diffusion ``[N, D]`` and their classes ``[N]``.
    counts
        Clean rows per class ``[C]``.
    power
        1 draws classes as they come, 0 all classes alike.
    """

    def __init__(self, z: Tensor, labels: Tensor, counts: npt.NDArray[np.int64], power: float) -> None:
        self.z, self.order = z, torch.argsort(labels, stable=True)
        self.rows = torch.bincount(labels, minlength=len(counts))
        self.first = torch.cumsum(self.rows, 0) - self.rows
        self.weights = torch.from_numpy(counts.astype(np.float64) ** power)

    def draw(self, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return (rows ``[size, D]``, labels ``[size]``)."""
        labels = torch.multinomial(self.weights, size, replacement=True, generator=generator)
        place = torch.rand(size, generator=generator, dtype=torch.float64)
        rows = self.order[self.first[labels] + (place * self.rows[labels]).long()]
        return self.z[rows], labels


def train(
    config: DiffusionConfig,
    z: npt.NDArray[np.float32],
    labels: npt.NDArray[np.int64],
    counts: npt.NDArray[np.int64],
    *,
    seed: int,
    device: torch.device,
    checkpoint: Path | None = None,
    resume: bool = False,
    key: str = "",
    importance: npt.NDArray[np.float64] | None = None,
    ranks: Ranks = ALONE,
) -> tuple[Denoiser, list[float]]:
    """Train a denoiser and return it with its averaged weights, and the course of the loss.

    A network that dies on the way is started again with a quarter of the rate.

    Parameters
    ----------
    config
        Network and training.
    z, labels
        Rows in the space of the diffusion ``[N, D]`` and their classes ``[N]``.
    counts
        Clean rows per class ``[C]``.
    seed
        Determines initial weights and all draws.
    device
        Where to train. Draws are made on the CPU, so they are the same everywhere.
    checkpoint
        File to save the state to every few hundred iterations; removed by the caller.
    resume
        Continue from `checkpoint` if it is there.
    key
        Identifies configuration and data; a checkpoint with another key is refused.
    importance
        How much the error on each number of a row counts ``[D]``, 1 on average; None: all alike.
    ranks
        The processes that train together, all on the same `z`; the first has the checkpoint.

    Raises
    ------
    LdmlrError
        The loss is no longer finite, or the network died at every rate that was tried.
    """
    weight = np.ones(z.shape[1]) if importance is None else importance

    def run(lowered: DiffusionConfig, own: str) -> tuple[Denoiser, list[float]]:
        return _train(lowered, z, labels, counts, weight, seed, device, checkpoint, resume, own, ranks)

    return course.attempts(config, key, checkpoint, resume, run, ranks)


def _train(
    config: DiffusionConfig,
    z: npt.NDArray[np.float32],
    labels: npt.NDArray[np.int64],
    counts: npt.NDArray[np.int64],
    importance: npt.NDArray[np.float64],
    seed: int,
    device: torch.device,
    checkpoint: Path | None,
    resume: bool,
    key: str,
    ranks: Ranks,
) -> tuple[Denoiser, list[float]]:
    state = _start(config, importance, len(counts), seed, device)
    if resume and checkpoint is not None and checkpoint.exists():
        state.load(checkpoint, key)
    state.share(ranks)
    trained = list(state.network.parameters())
    parameters = [parameter.detach() for parameter in trained]
    batches = Batches(torch.from_numpy(z), torch.from_numpy(labels), counts, config.class_power)
    objective = _Objective(config, len(counts), device, importance, ranks)
    with progress.bar(config.steps, "diffuse", "step", initial=state.done) as bar:
        for step in range(state.done, config.steps):
            for group in state.optimiser.param_groups:
                group["lr"] = config.lr * course.rate(step, config)
            rows, classes = batches.draw(config.batch_size, state.generator)
            loss = objective(state.network, rows, classes, state.generator)
            state.optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            ranks.sum(*(parameter.grad for parameter in trained if parameter.grad is not None))
            state.optimiser.step()
            torch._foreach_lerp_(state.averaged, parameters, course.averaging(step, config))
            state.total += loss.detach()
            state.done = step + 1
            bar.update(1)
            if state.done % course.REPORT_EVERY == 0 or state.done == config.steps:
                _report(state, config, ranks)
                _check_alive(state.network, [part.to(device) for part in objective.seen])
                bar.set_postfix(loss=f"{state.losses[-1]:.4f}")
            due = state.done % course.CHECKPOINT_EVERY == 0 and state.done < config.steps
            if checkpoint is not None and due:
                state.save(checkpoint, key)
    for parameter, average in zip(parameters, state.averaged, strict=True):
        parameter.copy_(average)
    return state.network.cpu().eval(), state.losses


def _start(
    config: DiffusionConfig,
    importance: npt.NDArray[np.float64],
    num_classes: int,
    seed: int,
    device: torch.device,
) -> State:
    """Return a training before its first iteration."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = NETWORKS[config.network](len(importance), num_classes, config.hidden, config.layers)
    network.weigh_inputs(torch.from_numpy(importance))
    network.to(device).train()
    parameters = list(network.parameters())
    return State(
        network,
        averaged=[parameter.detach().clone() for parameter in parameters],
        optimiser=torch.optim.AdamW(parameters, lr=config.lr, weight_decay=config.weight_decay, fused=True),
        generator=torch.Generator().manual_seed(seed),
        total=torch.zeros((), device=device),
    )


@torch.no_grad()
def _check_alive(network: Denoiser, batch: Sequence[Tensor]) -> None:
    """Raise if hardly a unit of the last layer differs between the rows of a batch, of two rows at least."""
    if len(batch[0]) < 2:
        return
    spread = silu(network.residual_stream(*batch)).std(dim=0)
    if float((spread > course.ANSWER).float().mean()) < course.ALIVE:
        raise course.Dead


def _report(state: State, config: DiffusionConfig, ranks: Ranks) -> None:
    """Note the mean loss since the last report."""
    ranks.sum(state.total)
    state.losses.append(course.mean_loss(float(state.total), state.done, config))
    state.total.zero_()


class _Objective:
    """Mean squared error of the prediction at random times, on random noise, with label dropout.

    Of a rank it is that of its rows, over the rows of all: the sum over the ranks is the mean of the batch.
    """

    def __init__(
        self,
        config: DiffusionConfig,
        num_classes: int,
        device: torch.device,
        importance: npt.NDArray[np.float64],
        ranks: Ranks,
    ) -> None:
        self.config, self.null, self.device, self.ranks = config, num_classes, device, ranks
        self.importance = torch.from_numpy(importance.astype(np.float32)).to(device)
        self.seen: tuple[Tensor, Tensor, Tensor] = (torch.empty(0),) * 3  # the last batch, of all ranks
        self.alpha, self.sigma = map(torch.from_numpy, course.noise_levels(config))

    def __call__(self, network: Denoiser, x0: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Return the loss of one batch; every draw comes from the CPU generator."""
        index = torch.randint(RESOLUTION + 1, (len(x0),), generator=generator)
        dropped = torch.rand(len(x0), generator=generator) < self.config.label_dropout
        eps = torch.randn(x0.shape, generator=generator)
        labels = torch.where(dropped, self.null, labels)
        alpha, sigma = self.alpha[index, None], self.sigma[index, None]
        x = alpha * x0 + sigma * eps
        target = {"v": alpha * eps - sigma * x0, "eps": eps, "x0": x0}[self.config.prediction]
        t = index / RESOLUTION
        self.seen = x, t, labels
        own = self.ranks.part(len(x0))
        x, t, labels, target = (whole[own].to(self.device) for whole in (x, t, labels, target))
        loss: Tensor = ((network(x, t, labels) - target) ** 2 * self.importance).mean()
        return loss if self.ranks.alone else loss * (len(x) / len(x0))
