"""Terms that pull each input towards activations drawn for it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from dfkd_meta.sidecar import Tap
from dfkd_meta.synthesis.terms.base import StepState, Term
from dfkd_meta.teachers import reduce_features


@dataclass(frozen=True)
class FeatureTarget(Term):
    """Squared distance to the drawn activations of one tap.

    ``mean_{n,f} (r(a / divisor) - r(s))^2 / scale``, with a the activations `n f`, s the draw, and
    r the ReLU when ``rectify`` is set (Lopes et al. 2017 compare after the non-linearity), else the
    identity. ``divisor`` is the temperature when the draw describes softened logits.
    """

    tap: Tap
    divisor: float = 1.0
    scale: float = 1.0
    rectify: bool = False

    @property
    def taps(self) -> tuple[Tap, ...]:
        return (self.tap,)

    def __call__(self, state: StepState) -> Tensor:
        reached = reduce_features(state.activation(self.tap), self.tap, "unit")
        reached, drawn = reached / self.divisor, state.targets.features[self.tap.id]
        if self.rectify:
            reached, drawn = F.relu(reached), F.relu(drawn)
        return F.mse_loss(reached, drawn) / self.scale


@dataclass(frozen=True)
class FeatureTargets(Term):
    """The sum of the distances of several taps (Lopes et al. 2017, 'all layers')."""

    targets: tuple[FeatureTarget, ...]

    @property
    def taps(self) -> tuple[Tap, ...]:
        return tuple(target.tap for target in self.targets)

    def __call__(self, state: StepState) -> Tensor:
        distances = [target(state) for target in self.targets]
        return torch.stack([state.logits.new_zeros(()), *distances]).sum()
