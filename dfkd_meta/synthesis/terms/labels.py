"""Terms on the teacher's logits."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from dfkd_meta.sidecar import Tap
from dfkd_meta.synthesis.recipe import StepState


@dataclass(frozen=True)
class CrossEntropy:
    """Mean cross-entropy of the teacher's prediction against the class aimed at (nats).

    The one-hot term of DeepInversion (Yin et al. 2020, eq. 1).
    """

    taps: tuple[Tap, ...] = ()

    def __call__(self, state: StepState) -> Tensor:
        return F.cross_entropy(state.logits, state.targets.labels)
