"""A small teacher with everything a statistic can meet, and data for it."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from dfkd_meta.sidecar import InputSpec, OutputSpec
from dfkd_meta.teachers import Teacher, freeze

torch.set_num_threads(1)
CLASSES = 3
INPUTS = InputSpec(
    shape=[1, 6, 6], axes=["c", "h", "w"], value_range=[0, 1], mean=[0.5], std=[0.25]
)


class ToyNet(nn.Module):
    """conv - BN - ReLU - dropout - linear - ReLU - linear."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, width, 3)
        self.bn = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.drop = nn.Dropout(0.25)
        self.hidden = nn.Linear(16 * width, 5)
        self.head = nn.Linear(5, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.drop(self.relu(self.bn(self.conv(x))))
        return self.head(self.relu(self.hidden(x.flatten(1))))


class PlainNet(nn.Module):
    """linear - ReLU - linear, without BN or dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(36, 5)
        self.head = nn.Linear(5, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.hidden(x.flatten(1)).relu())


def teacher(module: nn.Module | None = None, source: str = "local") -> Teacher:
    torch.manual_seed(0)
    module = module or ToyNet()
    with torch.no_grad():
        module(torch.randn(64, *INPUTS.shape))  # moves BN's running statistics
    return Teacher(
        module=freeze(module),
        source=source,
        architecture="tests.statistics.toys:ToyNet",
        arguments={},
        inputs=INPUTS,
        outputs=OutputSpec(num_classes=CLASSES),
    )


def images(n: int = 90, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Model-normalized images `n 1 6 6` whose mean depends on the class, and labels `n`."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randperm(n, generator=generator) % CLASSES
    x = torch.randn(n, *INPUTS.shape, generator=generator)
    return x + labels.reshape(-1, 1, 1, 1), labels


def stream(
    x: Tensor, labels: Tensor | None, size: int = 32
) -> Iterator[tuple[Tensor, Tensor | None]]:
    for start in range(0, len(x), size):
        yield x[start : start + size], None if labels is None else labels[start : start + size]
