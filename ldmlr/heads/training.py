"""Training of a head on rows in memory: plain tensors, no data loader.

Twelve passes over 50,000 rows of 64 features take about a second on one core. The order
of rows and the head-mix come from one generator seeded per call and drawn on the CPU, so a run depends
on its seed alone and the global random state stays untouched.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from ldmlr import isa, progress
from ldmlr.device import torch_threads
from ldmlr.errors import UsageError, opt
from ldmlr.heads.config import AUTO, MIX, FinetuneConfig
from ldmlr.heads.constraints import limit_norms, monotone_norms
from ldmlr.heads.losses import added_offset, make_loss
from ldmlr.heads.modules import Head, LinearHead, make_head
from ldmlr.heads.softmax import Batch, SoftmaxRows
from ldmlr.heads.training_rows import TrainingRows
from ldmlr.heads.wide_steps import LONG_STEP, WideSteps
from ldmlr.learning_rate import cosine_decay
from ldmlr.processor import vector_products

# The recipe takes 49 steps per pass. A set of a few hundred rows would see only a handful of steps with
# its batch of 1,024, so it is cut into as many batches, but never smaller than 32 rows.
STEPS_PER_EPOCH = 48
SMALLEST_BATCH = 32

# Multiply-adds per step under which one thread is faster: the work is done before a second one wakes up, and
# on a busy machine waiting for it took ten to fifty times as long.
SMALL_STEP = 1 << 24

EpochCallback = Callable[[int, Head], None]


def batch_size(rows: int, batch: int) -> int:
    """Return the rows per step: `batch`, or fewer where a pass would have under 48 steps."""
    return min(batch, max(SMALLEST_BATCH, math.ceil(rows / STEPS_PER_EPOCH)))


def pass_steps(rows: int, batch: int) -> int:
    """Return the steps of a pass over so many rows."""
    return math.ceil(rows / batch_size(rows, batch))


@contextmanager
def fitting_threads(work: int) -> Iterator[None]:
    """Compute on one thread while a step is `work` multiply-adds, if that is little."""
    with torch_threads(1 if work < SMALL_STEP else None):
        yield


def fresh_head(kind: str, dim: int, num_classes: int, seed: int) -> Head:
    """Return a head with random weights drawn from `seed` alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make_head(kind, dim, num_classes)


def written_out(
    head: Head, rows: TrainingRows, config: FinetuneConfig, loss: str, device: torch.device, work: int
) -> WideSteps | None:
    """Return the steps of a head without a graph, or None where autograd takes them.

    Parameters
    ----------
    head, rows, config, device
        As of `train_head`.
    loss
        The name of the loss.
    work
        Multiply-adds of a step.

    Raises
    ------
    UsageError
        Products of bfloat16 were asked for where there are none.
    """
    # A loss that is a cross-entropy but for an offset, on the CPU.
    can = device.type == "cpu" and isinstance(head, LinearHead) and loss != "class-weights"
    wanted = config.precision == "bfloat16"
    if wanted and not can:
        raise UsageError(
            f"{opt('precision', 'bfloat16')}: only a linear head on the CPU multiplies it, not a {head.kind} "
            f"head on {device}; leave it out"
        )
    if not can or not (wanted or work >= LONG_STEP):
        return None
    assert isinstance(head, LinearHead)
    products = vector_products(config.precision, isa.choose())
    memory = SoftmaxRows(
        torch.from_numpy(rows.features), torch.from_numpy(rows.labels), rows.num_classes, products=products
    )
    offset = added_offset(loss, rows.all_counts, config.tau)
    return WideSteps(head, memory, torch.from_numpy(offset).float())


def train_head(
    head: Head,
    rows: TrainingRows,
    config: FinetuneConfig,
    *,
    seed: int = 0,
    device: torch.device | str = "cpu",
    label: str = "fine-tune",
    on_epoch: EpochCallback | None = None,
) -> list[dict[str, Any]]:
    """Train `head` in place and return one record per epoch: ``epoch``, ``loss``, ``lr``, ``precision``.

    Adam with the learning rate on a cosine to zero, stepped per batch. In every pass, a generated row x
    becomes ``l x + (1 - l) f`` with l uniform in (mix, 1) and f a random encoded row; its label stays.

    Parameters
    ----------
    head
        Moved to `device` and back to the CPU.
    rows
        Encoded and generated rows.
    config
        `epochs`, `batch`, `lr`, `weight_decay`, `mix`, `loss`, `tau`, `norm_limit`,
        `monotone_norms`, `precision`.
    seed
        Seeds the order of rows and the mix.
    on_epoch
        Called after each epoch with its number (from 1) and the head.

    Raises
    ------
    UsageError
        As of `written_out`.
    """
    generator = torch.Generator().manual_seed(seed)
    features = torch.from_numpy(rows.features).to(device)
    labels = torch.from_numpy(rows.labels).to(device)
    loss_name = "cross-entropy" if config.loss == AUTO else config.loss
    loss_of = make_loss(loss_name, rows.all_counts, config.tau)
    head.to(device).train()
    total, size = len(labels), batch_size(len(labels), config.batch_size)
    steps = pass_steps(total, config.batch_size)
    history: list[dict[str, Any]] = []
    mix = MIX if config.mix is None else config.mix
    mixing = rows.generated > 0 and mix < 1
    work = size * rows.dim * rows.num_classes
    wide = written_out(head, rows, config, loss_name, features.device, work)
    optimiser = torch.optim.AdamW(
        head.parameters(), lr=config.lr, weight_decay=config.weight_decay or 0.0,
        fused=None if wide is None else True,
    )  # fmt: skip
    with progress.bar(config.epochs, label, "epoch") as shown, fitting_threads(work):
        for epoch in range(config.epochs):
            order = torch.randperm(total, generator=generator)
            if mixing:
                share = 1 - (1 - mix) * torch.rand(total, 1, generator=generator)
                share[order < rows.encoded] = 1
                partner = torch.randint(rows.encoded, (total,), generator=generator).to(device)
                share = share.to(device)
            order = order.to(device)
            running = torch.zeros((), device=device)
            for step in range(steps):
                chosen = slice(step * size, (step + 1) * size)
                own = order[chosen]
                done = (epoch * steps + step) / (config.epochs * steps)
                for group in optimiser.param_groups:
                    group["lr"] = config.lr * cosine_decay(done)
                if wide is not None:
                    mixture = (partner[chosen], share[chosen, 0]) if mixing else ()
                    running += wide.backward(Batch(own, *mixture)) * len(own)
                else:
                    x = features[own]
                    if mixing:
                        x = share[chosen] * x + (1 - share[chosen]) * features[partner[chosen]]
                    loss = loss_of(head(x), labels[own])
                    optimiser.zero_grad(set_to_none=True)
                    loss.backward()  # type: ignore[no-untyped-call]
                    running += loss.detach() * len(own)
                optimiser.step()
                if config.monotone_norms:
                    monotone_norms(head.get_parameter("weight"), rows.counts)
                # Cut to one length, an order stays.
                if config.norm_limit:
                    limit_norms(head.get_parameter("weight"), config.norm_limit)
            record = {
                "epoch": epoch + 1,
                "loss": float(running) / total,
                "lr": optimiser.param_groups[0]["lr"],
                "precision": "float32" if wide is None else wide.rows.products,
            }
            history.append(record)
            shown.update(1)
            shown.set_postfix(loss=f"{record['loss']:.4f}")
            if on_epoch is not None:
                on_epoch(epoch + 1, head)
    head.to("cpu").eval()
    return history


# The recipe for a head from random weights.
FITTED = FinetuneConfig(epochs=30, lr=1e-2)
