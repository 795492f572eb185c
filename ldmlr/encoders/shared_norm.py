"""Batch normalisation by the statistics of a batch that several ranks share (Ioffe and Szegedy, 2015).

A rank sees its rows alone, and the mean and variance of a part of a batch are others than those of the batch.
Here the ranks put theirs together, forwards and backwards, so that the network is trained as by one process.
`torch.nn.SyncBatchNorm` does so on GPUs alone.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ldmlr.errors import UsageError, opt
from ldmlr.ranks import Ranks

# A class derived from one of them may do more.
PLAIN = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


def share_batch_norm(network: nn.Module, ranks: Ranks) -> None:
    """Have the batch normalisation of a network use the statistics of all ranks in training.

    Parameters
    ----------
    network
        Its layers are replaced in place; they keep their names, parameters and buffers.
    ranks
        Who shares a batch.

    Raises
    ------
    UsageError
        A layer does more than batch normalisation, such as timm's with an activation.
    """
    for module in list(network.modules()):
        for name, child in module.named_children():
            if not isinstance(child, _BatchNorm):
                continue
            if type(child) not in PLAIN:
                raise UsageError(
                    f"{opt('network')}: has a layer {type(child).__name__}, and ranks share the statistics "
                    "of BatchNorm1d, 2d and 3d alone; train in one process"
                )
            setattr(module, name, SharedBatchNorm(child, ranks))


class SharedBatchNorm(_BatchNorm):
    """A layer of batch normalisation whose batch is that of all ranks.

    Parameters
    ----------
    layer
        The layer that it stands for; parameters and buffers are its own.
    ranks
        Who shares a batch.
    """

    def __init__(self, layer: _BatchNorm, ranks: Ranks) -> None:
        super().__init__(
            layer.num_features, layer.eps, layer.momentum, affine=False, track_running_stats=False
        )
        self.affine, self.track_running_stats = layer.affine, layer.track_running_stats
        self.weight, self.bias = layer.weight, layer.bias
        self.running_mean, self.running_var = layer.running_mean, layer.running_var
        self.num_batches_tracked = layer.num_batches_tracked
        self.ranks = ranks
        self.train(layer.training)

    def _check_input_dim(self, input: torch.Tensor) -> None:
        """Take any number of dimensions, from two on."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Return normalised rows ``[n, C, ...]``, in training by the statistics of all ranks' rows."""
        if not self.training:
            return super().forward(input)
        found: tuple[torch.Tensor, ...] = _Normalise.apply(  # type: ignore[no-untyped-call]
            input, self.eps, self.ranks
        )
        normalised, mean, variance, count = found
        self._track(mean, variance, float(count))
        if self.affine:
            shape = _shape(input)
            normalised = torch.addcmul(self.bias.view(shape), normalised, self.weight.view(shape))
        return normalised.to(input.dtype)

    @torch.no_grad()
    def _track(self, mean: torch.Tensor, variance: torch.Tensor, count: float) -> None:
        """Move the running statistics towards those of a batch, the variance without bias."""
        if not self.track_running_stats or self.running_mean is None or self.running_var is None:
            return
        assert self.num_batches_tracked is not None
        self.num_batches_tracked += 1
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
        self.running_var.lerp_((variance * (count / (count - 1))).to(self.running_var.dtype), share)


class _Normalise(torch.autograd.Function):
    """Rows minus the mean over their deviation, by channel; half types are normalised in float32."""

    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor, eps: float, ranks: Ranks) -> tuple[torch.Tensor, ...]:
        """Return normalised rows, mean and variance ``[C]`` of all ranks, and their numbers per channel."""
        wide = rows.float() if rows.dtype.itemsize < 4 else rows
        mean, variance, count = _statistics(wide, ranks)
        inverse = (variance + eps).rsqrt()
        shape = _shape(wide)
        normalised = (wide - mean.view(shape)) * inverse.view(shape)
        ctx.save_for_backward(normalised, inverse)
        ctx.ranks, ctx.count, ctx.kind = ranks, count, rows.dtype
        ctx.mark_non_differentiable(mean, variance, count)
        return normalised, mean, variance, count

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        """Return the gradient of the rows: that of each depends on all rows of all ranks."""
        normalised, inverse = ctx.saved_tensors
        gradient = gradients[0]
        axes = _axes(gradient)
        sums = torch.stack([gradient.sum(axes), (gradient * normalised).sum(axes)])
        ctx.ranks.sum(sums)
        shape = _shape(gradient)
        mean, along = (sums / ctx.count).unbind()
        found = (gradient - mean.view(shape) - normalised * along.view(shape)) * inverse.view(shape)
        return found.to(ctx.kind), None, None


def _statistics(rows: torch.Tensor, ranks: Ranks) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return mean and variance of all ranks' rows ``[C]``, and how many numbers of a channel they have."""
    variance, mean = torch.var_mean(rows, _axes(rows), correction=0)
    # Each rank writes its own line: sums of squares would lose digits where a mean is large.
    table = rows.new_zeros(ranks.size, 2 * len(mean) + 1)
    table[ranks.rank] = torch.cat([mean, variance, mean.new_tensor([rows.numel() / len(mean)])])
    ranks.sum(table)
    means, variances, counts = torch.split(table, [len(mean), len(mean), 1], dim=1)
    count = counts.sum()
    weights = counts / count
    mean = (weights * means).sum(0)
    return mean, (weights * (variances + (means - mean) ** 2)).sum(0), count


def _axes(rows: torch.Tensor) -> list[int]:
    """Return all axes but that of the channels."""
    return [0, *range(2, rows.dim())]


def _shape(rows: torch.Tensor) -> tuple[int, ...]:
    """Return the shape of a number per channel beside rows."""
    return (1, -1, *[1] * (rows.dim() - 2))
