"""Training of a baseline network on a long-tailed image set.

Throughput on CPUs comes from three things: batches are augmented as tensors, images and
weights keep their channels last, and convolutions run in bfloat16 under autocast where the
processor multiplies it in hardware. Measured by ``benchmarks/stage1.py``.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from tqdm import tqdm

from ldmlr.data.images import ImageSplit
from ldmlr.encoders.augment.crop import mixup
from ldmlr.encoders.augment.pipeline import Augmentation
from ldmlr.encoders.config import BaselineConfig
from ldmlr.encoders.ema import Ema
from ldmlr.encoders.networks import build_network
from ldmlr.encoders.pixels import Pixels, even_batches, image_shape
from ldmlr.encoders.precision import DTYPES
from ldmlr.encoders.schedule import learning_rate
from ldmlr.errors import LdmlrError
from ldmlr.heads.losses import make_loss
from ldmlr.heads.modules import Head, make_head
from ldmlr.progress import bar

# Steps between two looks at the loss; each look makes a GPU wait.
CHECK_EVERY = 20

History = list[dict[str, float]]


@dataclasses.dataclass
class Draws:
    """All randomness of one epoch, a function of (seed, epoch) alone."""

    order: np.random.Generator
    mixup: np.random.Generator
    augment: torch.Generator

    @classmethod
    def of(cls, seed: int, epoch: int) -> Draws:
        """Return the generators of an epoch, and seed torch's own (for layers such as dropout)."""
        order, mix, augment, layers = np.random.SeedSequence([seed, epoch]).spawn(4)
        torch.manual_seed(int(layers.generate_state(1, np.uint64)[0] >> 1))
        generator = torch.Generator()
        generator.manual_seed(int(augment.generate_state(1, np.uint64)[0] >> 1))
        return cls(np.random.default_rng(order), np.random.default_rng(mix), generator)


