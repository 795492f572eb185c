"""Loss and gradient of softmax regression, block by block: logits of all rows are never held.

For a head W, b on standard features x, with row weights w that sum to one and an offset o of the classes (the
log prior of the balanced softmax):

    loss = sum_i w_i (logsumexp(W x_i + b + o) - (W x_i + b + o)[y_i]) + decay / 2 |W|^2

A block of rows and its logits fit in the cache together: it is standardised, multiplied, turned into the
error of the probabilities in place, and multiplied once more.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from ldmlr.heads.standard import Standard

# Numbers in the larger of a block's features and logits: 2 MiB of float32.
BLOCK = 1 << 19


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


class SoftmaxLoss:
    """The loss of softmax regression as a function of one tensor ``[C, D + 1]``, biases last.

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
        self.features = torch.from_numpy(features)
        self.labels = torch.from_numpy(labels)
        self.shape = num_classes, features.shape[1] + 1
        self.mean, self.scale = standard.tensors()
        share = np.ones(len(labels)) if weights is None else weights
        self.weights = torch.from_numpy(share / share.sum()).float()
        shift = np.zeros(num_classes) if offset is None else offset
        self.offset = torch.from_numpy(np.asarray(shift, np.float64)).float()
        rows = BLOCK // max(num_classes, features.shape[1])
        self.rows = min(max(rows, 256), 8192, max(len(labels), 1))

    def __call__(self, theta: torch.Tensor, decay: float) -> tuple[float, torch.Tensor]:
        """Return the loss and its gradient ``[C, D + 1]``."""
        weight, bias = theta[:, :-1].contiguous(), theta[:, -1] + self.offset
        gradient = torch.zeros_like(weight)
        of_bias = torch.zeros(len(bias), dtype=torch.float64)
        loss = torch.zeros((), dtype=torch.float64)
        x_buffer = torch.empty(self.rows, weight.shape[1])
        z_buffer = torch.empty(self.rows, len(weight))
        for at in range(0, len(self.labels), self.rows):
            block, labels = self.features[at : at + self.rows], self.labels[at : at + self.rows, None]
            share = self.weights[at : at + self.rows, None]
            x, z = x_buffer[: len(block)], z_buffer[: len(block)]
            torch.sub(block, self.mean, out=x).mul_(self.scale)
            torch.addmm(bias, x, weight.T, out=z)
            losses = to_errors(z, labels, share)
            loss += (share * losses).sum(dtype=torch.float64)
            gradient.addmm_(z.T, x)
            of_bias += z.sum(0, dtype=torch.float64)
        loss += decay / 2 * weight.square().sum(dtype=torch.float64)
        gradient.add_(weight, alpha=decay)
        return float(loss), torch.cat([gradient, of_bias.float()[:, None]], 1)
