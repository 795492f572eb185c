"""A small convolutional network for images of 8 to 16 pixels, such as the built-in digits."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


class SmallNet(nn.Module):
    """Two 3x3 convolutions, a pooling layer and one more convolution; 64-d averages after a ReLU.

    Parameters
    ----------
    channels
        Colour channels of the images.
    width
        Channels of the first layer; the features have ``2 * width`` dimensions.
    """

    def __init__(self, channels: int = 1, width: int = 32) -> None:
        super().__init__()
        self.dim = 2 * width
        self.conv1 = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, self.dim, 3, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(self.dim)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return features ``[n, dim]`` float32 of images ``[n, channels, H, W]``."""
        x = F.relu(self.bn1(self.conv1(images)))
        x = F.max_pool2d(F.relu(self.bn2(self.conv2(x))), 2, ceil_mode=True)
        x = F.relu(self.bn3(self.conv3(x)))
        return x.mean(dim=(2, 3), dtype=torch.float32)
