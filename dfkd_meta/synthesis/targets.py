"""What a batch of inputs aims at: a class each, and activations drawn for that class."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from dfkd_meta.synthesis.gaussians import ClassGaussians


@dataclass(frozen=True)
class Targets:
    """labels: int64 `n`. features: tap id -> float32 `n f`, the activations to reach."""

    labels: Tensor
    features: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class TargetSampler:
    """Draws a class-balanced batch of targets.

    ``classes_per_batch`` bounds how many classes share a batch, so that each has enough samples to
    match statistics over; the classes rotate from batch to batch. ``features`` holds the Gaussians
    to draw activations from, by tap id.
    """

    num_classes: int
    device: torch.device
    features: dict[str, ClassGaussians] = field(default_factory=dict)
    classes_per_batch: int | None = None

    def sample(self, size: int, index: int, generator: torch.Generator) -> Targets:
        """The targets of batch number ``index`` (0, 1, ...): ``size`` rows, ordered by class."""
        share = min(self.classes_per_batch or self.num_classes, self.num_classes)
        chosen = (torch.arange(share) + index * share) % self.num_classes
        labels = chosen.repeat_interleave(-(-size // share))[:size].to(self.device)
        features = {tap: source.sample(labels, generator) for tap, source in self.features.items()}
        return Targets(labels, features)
