"""What a batch of inputs aims at: a class each, activations or soft labels drawn for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dfkd_meta.synthesis.gaussians import ClassGaussians, JointMixtures, group_rows
from dfkd_meta.synthesis.grouping import Grouping
from dfkd_meta.waiting import sent

SoftLabels = Callable[[Tensor, torch.Generator], Tensor]
"""Draws a distribution over the classes per label: int64 `n` -> float32 `n c`, rows sum to 1."""


@dataclass(frozen=True)
class Targets:
    """labels: int64 `n`. features: tap id -> float32 `n f`, the activations to reach.

    soft: float32 `n c`, the class probabilities to reach, None when the aim is the class alone.
    """

    labels: Tensor
    features: dict[str, Tensor] = field(default_factory=dict)
    soft: Tensor | None = None
    _groupings: dict[tuple[int, ...], Grouping] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def grouping(self, classes: tuple[int, ...]) -> Grouping:
        """The rows by the recorded groups of ``classes`` (none: one group of all), found once."""
        if classes not in self._groupings:
            self._groupings[classes] = Grouping.of(group_rows(classes, self.labels))
        return self._groupings[classes]


def every_class(size: int, classes: tuple[int, ...], device: torch.device) -> Targets:
    """``size`` labels in which the classes take turns, for a look at draws of all of them."""
    return Targets(torch.tensor(classes, device=device)[torch.arange(size) % len(classes)])


@dataclass(frozen=True)
class TargetSampler:
    """Draws a batch of targets, balanced over ``classes``.

    ``features`` holds the Gaussians to draw activations from, by tap id, ``joint`` those of several
    taps at once; ``soft`` draws class probabilities.
    """

    classes: tuple[int, ...]
    device: torch.device
    features: dict[str, ClassGaussians] = field(default_factory=dict)
    soft: SoftLabels | None = None
    joint: JointMixtures | None = None

    def sample(self, size: int, index: int, generator: torch.Generator) -> Targets:
        """The targets of batch number ``index`` (0, 1, ...): ``size`` rows, one class at a time.

        Rows per class differ by at most one, in each batch and in all batches of one size together:
        the classes that get the rows left over take turns from batch to batch.
        """
        count = len(self.classes)
        turns = ((torch.arange(size) % count).sort().values + index * size) % count
        labels = sent(torch.tensor(self.classes)[turns], self.device)
        features = {tap: source.sample(labels, generator) for tap, source in self.features.items()}
        if self.joint is not None:
            features |= self.joint.sample(labels, generator)
        soft = sent(self.soft(labels, generator), self.device) if self.soft else None
        return Targets(labels, features, soft)


@dataclass(frozen=True)
class DirichletLabels:
    """Class probabilities ~ Dirichlet(alpha) with an alpha per class (ZSKD's soft targets).

    concentration: float32 `v c c`, positive: for each of v variants a row of alphas per class. The
    rows of a batch are dealt to the variants at random, equally many to each, so that every class
    meets all of them.
    """

    concentration: Tensor

    def __call__(self, labels: Tensor, generator: torch.Generator) -> Tensor:
        """int64 `n` -> float32 `n c`."""
        variant = torch.randperm(len(labels), generator=generator) % len(self.concentration)
        alpha = self.concentration[variant.to(labels.device), labels].double().cpu().numpy()
        # torch draws gamma variates from a generator of one's own in private functions only.
        seed = int(torch.randint(2**62, (1,), generator=generator))
        gamma = np.random.default_rng(seed).standard_gamma(alpha)
        # With small alphas every variate of a row may underflow to 0.
        drawn = torch.from_numpy(gamma).clamp_min(torch.finfo(torch.float64).tiny)
        return (drawn / drawn.sum(1, keepdim=True)).float()


@dataclass(frozen=True)
class FeatureLabels:
    """Class probabilities of features drawn for the last layer (Wang 2021's soft targets).

    Features are ``std * W n`` with n ~ N(0, I) and W the ``directions``, float32 `f d` with rows of
    length 1, so that their correlation is ``W W^T``; ``rectified`` cuts them at 0. They go through
    ``head`` into a softmax at ``temperature``.
    """

    directions: Tensor
    head: nn.Linear
    std: float
    rectified: bool
    temperature: float = 1.0

    def __call__(self, labels: Tensor, generator: torch.Generator) -> Tensor:
        """int64 `n` -> float32 `n c`; the classes are as they fall, not those of the labels."""
        noise = torch.randn(len(labels), self.directions.shape[1], generator=generator)
        features = self.std * sent(noise, self.directions.device) @ self.directions.T
        features = F.relu(features) if self.rectified else features
        with torch.no_grad():
            logits = self.head(features.to(self.head.weight.dtype)).float()
        return F.softmax(logits / self.temperature, dim=1)
