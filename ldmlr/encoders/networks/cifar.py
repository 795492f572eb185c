"""ResNet-32 for small images: the network of the CIFAR experiments.

He et al., "Deep Residual Learning for Image Recognition" (CVPR 2016), section 4.2: one 3x3
convolution, three stages of five basic blocks with 16, 32 and 64 channels, and shortcuts
without parameters (option A: every other pixel, new channels filled with zeros). 464,154
parameters together with a linear head of ten classes.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


class Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut without parameters."""

    def __init__(self, channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, out_channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.stride, self.extra = stride, out_channels - channels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the block's output ``[n, out_channels, H / stride, W / stride]``."""
        shortcut = x
        if self.stride > 1 or self.extra:
            before = self.extra // 2
            shortcut = x[:, :, :: self.stride, :: self.stride]
            shortcut = F.pad(shortcut, (0, 0, 0, 0, before, self.extra - before))
        out = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(out)) + shortcut)


class CifarResNet(nn.Module):
    """Residual network for images of about 32 pixels; features are averages after a ReLU.

    Parameters
    ----------
    blocks
        Blocks per stage; the depth is ``6 * blocks + 2``.
    channels
        Colour channels of the images.
    width
        Channels of the first stage; the features have ``4 * width`` dimensions.
    """

    def __init__(self, blocks: int = 5, channels: int = 3, width: int = 16) -> None:
        super().__init__()
        self.dim = 4 * width
        self.conv1 = nn.Conv2d(channels, width, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        stages: list[nn.Module] = []
        before = width
        for stage in range(3):
            after = width << stage
            for block in range(blocks):
                stages.append(Block(before, after, stride=2 if stage and not block else 1))
                before = after
        self.blocks = nn.Sequential(*stages)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return features ``[n, dim]`` float32 of images ``[n, channels, H, W]``."""
        x: torch.Tensor = self.blocks(F.relu(self.bn1(self.conv1(images))))
        # The average is taken in float32: under bfloat16 autocast it would keep eight bits only.
        return x.mean(dim=(2, 3), dtype=torch.float32)
