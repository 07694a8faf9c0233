"""A small BatchNorm network for small images: the teacher of the demonstration on 8x8 digits."""

from __future__ import annotations

from torch import Tensor, nn

from dfkd_meta.teachers.architectures import (
    Classes,
    Shape,
    Width,
    architectures,
    image_shape,
    scaled,
)


class DigitsCNN(nn.Module):
    """Three 3x3 convolutions with BatchNorm and ReLU, one pooling, global mean, one linear."""

    def __init__(self, channels: int, width: float, num_classes: int) -> None:
        super().__init__()
        one, two, three = (scaled(size, width) for size in (16, 32, 64))
        self.conv1 = nn.Conv2d(channels, one, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(one)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(one, two, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(two)
        self.relu2 = nn.ReLU()
        self.pool = nn.MaxPool2d(2)
        self.conv3 = nn.Conv2d(two, three, 3, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(three)
        self.relu3 = nn.ReLU()
        self.mean = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(three, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Images `n c h w` -> logits `n classes`."""
        x = self.relu1(self.bn1(self.conv1(images)))
        x = self.pool(self.relu2(self.bn2(self.conv2(x))))
        x = self.relu3(self.bn3(self.conv3(x)))
        logits: Tensor = self.fc(self.flatten(self.mean(x)))
        return logits


@architectures.register("digits_cnn")
def digits_cnn(num_classes: Classes, shape: Shape, width: Width = 1.0) -> nn.Module:
    """16-32-64 channels (about 24 thousand parameters); any `c h w` of at least 2x2."""
    channels, _, _ = image_shape("digits_cnn", shape, 2)
    return DigitsCNN(channels, width, num_classes)
