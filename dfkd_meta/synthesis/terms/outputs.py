"""Terms on what the teacher makes of a batch: spread over classes, certainty, activity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from dfkd_meta.sidecar import Tap
from dfkd_meta.synthesis.terms.base import StepState, Term


@dataclass(frozen=True)
class Balance(Term):
    """``sum_k q_k ln q_k`` with q the mean prediction of the batch: all classes equally often.

    Minus the entropy of q in nats, at least -ln c. The information entropy loss of DAFL (Chen et
    al. 2019, eq. 6) and the batch entropy of DFQ; DAFL's code takes log10 (2.3 times less).
    """

    component: ClassVar[str] = "balance"

    def __call__(self, state: StepState) -> Tensor:
        mean = F.softmax(state.logits, dim=1).mean(0)
        return (mean * mean.clamp_min(1e-12).log()).sum()


@dataclass(frozen=True)
class InstanceEntropy(Term):
    """``-mean_n sum_k p_nk ln p_nk``: each input of a clear class (nats).

    The instance entropy of DFQ (Choi et al. 2020), where others take the argmax's cross-entropy.
    """

    component: ClassVar[str] = "oh"

    def __call__(self, state: StepState) -> Tensor:
        log_p = F.log_softmax(state.logits, dim=1)
        return -(log_p.exp() * log_p).sum(1).mean()


@dataclass(frozen=True)
class ActivationNorm(Term):
    """``-mean_{n,f} |a|`` at one tap: real inputs make a layer respond more than noise does.

    DAFL's activation loss (Chen et al. 2019, eq. 4), at the last hidden layer.
    """

    component: ClassVar[str] = "act"
    tap: Tap

    @property
    def taps(self) -> tuple[Tap, ...]:
        return (self.tap,)

    def __call__(self, state: StepState) -> Tensor:
        return -state.activation(self.tap).abs().mean()
