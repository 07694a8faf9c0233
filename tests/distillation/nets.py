"""Small teachers, students and trainings that the tests of this folder share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from dfkd_meta.batches import SyntheticBatch, shuffled
from dfkd_meta.distillation.config import TrainingConfig
from dfkd_meta.distillation.training import Trainer
from dfkd_meta.sidecar import InputSpec, OutputSpec
from dfkd_meta.teachers import Teacher, build_model, freeze

SHAPE, CLASSES = [1, 8, 8], 3


def built(architecture: str, *, width: float = 0.25, seed: int = 0) -> nn.Module:
    """An untrained network for 8x8 images of three classes."""
    arguments = {"num_classes": CLASSES, "shape": SHAPE, "width": width}
    return build_model(architecture, arguments, seed=seed)


def a_teacher(module: nn.Module | str = "digits_cnn", source: str = "builtin") -> Teacher:
    """A frozen teacher around a module, or around a built-in architecture at half its width."""
    name = module if isinstance(module, str) else "own"
    module = built(module, width=0.5) if isinstance(module, str) else module
    inputs = InputSpec(
        shape=SHAPE, axes=["c", "h", "w"], value_range=[0.0, 1.0], mean=[0.0], std=[1.0]
    )
    arguments = {"num_classes": CLASSES, "shape": SHAPE, "width": 0.5}
    return Teacher(
        freeze(module), source, name, dict(arguments), inputs, OutputSpec(num_classes=CLASSES)
    )


def a_pool(rows: int = 40) -> SyntheticBatch:
    """Random images with labels 0, 1, 2, 0, ..."""
    generator = torch.Generator().manual_seed(3)
    return SyntheticBatch(torch.rand(rows, *SHAPE, generator=generator), torch.arange(rows) % 3)


def weights_of(module: nn.Module) -> torch.Tensor:
    """All weights and buffers in one row."""
    return torch.cat([value.flatten().double() for value in module.state_dict().values()])


class NormedDropped(nn.Module):
    """BatchNorm and dropout in one small net of 4-d activations."""

    def __init__(self, channels: int = 4) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, channels, 3, padding=1)
        self.bn = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU()
        self.drop = nn.Dropout(0.3)
        self.pool = nn.MaxPool2d(2)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.head = nn.Linear(channels * 16, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pool(self.drop(self.relu(self.bn(self.conv(x)))))
        logits: torch.Tensor = self.head(self.conv2(x).relu().flatten(1))
        return logits


def batch_stream(config: TrainingConfig) -> Iterator[SyntheticBatch]:
    """Endless batches of ``a_pool``, the same each time."""
    generator = torch.Generator().manual_seed(4)
    return shuffled(a_pool(), batch_size=config.batch_size, generator=generator)


def trainer(config: TrainingConfig, seed: int = 0, **settings: Any) -> Trainer:
    """A trainer of the net with BatchNorm and dropout, taught by ``a_teacher``."""
    torch.manual_seed(0)
    student = settings.pop("student", None) or NormedDropped()
    settings = {"teacher": a_teacher(), **settings}
    return Trainer(student, config, torch.Generator().manual_seed(seed), **settings)


def trained(config: TrainingConfig, seed: int = 0, **settings: Any) -> torch.Tensor:
    """The weights after all steps."""
    run = trainer(config, seed, **settings)
    run.train(batch_stream(config), config.steps)
    return weights_of(run.finish())
