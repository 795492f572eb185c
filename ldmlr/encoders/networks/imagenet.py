"""ResNet-10 and ResNet-50 for larger images, with the standard stem.

He et al., "Deep Residual Learning for Image Recognition" (CVPR 2016): a 7x7 convolution and
a pooling layer, then four stages. ResNet-10 (one basic block a stage, 512-d features) is the
network of ImageNet-LT; ResNet-50 has bottleneck blocks (3, 4, 6, 3) and 2048-d features. The
parameters carry the usual names (``layer1.0.conv1.weight``), so that public weights fit.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


def _conv(channels: int, out_channels: int, size: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels, out_channels, size, stride, size // 2, bias=False)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut."""

    expansion = 1

    def __init__(self, channels: int, planes: int, stride: int, downsample: nn.Module | None) -> None:
        super().__init__()
        self.conv1 = _conv(channels, planes, 3, stride)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = _conv(planes, planes, 3)
        self.bn2 = nn.BatchNorm2d(planes)
        self.downsample = downsample

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the block's output."""
        shortcut = x if self.downsample is None else self.downsample(x)
        out = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(out)) + shortcut)


class Bottleneck(nn.Module):
    """A 1x1, a 3x3 (which carries the stride) and a 1x1 convolution beside a shortcut."""

    expansion = 4

    def __init__(self, channels: int, planes: int, stride: int, downsample: nn.Module | None) -> None:
        super().__init__()
        self.conv1 = _conv(channels, planes, 1)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = _conv(planes, planes, 3, stride)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = _conv(planes, planes * self.expansion, 1)
        self.bn3 = nn.BatchNorm2d(planes * self.expansion)
        self.downsample = downsample

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the block's output."""
        shortcut = x if self.downsample is None else self.downsample(x)
        out = F.relu(self.bn1(self.conv1(x)))
        out = F.relu(self.bn2(self.conv2(out)))
        return F.relu(self.bn3(self.conv3(out)) + shortcut)


class ResNet(nn.Module):
    """Residual network of four stages; features are averages after a ReLU.

    Parameters
    ----------
    block
        `BasicBlock` or `Bottleneck`.
    layers
        Blocks of each stage.
    channels
        Colour channels of the images.
    """

    def __init__(
        self, block: type[BasicBlock] | type[Bottleneck], layers: tuple[int, int, int, int], channels: int = 3
    ) -> None:
        super().__init__()
        self.dim = 512 * block.expansion
        self.conv1 = _conv(channels, 64, 7, 2)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.width = 64
        self.layer1 = self._stage(block, 64, layers[0], 1)
        self.layer2 = self._stage(block, 128, layers[1], 2)
        self.layer3 = self._stage(block, 256, layers[2], 2)
        self.layer4 = self._stage(block, 512, layers[3], 2)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def _stage(
        self, block: type[BasicBlock] | type[Bottleneck], planes: int, count: int, stride: int
    ) -> nn.Sequential:
        after = planes * block.expansion
        blocks: list[nn.Module] = []
        for index in range(count):
            step = stride if index == 0 else 1
            downsample = None
            if step > 1 or self.width != after:
                downsample = nn.Sequential(_conv(self.width, after, 1, step), nn.BatchNorm2d(after))
            blocks.append(block(self.width, planes, step, downsample))
            self.width = after
        return nn.Sequential(*blocks)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return features ``[n, dim]`` float32 of images ``[n, channels, H, W]``."""
        x = self.maxpool(F.relu(self.bn1(self.conv1(images))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        features: torch.Tensor = x.mean(dim=(2, 3), dtype=torch.float32)
        return features
