"""LeNet-5 as the data-free literature uses it (DAFL, Chen et al. 2019), and its half."""

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


class LeNet5(nn.Module):
    """Three 5x5 convolutions (two max-pooled) and two linear layers, ReLU, no BatchNorm.

    On 32x32 the third convolution leaves one position, as published. Where fewer than 5 pixels
    remain its kernel shrinks to what is left; where more remain the first linear layer sees all.
    """

    def __init__(self, shape: tuple[int, int, int], width: float, num_classes: int) -> None:
        super().__init__()
        channels, *image = shape
        left = [((size - 4) // 2 - 4) // 2 for size in image]
        kernel = (min(5, left[0]), min(5, left[1]))
        positions = (left[0] - kernel[0] + 1) * (left[1] - kernel[1] + 1)
        one, two, three, four = (scaled(size, width) for size in (6, 16, 120, 84))
        self.conv1 = nn.Conv2d(channels, one, 5)
        self.relu1 = nn.ReLU()
        self.pool1 = nn.MaxPool2d(2)
        self.conv2 = nn.Conv2d(one, two, 5)
        self.relu2 = nn.ReLU()
        self.pool2 = nn.MaxPool2d(2)
        self.conv3 = nn.Conv2d(two, three, kernel)
        self.relu3 = nn.ReLU()
        self.flatten = nn.Flatten()
        self.fc1 = nn.Linear(three * positions, four)
        self.relu4 = nn.ReLU()
        self.fc2 = nn.Linear(four, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Images `n c h w` -> logits `n classes`."""
        x = self.pool1(self.relu1(self.conv1(images)))
        x = self.pool2(self.relu2(self.conv2(x)))
        x = self.flatten(self.relu3(self.conv3(x)))
        logits: Tensor = self.fc2(self.relu4(self.fc1(x)))
        return logits


@architectures.register("lenet5")
def lenet5(num_classes: Classes, shape: Shape, width: Width = 1.0) -> nn.Module:
    """6-16-120-84 (61,706 parameters on 1x32x32 and 10 classes)."""
    return LeNet5(image_shape("lenet5", shape, 16), width, num_classes)


@architectures.register("lenet5_half")
def lenet5_half(num_classes: Classes, shape: Shape, width: Width = 1.0) -> nn.Module:
    """DAFL's half, 3-8-60-42 (15,738 parameters on 1x32x32 and 10 classes).

    Lopes et al. 2017 call another net half: 3-8 filters, but linear layers of 120 and 84 kept.
    """
    return LeNet5(image_shape("lenet5_half", shape, 16), width / 2, num_classes)
