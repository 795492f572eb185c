"""Exponential moving average of a model's weights.

`torch.optim.swa_utils.AveragedModel` is no shorter here: its first update copies the weights, where this
average begins at the random ones; it must be told to leave whole numbers as they are, and the decay of each
step; and it makes a copy of the module, which not every network of a user allows.
"""

from __future__ import annotations

import torch
from torch import nn


class Ema:
    """Averages every floating-point entry of a state, batch statistics included.

    Early on the decay is ``(1 + steps) / (10 + steps)``, so that the average does not remember the
    random start.

    Parameters
    ----------
    module
        The model to follow.
    decay
        Weight of the average in each step, below 1.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay, self.steps = decay, 0
        self.state = {name: value.detach().clone() for name, value in module.state_dict().items()}

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Take in the module's weights after a step."""
        self.steps += 1
        weight = 1 - min(self.decay, (1 + self.steps) / (10 + self.steps))
        for name, value in module.state_dict().items():
            if value.is_floating_point():
                self.state[name].lerp_(value, weight)
            else:
                self.state[name].copy_(value)
