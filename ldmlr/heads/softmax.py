"""Loss and gradient of softmax regression over rows in memory: logits of all rows are never held.

For a head W, b on rows x_i, with weights w_i of the rows (the offset of a loss, such as the log prior of the
balanced softmax, is part of b):

    loss = sum_i w_i (logsumexp(W x_i + b) - (W x_i + b)[y_i])

A block of rows is gathered, mixed or standardised, multiplied, turned into the errors of the probabilities in
place, and multiplied once more. Where this processor has kernels of its own the extension does all of it
(``csrc/cpu/softmax*``), with the same result for any number of threads; else PyTorch does, block by block,
which is also the readable twin.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt
import torch

from ldmlr import _native, isa
from ldmlr.heads.standard import Standard

# Numbers in the larger of a block's features and logits: 2 MiB of float32.
BLOCK = 1 << 19
# The instruction set that any processor has: PyTorch's products are faster.
PLAIN = "baseline"
# Multiply-adds of a call that are worth a thread: a quarter of a millisecond. Waiting for one takes as long.
THREAD_WORK = 1 << 26
PRODUCTS = {"float32": _native.Dtype.float32, "bfloat16": _native.Dtype.bfloat16}


@dataclasses.dataclass(frozen=True)
class Batch:
    """Which rows of those in memory, and what is done with them.

    Parameters
    ----------
    chosen
        Their numbers, ``[n]`` int64; None: all.
    partner, share
        Each row is ``share x + (1 - share) p`` with the row p of the number `partner`, ``[n]`` int64 and
        float32; None: x itself.
    weights
        What rows weigh in the loss, ``[n]`` float32; None: 1 / n each.
    """

    chosen: torch.Tensor | None = None
    partner: torch.Tensor | None = None
    share: torch.Tensor | None = None
    weights: torch.Tensor | None = None


def to_errors(logits: torch.Tensor, labels: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
    """Turn logits into the gradient of their cross-entropy, in place, and return the loss of each row.

    Parameters
    ----------
    logits
        ``[n, C]``: afterwards ``share * (softmax - one-hot)``.
    labels
        ``[n, 1]``.
    share
        What the rows weigh, ``[n, 1]``.
    """
    logits -= logits.amax(1, keepdim=True)
    target = logits.gather(1, labels)
    total = logits.exp_().sum(1, keepdim=True)
    logits *= share / total
    logits.scatter_add_(1, labels, -share)
    return total.log() - target


class SoftmaxRows:
    """Rows in memory, over which losses and gradients are taken.

    Parameters
    ----------
    features
        ``[N, D]`` float32, C order, on the CPU; they are not copied.
    labels
        ``[N]`` int64.
    num_classes
        Classes C.
    standard
        Mean and spread that features are brought to 0 and 1 by; None: as they are.
    products
        ``float32``, or ``bfloat16`` with float32 sums.
    set_name
        Instruction set; None: the fastest, or that of ``LDMLR_ISA``.
    """

    def __init__(
        self,
        features: torch.Tensor,
        labels: torch.Tensor,
        num_classes: int,
        standard: Standard | None = None,
        products: str = "float32",
        set_name: str | None = None,
    ) -> None:
        self.features, self.labels = features.contiguous(), labels.contiguous()
        self.classes, self.products = num_classes, products
        self.isa = isa.choose(set_name).name
        self.standard = None if standard is None else standard.tensors()
        self._memory = np.zeros(0, np.uint8)
        self._buffers: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None = None

    def gradient(
        self,
        weight: torch.Tensor,
        bias: torch.Tensor,
        to: tuple[torch.Tensor, torch.Tensor],
        batch: Batch | None = None,
    ) -> float:
        """Write the gradient of a head and return its loss.

        Parameters
        ----------
        weight, bias
            ``[C, D]`` and ``[C]`` float32, C order.
        to
            Tensors like them, which are written.
        batch
            The rows; None: all, as they are.
        """
        return (self._blocks if self.isa == PLAIN else self._fused)(weight, bias, to, batch or Batch())

    def _fused(
        self, weight: torch.Tensor, bias: torch.Tensor, to: tuple[torch.Tensor, torch.Tensor], batch: Batch
    ) -> float:
        weight, bias = weight.contiguous(), bias.contiguous()
        params = _native.SoftmaxParams(
            rows=len(self.labels if batch.chosen is None else batch.chosen),
            dim=self.features.shape[1], classes=self.classes,
            features=self.features.data_ptr(), labels=self.labels.data_ptr(),
            weight=weight.data_ptr(), bias=bias.data_ptr(),
            gradient=to[0].data_ptr(), bias_gradient=to[1].data_ptr(),
        )  # fmt: skip
        mean, scale = self.standard or (None, None)
        asked = {
            "chosen": batch.chosen, "partner": batch.partner, "share": batch.share,
            "row_weights": batch.weights, "mean": mean, "scale": scale,
        }  # fmt: skip
        kept = {name: value.contiguous() for name, value in asked.items() if value is not None}
        for name, value in kept.items():
            setattr(params, name, value.data_ptr())
        work = params.rows * params.dim * params.classes
        threads = min(torch.get_num_threads(), max(1, work // THREAD_WORK))
        products = PRODUCTS[self.products]
        needed = _native.softmax_memory(self.isa, params, products, threads)
        if len(self._memory) < needed:
            # Kept, as new pages for every step would take a tenth of it.
            self._memory = np.zeros(needed, np.uint8)
        return _native.softmax(self.isa, params, products, threads, self._memory.ctypes.data)

    def _blocks(
        self, weight: torch.Tensor, bias: torch.Tensor, to: tuple[torch.Tensor, torch.Tensor], batch: Batch
    ) -> float:
        gradient, of_bias = to[0].zero_(), torch.zeros(self.classes, dtype=torch.float64)
        loss = torch.zeros((), dtype=torch.float64)
        total = len(self.labels if batch.chosen is None else batch.chosen)
        rows = self._rows(total)
        even = torch.full((rows, 1), 1 / total)
        for at in range(0, total, rows):
            part = slice(at, min(at + rows, total))
            x, labels = self._gathered(part, batch)
            share = even[: len(x)] if batch.weights is None else batch.weights[part, None]
            assert self._buffers is not None
            z = torch.addmm(bias, x, weight.T, out=self._buffers[2][: len(x)])
            loss += (share * to_errors(z, labels, share)).sum(dtype=torch.float64)
            gradient.addmm_(z.T, x)
            of_bias += z.sum(0, dtype=torch.float64)
        to[1].copy_(of_bias)
        return float(loss)

    def _rows(self, total: int) -> int:
        """Return the rows of a block, for which there are buffers then."""
        dim = self.features.shape[1]
        rows = min(max(BLOCK // max(self.classes, dim), 1), 8192, total)
        if self._buffers is None or len(self._buffers[2]) < rows:
            self._buffers = torch.empty(rows, dim), torch.empty(rows, dim), torch.empty(rows, self.classes)
        return rows

    def _gathered(self, part: slice, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the rows of a part of a batch, in a buffer, and their labels ``[n, 1]``."""
        assert self._buffers is not None
        count = part.stop - part.start
        x, other = self._buffers[0][:count], self._buffers[1][:count]
        if batch.chosen is None:
            x.copy_(self.features[part])
            labels = self.labels[part]
        else:
            torch.index_select(self.features, 0, batch.chosen[part], out=x)
            labels = self.labels[batch.chosen[part]]
        if batch.partner is not None and batch.share is not None:
            torch.index_select(self.features, 0, batch.partner[part], out=other)
            share = batch.share[part, None]
            x.mul_(share).add_(other.mul_(1 - share))
        if self.standard is not None:
            x.sub_(self.standard[0]).mul_(self.standard[1])
        return x, labels[:, None]


