"""The fully connected nets of the first distillation paper (Hinton, Vinyals, Dean 2015, sec. 3)."""

from __future__ import annotations

import math

from torch import Tensor, nn

from dfkd_meta.teachers.architectures import Classes, Shape, Width, architectures, scaled


class Hinton(nn.Module):
    """Two hidden ReLU layers with dropout 0.2 on the input and 0.5 on the hidden layers."""

    def __init__(self, features: int, hidden: int, num_classes: int) -> None:
        super().__init__()
        self.flatten = nn.Flatten()
        self.drop0 = nn.Dropout(0.2)
        self.fc1 = nn.Linear(features, hidden)
        self.relu1 = nn.ReLU()
        self.drop1 = nn.Dropout(0.5)
        self.fc2 = nn.Linear(hidden, hidden)
        self.relu2 = nn.ReLU()
        self.drop2 = nn.Dropout(0.5)
        self.fc3 = nn.Linear(hidden, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Images `n ...` of any layout -> logits `n classes`."""
        x = self.drop0(self.flatten(images))
        x = self.drop1(self.relu1(self.fc1(x)))
        x = self.drop2(self.relu2(self.fc2(x)))
        logits: Tensor = self.fc3(x)
        return logits


@architectures.register("hinton1200")
def hinton1200(num_classes: Classes, shape: Shape, width: Width = 1.0) -> nn.Module:
    """The teacher of the paper: 1200-1200 (2,395,210 parameters on 28x28 and 10 classes)."""
    return Hinton(math.prod(shape), scaled(1200, width), num_classes)


@architectures.register("hinton800")
def hinton800(num_classes: Classes, shape: Shape, width: Width = 1.0) -> nn.Module:
    """The student of the paper: 800-800 (1,276,810 parameters on 28x28 and 10 classes)."""
    return Hinton(math.prod(shape), scaled(800, width), num_classes)
