"""CIFAR residual networks with parameter-free shortcuts (He et al. 2016, sec. 4.2, option A)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from dfkd_meta.teachers.architectures import (
    Classes,
    Shape,
    Width,
    architectures,
    image_shape,
    scaled,
)


class Block(nn.Module):
    """Two 3x3 convolutions around an identity that is subsampled and padded with zero channels."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.relu2 = nn.ReLU()
        self.stride = stride
        self.padding = ((after - before) // 2, (after - before + 1) // 2)

    def forward(self, x: Tensor) -> Tensor:
        """Features `n before h w` -> `n after h/stride w/stride`."""
        y = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        # Every stride-th position, as slicing takes them, but the gradient keeps its memory format:
        # of slices it is not channels-last, and a ReLU that meets both takes thirty times as long.
        identity = x if self.stride == 1 else F.avg_pool2d(x, 1, self.stride)
        out: Tensor = self.relu2(y + F.pad(identity, (0, 0, 0, 0, *self.padding)))
        return out


class ResNet(nn.Module):
    """One convolution, three stages of ``blocks`` blocks, global mean, one linear layer."""

    def __init__(self, channels: int, blocks: int, width: float, num_classes: int) -> None:
        super().__init__()
        one, two, three = (scaled(size, width) for size in (16, 32, 64))
        self.conv1 = nn.Conv2d(channels, one, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(one)
        self.relu1 = nn.ReLU()
        self.layer1 = _stage(one, one, blocks, 1)
        self.layer2 = _stage(one, two, blocks, 2)
        self.layer3 = _stage(two, three, blocks, 2)
        self.mean = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.linear = nn.Linear(three, num_classes)
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, images: Tensor) -> Tensor:
        """Images `n c h w` -> logits `n classes`."""
        x = self.relu1(self.bn1(self.conv1(images)))
        x = self.layer3(self.layer2(self.layer1(x)))
        logits: Tensor = self.linear(self.flatten(self.mean(x)))
        return logits


def _stage(before: int, after: int, blocks: int, stride: int) -> nn.Sequential:
    rest = [Block(after, after, 1) for _ in range(blocks - 1)]
    return nn.Sequential(Block(before, after, stride), *rest)


@architectures.register("resnet20")
def resnet20(num_classes: Classes, shape: Shape, width: Width = 1.0) -> nn.Module:
    """Three blocks a stage (269,722 parameters on 3 channels and 10 classes)."""
    channels, _, _ = image_shape("resnet20", shape, 4)
    return ResNet(channels, 3, width, num_classes)


@architectures.register("resnet8")
def resnet8(num_classes: Classes, shape: Shape, width: Width = 1.0) -> nn.Module:
    """One block a stage (75,290 parameters on 3 channels and 10 classes)."""
    channels, _, _ = image_shape("resnet8", shape, 4)
    return ResNet(channels, 1, width, num_classes)