class SoftmaxLoss:
    """The loss of softmax regression as a function of one tensor ``[C, D + 1]``, biases last.

    To the loss above comes ``decay / 2 |W|^2``; row weights are brought to a sum of one.

    Parameters
    ----------
    features
        Rows ``[N, D]`` float32, as they are; they are not copied.
    labels
        ``[N]``.
    num_classes
        Classes C.
    standard
        Mean and spread of the features.
    weights
        Of the rows, ``[N]``; None: all alike.
    offset
        Added to the logits, ``[C]``; None: nothing.
    """

    def __init__(
        self,
        features: npt.NDArray[np.float32],
        labels: npt.NDArray[np.int64],
        num_classes: int,
        standard: Standard,
        weights: npt.NDArray[np.float64] | None = None,
        offset: npt.NDArray[np.float64] | None = None,
    ) -> None:
        self.rows = SoftmaxRows(torch.from_numpy(features), torch.from_numpy(labels), num_classes, standard)
        self.shape = num_classes, features.shape[1] + 1
        share = np.ones(len(labels)) if weights is None else weights
        self.batch = Batch(weights=torch.from_numpy(share / share.sum()).float())
        shift = np.zeros(num_classes) if offset is None else offset
        self.offset = torch.from_numpy(np.asarray(shift, np.float64)).float()

    def __call__(self, theta: torch.Tensor, decay: float) -> tuple[float, torch.Tensor]:
        """Return the loss and its gradient ``[C, D + 1]``."""
        weight, bias = theta[:, :-1].contiguous(), theta[:, -1] + self.offset
        to = torch.empty_like(weight), torch.empty_like(bias)
        loss = self.rows.gradient(weight, bias, to, self.batch)
        loss += decay / 2 * float(weight.square().sum(dtype=torch.float64))
        return loss, torch.cat([to[0].add_(weight, alpha=decay), to[1][:, None]], 1)
