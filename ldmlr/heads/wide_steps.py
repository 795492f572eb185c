"""Steps of a linear head with many classes: loss and gradient written out, without a graph.

Where a step is long enough to matter (`LONG_STEP`), autograd would gather, mix, multiply and normalise into
new memory every time, and hold all logits of a batch several times (`ldmlr.heads.softmax` holds a block).
"""

from __future__ import annotations

import torch

from ldmlr.heads.modules import LinearHead
from ldmlr.heads.softmax import Batch, SoftmaxRows

# Multiply-adds of a step from which it is written out; those of the recipe on a hundred classes are shorter.
LONG_STEP = 1 << 27


class WideSteps:
    """Gradients of a linear head on batches of rows, under a cross-entropy with an offset per class.

    Parameters
    ----------
    head
        Its weights get their gradients.
    rows
        What batches are taken from.
    offset
        Added to the logits in the loss, ``[C]``; None: nothing.
    """

    def __init__(self, head: LinearHead, rows: SoftmaxRows, offset: torch.Tensor | None = None) -> None:
        self.head, self.rows, self.offset = head, rows, offset
        self.gradients = torch.empty_like(head.weight), torch.empty(len(head.weight))

    @torch.no_grad()
    def backward(self, batch: Batch) -> float:
        """Set the gradients of the head on a batch and return its mean loss."""
        weight, bias = self.head.weight, self.head.bias
        added = torch.zeros(len(weight)) if bias is None else bias.detach()
        if self.offset is not None:
            added = added + self.offset
        loss = self.rows.gradient(weight.detach(), added, self.gradients, batch)
        weight.grad = self.gradients[0]
        if bias is not None:
            bias.grad = self.gradients[1]
        return loss
