"""Training of a baseline network on a long-tailed image set.

Throughput on CPUs comes from three things: batches are augmented as tensors, images and
weights keep their channels last, and convolutions run in bfloat16 under autocast where the
processor multiplies it in hardware. Measured by ``benchmarks/stage1.py``.

After the last epoch the head may be trained on alone (``head_epochs``): the network stays as it is, in
evaluation mode, classes are drawn equally often, images are augmented but not mixed, and the loss is the
plain cross-entropy, as the drawn classes are balanced already (cRT, Kang et al., ICLR 2020).

Ranks that train together make the same draws and augment whole batches. Each takes its images through the
network, with statistics of the whole batch, and computes the loss from the features of all; the gradients of
the network are added up. So the course is that of one process, but for the order in which sums are rounded.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from ldmlr.data.images import ImageSplit
from ldmlr.encoders.augment.augmentation import Augmentation
from ldmlr.encoders.augment.mixing import Mixed, Mixing
from ldmlr.encoders.augment.shrink import shrink, side_share
from ldmlr.encoders.batches import Batches
from ldmlr.encoders.class_balanced import class_balanced
from ldmlr.encoders.config import BaselineConfig
from ldmlr.encoders.ema import Ema
from ldmlr.encoders.graphed import Graphed, Outcome, Work
from ldmlr.encoders.networks import build_network
from ldmlr.encoders.objective import Objective
from ldmlr.encoders.pixels import Pixels, even_batches
from ldmlr.encoders.precision import features_of
from ldmlr.encoders.schedule import head_learning_rate, learning_rate
from ldmlr.encoders.shared_norm import share_batch_norm
from ldmlr.encoders.shared_rows import whole
from ldmlr.encoders.teacher import Teacher
from ldmlr.errors import LdmlrError, UsageError, counted, opt
from ldmlr.heads.constraints import max_norm
from ldmlr.heads.losses import cross_entropy
from ldmlr.heads.modules import Head, WCDASHead, make_head
from ldmlr.progress import bar
from ldmlr.ranks import ALONE, Ranks

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
    start
        Copies the first weights into network and head; None leaves them random.
    teacher
        Gives the logits to match, if there is one.
    ranks
        The processes that train together, each with these same arguments.

    Raises
    ------
    UsageError
        A batch has fewer images than there are ranks.
    """

    def __init__(
        self,
        config: BaselineConfig,
        split: ImageSplit,
        seed: int,
        device: torch.device,
        start: Callable[[nn.Module, Head], None] | None = None,
        teacher: Teacher | None = None,
        ranks: Ranks = ALONE,
    ) -> None:
        self.config, self.seed, self.device, self.ranks = config, seed, device, ranks
        self.labels = split.labels
        self.num_classes = split.num_classes
        pixels = Pixels(split)
        fewest = min(map(len, even_batches(np.arange(len(split)), config.batch_size)))
        if fewest < ranks.size:
            raise UsageError(
                f"{opt('batch_size')}: a batch of {counted(fewest, 'image')} is too small for "
                f"{counted(ranks.size, 'rank')}; raise it, or start fewer"
            )
        self.shape = pixels.shape
        self.mean, self.std = pixels.statistics()
        augment = Augmentation(config, self.mean, self.std)
        self.batches = Batches(pixels, split.labels, split.num_classes, augment, device)
        self.mixing = Mixing(config)
        self.teacher = None if teacher is None else teacher.prepare(self.mean, self.std, config, device)
        torch.manual_seed(seed)
        self.network, dim = build_network(config.network, self.shape)
        self.head: Head = make_head(config.head, dim, self.num_classes)
        if isinstance(self.head, WCDASHead):
            nn.init.constant_(self.head.concentration, config.concentration)
        if start is not None:
            start(self.network, self.head)
        if not ranks.alone:
            share_batch_norm(self.network, ranks)
        self.objective = Objective(config, self.head, split.counts)
        self.model = nn.ModuleDict({"network": self.network, "objective": self.objective}).to(device)
        if config.channels_last:
            self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = self._sgd(self.model, config.weight_decay)
        self.scaler = torch.amp.GradScaler(device.type, enabled=config.precision == "float16")
        self.gradients: Work = self._gradients
        if self._graphable():
            self.gradients = Graphed(self._gradients, list(self.model.parameters()))
        self.ema = Ema(self.model, config.ema) if config.ema else None
        self.history: History = []

    def _sgd(self, module: nn.Module, weight_decay: float) -> torch.optim.SGD:
        momentum = self.config.momentum
        return torch.optim.SGD(
            module.parameters(), lr=self.config.lr, momentum=momentum,
            nesterov=self.config.nesterov and momentum > 0,
            weight_decay=weight_decay, fused=True,
        )  # fmt: skip

    @property
    def steps_per_epoch(self) -> int:
        """Batches in an epoch."""
        return len(even_batches(np.arange(len(self.labels)), self.config.batch_size))

    @property
    def head_alone(self) -> bool:
        """Whether the epochs of the network are done."""
        return len(self.history) >= self.config.epochs

    @property
    def done(self) -> bool:
        """Whether all epochs are done."""
        return len(self.history) >= self.config.epochs + self.config.head_epochs

    def run(self, after_epoch: Callable[[], None]) -> None:
        """Train the epochs that are left; `after_epoch` is called after each.

        Raises
        ------
        LdmlrError
            The loss is no longer finite.
        """
        done = len(self.history)
        total, steps = self.config.epochs + self.config.head_epochs, self.steps_per_epoch
        with bar(total * steps, "baseline", unit="step", initial=done * steps) as progress:
            for epoch in range(done, total):
                if epoch == self.config.epochs:
                    self._leave_network()
                self.history.append(self._guarded_epoch(epoch, progress))
                after_epoch()
        # The loss of a step is that before it: what the last step broke shows in the weights alone.
        if total > done and not all(bool(value.isfinite().all()) for value in self.model.parameters()):
            self._check(math.nan, total - 1, "weights are")

    def seconds_per_step(self, steps: int = 3) -> float:
        """Return the time of a step on this machine as it is now: the median of some, after one to warm up.

        The trainer is of no use afterwards, as its weights have moved.
        """
        config, draws = self.config, Draws.of(self.seed, 0)
        plan = even_batches(draws.order.permutation(len(self.labels)), config.batch_size)[: steps + 1]
        self.model.train()
        # A step of the last epoch: images are of full size there.
        epoch, times = config.epochs - 1, []
        before = time.perf_counter()
        for images, targets in self.batches.draw(plan, 2 if config.two_views else 1, draws.augment):
            loss, _ = self._step(images, targets, learning_rate(config, 0.5 / len(plan)), draws, epoch)
            float(loss)  # wait for the device
            times.append(time.perf_counter() - before)
            before = time.perf_counter()
        return statistics.median(times[1:] or times)

    def _leave_network(self) -> None:
        """Go over to the head alone: averaged weights, if there are any, and a fresh optimiser."""
        self._take_average()
        decay = self.config.head_weight_decay
        self.optimizer = self._sgd(self.head, self.config.weight_decay if decay is None else decay)

    def _take_average(self) -> None:
        if self.ema is not None:
            self.model.load_state_dict(self.ema.state)
            self.ema = None

    def _guarded_epoch(self, epoch: int, progress: tqdm[Any]) -> dict[str, float]:
        """Train an epoch; turn failures that the user can mend into one line."""
        try:
            return self._epoch(epoch, progress)
        except torch.OutOfMemoryError:
            raise LdmlrError(
                f"baseline: the GPU's memory is too small for {opt('batch_size')} "
                f"{self.config.batch_size}; lower it"
            ) from None
        except (RuntimeError, ValueError) as error:
            if ":" not in self.config.network:
                raise
            detail = " ".join(str(error).split())[:200]
            raise LdmlrError(
                f"{opt('network')} {self.config.network}: failed in training ({detail})"
            ) from error

    def _epoch(self, epoch: int, progress: tqdm[Any]) -> dict[str, float]:
        start = time.perf_counter()
        config, draws = self.config, Draws.of(self.seed, epoch)
        if self.head_alone:
            order = class_balanced(self.labels, self.num_classes, draws.order)
        else:
            order = draws.order.permutation(len(self.labels))
        plan = even_batches(order, config.batch_size)
        self.model.train(not self.head_alone)
        self.objective.begin(epoch)
        loss_sum = torch.zeros((), device=self.device)
        right = torch.zeros((), device=self.device)
        seen = 0
        views = 2 if config.two_views and not self.head_alone else 1
        for step, (images, targets) in enumerate(self.batches.draw(plan, views, draws.augment)):
            now = epoch + (step + 0.5) / len(plan)
            if self.head_alone:
                rate = head_learning_rate(config, now - config.epochs)
                loss, correct = self._head_step(images[0], targets, rate)
            else:
                rate = learning_rate(config, now)
                loss, correct = self._step(images, targets, rate, draws, epoch)
            loss_sum += loss * len(targets)
            right += correct
            seen += len(targets)
            if step % CHECK_EVERY == CHECK_EVERY - 1 or step == len(plan) - 1:
                mean = float(loss_sum) / seen
                self._check(mean, epoch)
                accuracy = 100 * float(right) / seen
                progress.set_postfix(epoch=epoch + 1, loss=f"{mean:.3f}", acc=f"{accuracy:.1f}")
            progress.update(1)
        number = {"head_epoch": epoch + 1 - config.epochs} if self.head_alone else {"epoch": epoch + 1}
        return {
            **number, "loss": round(mean, 6), "train_accuracy": round(accuracy, 3),
            "lr": rate, "seconds": round(time.perf_counter() - start, 3),
        }  # fmt: skip

    def _step(
        self, views: list[torch.Tensor], one_hot: torch.Tensor, rate: float, draws: Draws, epoch: int
    ) -> Outcome:
        """Take one step; return the objective and the number of hits, weighted as the targets are mixed."""
        share = side_share(self.config.first_size, epoch, self.config.epochs)
        mixed = self.mixing(views, one_hot, draws.mixup, draws.augment)
        loss, correct = self.gradients(mixed, share)
        self._descend(rate)
        if self.ema is not None:
            self.ema.update(self.model)
        return loss, correct

    def _gradients(self, mixed: Sequence[Mixed], share: float) -> Outcome:
        """Leave the gradients of a batch in the parameters; return the objective and the number of hits."""
        targets = [weights for _, weights in mixed]
        # The teacher looks at what the student is shown, but always in full size.
        taught = [] if self.teacher is None else [self._of_all(self.teacher, images) for images, _ in mixed]
        features = [self._of_all(self._features, shrink(images, share)) for images, _ in mixed]
        loss, logits = self.objective(features, targets, taught)
        self._backward(loss)
        return loss.detach(), hits(logits, targets)

    def _of_all(self, work: Callable[[torch.Tensor], torch.Tensor], images: torch.Tensor) -> torch.Tensor:
        """Return what work makes of the images of a batch; of ranks each does its part."""
        return whole(work(images[self.ranks.part(len(images))]), len(images), self.ranks)

    def _graphable(self) -> bool:
        """Whether a step does the same on the device in every epoch, and nothing elsewhere."""
        foreign = ":" in self.config.network
        elsewhere = foreign or self.scaler.is_enabled() or not self.ranks.alone
        return self.device.type == "cuda" and not elsewhere

    def _head_step(self, images: torch.Tensor, targets: torch.Tensor, rate: float) -> Outcome:
        """Take one step of the head alone; return the loss and the number of hits."""
        with torch.no_grad():
            features = self._of_all(self._features, images)
        logits = self.head(features)
        loss = cross_entropy(logits, targets)
        self._backward(loss)
        self._descend(rate)
        return loss.detach(), hits([logits], [targets])

    def _features(self, images: torch.Tensor) -> torch.Tensor:
        """Return float32 features of normalised images."""
        return features_of(self.network, images, self.config)

    def _backward(self, loss: torch.Tensor) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        if self.ranks.alone:
            return
        if not self.ranks.first:  # what is computed from all features counts once
            for value in self.objective.parameters():
                if value.grad is not None:
                    value.grad.zero_()
        learning = [value for group in self.optimizer.param_groups for value in group["params"]]
        self.ranks.sum(*(value.grad for value in learning if value.grad is not None))

    def _descend(self, rate: float) -> None:
        """Take a step of the optimiser at a learning rate, within the constraints."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.config.max_norm:
            max_norm(self.head.get_parameter("weight"), self.config.max_norm)

    def _check(self, value: float, epoch: int, what: str = "loss is") -> None:
        if math.isfinite(value):
            return
        if epoch >= self.config.epochs:
            raise LdmlrError(
                f"baseline: the {what} no longer finite in head epoch {epoch + 1 - self.config.epochs}; "
                f"lower {opt('head_lr')} (now {self.config.head_lr:g})"
            )
        raise LdmlrError(
            f"baseline: the {what} no longer finite in epoch {epoch + 1}; lower {opt('lr')} "
            f"(now {self.config.lr:g}), lengthen {opt('warmup_epochs')}, or use {opt('precision', 'float32')}"
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
        self.history = list(state["history"])
        if len(self.history) > self.config.epochs:
            self._leave_network()
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        if self.ema is not None:
            self.ema.steps = state["ema"]["steps"]
            for name, value in state["ema"]["state"].items():
                self.ema.state[name].copy_(value)

    def finish(self) -> None:
        """Take the averaged weights, if there are any, and switch to evaluation mode."""
        self._take_average()
        self.model.eval()


@torch.no_grad()
def hits(logits: Sequence[torch.Tensor], targets: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return the summed weight of the predicted classes in the targets, averaged over views."""
    found = [
        target.gather(1, view.argmax(1, keepdim=True)).sum()
        for view, target in zip(logits, targets, strict=True)
    ]
    return torch.stack(found).mean()
