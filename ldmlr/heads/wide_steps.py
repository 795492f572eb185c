"""Steps of a linear head with many classes: loss and gradient written out, in buffers that are kept.

Where a step is long enough to matter (`LONG_STEP`), autograd would gather, mix, multiply and normalise into
new memory every time. Here rows are gathered straight into a buffer, logits become probabilities in place, a
block of rows at a time that stays in the cache, and no more than a block of them is ever held.
"""

from __future__ import annotations

import torch

from ldmlr.heads.modules import LinearHead
from ldmlr.heads.softmax import to_errors

# Multiply-adds of a step from which it is written out; those of the recipe on a hundred classes are shorter.
LONG_STEP = 1 << 27
# Numbers in the logits of a block: 1 MiB of float32.
BLOCK = 1 << 18


class WideSteps:
    """Batches and gradients of a linear head under a cross-entropy with an offset per class.

    Parameters
    ----------
    head
        Its weights get their gradients.
    features
        Rows ``[N, D]``.
    size
        Rows of a batch, at most.
    offset
        Added to the logits in the loss, ``[C]``; None: nothing.
    """

    def __init__(
        self,
        head: LinearHead,
        features: torch.Tensor,
        size: int,
        offset: torch.Tensor | None = None,
    ) -> None:
        self.head, self.features, self.offset = head, features, offset
        classes, dim = head.weight.shape
        self.block = max(1, min(size, BLOCK // classes))
        self.x, self.partner = torch.empty(size, dim), torch.empty(size, dim)
        self.z = torch.empty(self.block, classes)
        self.weight_gradient = torch.empty_like(head.weight)
        self.bias_gradient = torch.empty(classes)

    def rows(
        self, chosen: torch.Tensor, share: torch.Tensor | None = None, partner: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return rows ``[n, D]``, each mixed with its partner where a share ``[n, 1]`` says so: a buffer."""
        x = self.x[: len(chosen)]
        torch.index_select(self.features, 0, chosen, out=x)
        if share is not None and partner is not None:
            other = self.partner[: len(chosen)]
            torch.index_select(self.features, 0, partner, out=other)
            # As in `train_head`: share * x + (1 - share) * other.
            x.mul_(share).add_(other.mul_(1 - share))
        return x

    @torch.no_grad()
    def backward(self, x: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Set the gradients of the head on a batch and return its mean loss."""
        weight, bias = self.head.weight, self.head.bias
        added = torch.zeros(len(weight)) if bias is None else bias.detach().clone()
        if self.offset is not None:
            added += self.offset
        self.weight_gradient.zero_()
        self.bias_gradient.zero_()
        loss, share = torch.zeros(()), torch.full((len(x), 1), 1 / len(x))
        for at in range(0, len(x), self.block):
            rows, own = x[at : at + self.block], labels[at : at + self.block, None]
            z = torch.addmm(added, rows, weight.T, out=self.z[: len(rows)])
            loss += to_errors(z, own, share[: len(rows)]).sum()
            self.weight_gradient.addmm_(z.T, rows)
            self.bias_gradient += z.sum(0)
        weight.grad = self.weight_gradient
        if bias is not None:
            bias.grad = self.bias_gradient
        return loss / len(x)
