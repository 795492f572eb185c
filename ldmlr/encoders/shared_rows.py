"""The rows of a batch of which every rank has computed its part, put together.

What a training minimises may compare every row of a batch with every other. So ranks share the network's work
alone: each takes its images to features, all of them see the features of all, and each computes the whole
loss, whose gradient by its own features is what it carries on backwards.
"""

from __future__ import annotations

from typing import Any

import torch

from ldmlr.ranks import Ranks


def whole(part: torch.Tensor, rows: int, ranks: Ranks) -> torch.Tensor:
    """Return the rows ``[rows, ...]`` of all ranks, whose gradient goes to this rank's part.

    Parameters
    ----------
    part
        The rows of this rank: those that `Ranks.part` names.
    rows
        Rows of the batch.
    ranks
        Who shares them.
    """
    if ranks.alone:
        return part
    found: torch.Tensor = _Whole.apply(part, rows, ranks)  # type: ignore[no-untyped-call]
    return found


class _Whole(torch.autograd.Function):
    """A table to which each rank adds its rows."""

    @staticmethod
    def forward(ctx: Any, part: torch.Tensor, rows: int, ranks: Ranks) -> torch.Tensor:
        """Return the table."""
        ctx.own = ranks.part(rows)
        table = part.new_zeros(rows, *part.shape[1:])
        table[ctx.own] = part
        ranks.sum(table)
        return table

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        """Return this rank's rows of the gradient."""
        return gradients[0][ctx.own], None, None