class Trainer:
    """Trains network and head, epoch by epoch.

    Parameters
    ----------
    config
        The resolved configuration (`precision` no longer ``auto``).
    split
        Training images.
    seed
        Seeds the weights and every epoch's draws.
    device
        Where to compute.
    """

    def __init__(self, config: BaselineConfig, split: ImageSplit, seed: int, device: torch.device) -> None:
        self.config, self.seed, self.device = config, seed, device
        self.labels = torch.from_numpy(split.labels)
        self.num_classes = split.num_classes
        self.shape = image_shape(split)
        self.pixels = Pixels(split)
        self.mean, self.std = self.pixels.statistics()
        self.augment = Augmentation(config, self.mean, self.std)
        self.loss = make_loss(config.loss, split.counts)
        torch.manual_seed(seed)
        self.network, dim = build_network(config.network, self.shape)
        self.head: Head = make_head(config.head, dim, self.num_classes)
        self.model = nn.ModuleDict({"network": self.network, "head": self.head}).to(device)
        if config.channels_last:
            self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = torch.optim.SGD(
            self.model.parameters(), lr=config.lr, momentum=config.momentum, nesterov=config.momentum > 0,
            weight_decay=config.weight_decay, fused=True,
        )  # fmt: skip
        self.scaler = torch.amp.GradScaler(device.type, enabled=config.precision == "float16")
        self.ema = Ema(self.model, config.ema) if config.ema else None
        self.history: History = []

    @property
    def steps_per_epoch(self) -> int:
        """Batches in an epoch."""
        return len(even_batches(np.arange(len(self.labels)), self.config.batch_size))

    def run(self, after_epoch: Callable[[], None]) -> None:
        """Train the epochs that are left; `after_epoch` is called after each.

        Raises
        ------
        LdmlrError
            The loss is no longer finite.
        """
        done = len(self.history)
        total, steps = self.config.epochs, self.steps_per_epoch
        with bar(total * steps, "baseline", unit="step", initial=done * steps) as progress:
            for epoch in range(done, total):
                self.history.append(self._guarded_epoch(epoch, progress))
                after_epoch()

    def _guarded_epoch(self, epoch: int, progress: tqdm[Any]) -> dict[str, float]:
        """Train an epoch; turn failures that the user can mend into one line."""
        try:
            return self._epoch(epoch, progress)
        except torch.OutOfMemoryError:
            raise LdmlrError(
                f"baseline: the GPU's memory is too small for --batch-size {self.config.batch_size}; lower it"
            ) from None
        except RuntimeError as error:
            if ":" not in self.config.network:
                raise
            detail = " ".join(str(error).split())[:200]
            raise LdmlrError(f"--network {self.config.network}: failed in training ({detail})") from error

    def _epoch(self, epoch: int, progress: tqdm[Any]) -> dict[str, float]:
        start = time.perf_counter()
        draws = Draws.of(self.seed, epoch)
        plan = even_batches(draws.order.permutation(len(self.labels)), self.config.batch_size)
        self.model.train()
        loss_sum = torch.zeros((), device=self.device)
        hits = torch.zeros((), device=self.device)
        seen = 0
        for step, (rows, pixels) in enumerate(self.pixels.batches(plan)):
            rate = learning_rate(self.config, epoch + (step + 0.5) / len(plan))
            loss, correct = self._step(pixels, self.labels[rows], rate, draws)
            loss_sum += loss * len(rows)
            hits += correct
            seen += len(rows)
            if step % CHECK_EVERY == CHECK_EVERY - 1 or step == len(plan) - 1:
                mean = float(loss_sum) / seen
                self._check(mean, epoch)
                accuracy = 100 * float(hits) / seen
                progress.set_postfix(epoch=epoch + 1, loss=f"{mean:.3f}", acc=f"{accuracy:.1f}")
            progress.update(1)
        return {
            "epoch": epoch + 1, "loss": round(mean, 6), "train_accuracy": round(accuracy, 3),
            "lr": rate, "seconds": round(time.perf_counter() - start, 3),
        }  # fmt: skip

    def _step(
        self, pixels: torch.Tensor, labels: torch.Tensor, rate: float, draws: Draws
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Take one step; return the loss and the (mixup-weighted) number of hits."""
        config, device = self.config, self.device
        images = self.augment(pixels.to(device, non_blocking=True), draws.augment)
        targets = F.one_hot(labels, self.num_classes).float().to(device, non_blocking=True)
        if config.mixup:
            images, targets = mixup(
                images, targets, draws.mixup.beta(config.mixup, config.mixup), draws.augment
            )
        # Pixels come with the channels last, and every layer would follow its input.
        layout = torch.channels_last if config.channels_last else torch.contiguous_format
        images = images.contiguous(memory_format=layout)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        short = config.precision != "float32"
        with torch.autocast(device.type, DTYPES[config.precision], enabled=short):
            features = self.network(images)
        logits = self.head(features.float())
        loss = self.loss(logits, targets)
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.ema is not None:
            self.ema.update(self.model)
        with torch.no_grad():
            correct = targets.gather(1, logits.argmax(1, keepdim=True)).sum()
        return loss.detach(), correct

    def _check(self, loss: float, epoch: int) -> None:
        if not math.isfinite(loss):
            raise LdmlrError(
                f"baseline: the loss is no longer finite in epoch {epoch + 1}; lower --lr "
                f"(now {self.config.lr:g}), lengthen --warmup-epochs, or use --precision float32"
            )

    def state(self) -> dict[str, Any]:
        """Return everything the next epoch depends on."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "ema": None if self.ema is None else {"steps": self.ema.steps, "state": self.ema.state},
            "history": self.history,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to a state."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        if self.ema is not None:
            self.ema.steps = state["ema"]["steps"]
            for name, value in state["ema"]["state"].items():
                self.ema.state[name].copy_(value)
        self.history = list(state["history"])

    def finish(self) -> None:
        """Take the averaged weights, if there are any, and switch to evaluation mode."""
        if self.ema is not None:
            self.model.load_state_dict(self.ema.state)
        self.model.eval()
