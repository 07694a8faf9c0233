"""Terms that pull each input towards a class, or towards given class probabilities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from dfkd_meta.synthesis.terms.base import StepState, Term


@dataclass(frozen=True)
class CrossEntropy(Term):
    """Mean cross-entropy of the teacher's prediction against the class aimed at (nats).

    The one-hot term of DeepInversion (Yin et al. 2020, eq. 1).
    """

    component: ClassVar[str] = "oh"

    def __call__(self, state: StepState) -> Tensor:
        return F.cross_entropy(state.logits, state.targets.labels)


@dataclass(frozen=True)
class ArgmaxCrossEntropy(Term):
    """Mean cross-entropy against the class that the teacher sees already (nats).

    The one-hot loss of DAFL (Chen et al. 2019, eq. 3): inputs of any class, but of a clear one.
    """

    component: ClassVar[str] = "oh"

    def __call__(self, state: StepState) -> Tensor:
        return F.cross_entropy(state.logits, state.logits.argmax(1))


@dataclass(frozen=True)
class SoftCrossEntropy(Term):
    """``-mean_n sum_k y_nk log softmax(t_n / T)_k`` against the drawn probabilities y (nats).

    ZSKD (Nayak et al. 2019, eq. 3), with T = 20 there.
    """

    temperature: float = 1.0

    def __call__(self, state: StepState) -> Tensor:
        if state.targets.soft is None:
            raise ValueError("this term needs a target sampler with soft labels")
        return F.cross_entropy(state.logits / self.temperature, state.targets.soft)
